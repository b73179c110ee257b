"""Results of several models on several tasks: one table, one JSON object, one line an item."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmctl.core.console import render_table
from llmctl.evals.tasks import core
from llmctl.evals.tasks.ask import Asking, Result
from llmctl.evals.tasks.kinds import Task

Span = tuple[float, float, float]  # value and its 95% interval
SHOWN = {
    "choice": ("acc", "acc_norm"),
    "schema": ("acc",),
    "completion": ("acc", "perplexity"),
    "open": ("right", "refused"),
}


def cell(span: Span | None, percent: bool = True) -> str:
    """'31.2% (28.1 – 34.5)'."""
    if span is None:
        return "-"
    value, low, high = span
    if percent:
        return f"{value:.1%} ({100 * low:.1f} – {100 * high:.1f})"
    return f"{value:,.4g} ({low:,.4g} – {high:,.4g})"


def centred_mean(tasks: Sequence[Task], results: Mapping[str, Result]) -> Span | None:
    """Mean over tasks of the accuracy with guessing taken out, as CORE is made; None without any.

    results: of one model, by task name. The interval takes the tasks as independent.
    """
    spans = []
    for task in tasks:
        metrics = results[task.name].metrics
        accuracy = metrics.get("right" if task.kind == "open" else "acc")
        if accuracy is not None:
            spans.append([core.centred(value, task.chance) for value in accuracy])
    if not spans:
        return None
    mean = sum(s[0] for s in spans) / len(spans)
    half = math.sqrt(sum(((s[2] - s[1]) / 2) ** 2 for s in spans)) / len(spans)
    return mean, mean - half, mean + half


def table(
    tasks: Sequence[Task], results: Mapping[str, Mapping[str, Result]], asking: Asking
) -> str:
    """Rows: a task and a measure of it; a column for each model. results: model -> task -> it."""
    models = list(results)
    rows: list[tuple[Any, ...]] = []
    for task in tasks:
        of_task = [results[model][task.name] for model in models]
        for name in SHOWN[task.kind]:
            if not any(name in r.metrics for r in of_task):
                continue
            if name == "refused" and not any(r.metrics.get(name, (0.0,))[0] for r in of_task):
                continue
            cells = [cell(r.metrics.get(name), name != "perplexity") for r in of_task]
            first = name == SHOWN[task.kind][0]
            what = (task.name, of_task[0].asked, asking.shots_of(task)) if first else ("", "", "")
            chance = f"{task.chance:.0%}" if task.chance and name != "perplexity" else ""
            rows.append((*what, name, chance, *cells))
    if len(tasks) > 1:
        means = [cell(centred_mean(tasks, results[model]), percent=True) for model in models]
        rows.append(("mean, guesses taken out", "", "", "centred", "", *means))
    columns = ["task", "items", "shots", "measure", "a guess", *models]
    return render_table("tasks (value, 95% interval)", columns, rows)


def as_json(
    tasks: Sequence[Task],
    results: Mapping[str, Mapping[str, Result]],
    asking: Asking,
    models: Mapping[str, str],
) -> dict[str, Any]:
    """The report. models: name -> path."""

    def spans(metrics: Mapping[str, Span]) -> dict[str, Any]:
        return {k: {"value": v, "low": a, "high": b} for k, (v, a, b) in metrics.items()}

    return {
        "models": dict(models),
        "limit": asking.limit,
        "seed": asking.seed,
        "tasks": [
            {
                "task": task.name,
                "kind": task.kind,
                "file": task.path.name,
                "items": len(task.items),
                "asked": len(asking.numbers(task)),
                "shots": asking.shots_of(task),
                "chance": task.chance,
                "skipped": {why: {"rows": n, "first": at} for why, (n, at) in task.skipped.items()},
                "results": {
                    model: {
                        **spans(results[model][task.name].metrics),
                        **(
                            {"counts": counts}
                            if (counts := results[model][task.name].counts)
                            else {}
                        ),
                    }
                    for model in results
                },
            }
            for task in tasks
        ],
        "centred_mean": {
            model: spans({"mean": mean})["mean"]
            for model in results
            if (mean := centred_mean(tasks, results[model])) is not None
        },
    }


def items_jsonl(results: Mapping[str, Mapping[str, Result]]) -> Iterator[bytes]:
    """Each item as each model answered it, one JSON object a line."""
    for model, of_tasks in results.items():
        for task, result in of_tasks.items():
            for row in result.rows:
                line = json.dumps({"model": model, "task": task, **row}, ensure_ascii=False)
                yield line.encode() + b"\n"
