"""A task asked of a model: every item answered, scored, and the score with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from llmctl.core.seeds import derive
from llmctl.evals.intervals import wilson
from llmctl.evals.tasks import core
from llmctl.evals.tasks.generate import answer_all
from llmctl.evals.tasks.grade import MATCH, Grader
from llmctl.evals.tasks.kinds import Choice, Item, Kind, Open, Task
from llmctl.evals.tasks.likelihood import Scored, score
from llmctl.evals.tasks.requests import (
    Pair,
    Start,
    bare_question,
    cut_to,
    encode_pairs,
    messages_for,
    shots_for,
    texts,
)
from llmctl.infer.engine import Engine
from llmctl.infer.params import SamplingParams
from llmctl.infer.toolbox import ToolBox
from llmctl.tokenizer.chat import ChatFormat

AT_ONCE = 512  # open items in one call of the engine
NO_ROOM = "no room for it in the context"
NEXT = "\nQuestion:"  # ends a base model's answer that has several lines, as reasoning has


@dataclass(frozen=True)
class Subject:
    """A model to be asked. format: None where it has none or plain text is wanted."""

    name: str
    engine: Engine
    start: Start
    format: ChatFormat | None = None
    chat_choices: bool = False  # options of choices as answers in the chat format
    tools: ToolBox | None = None


@dataclass(frozen=True)
class Asking:
    """How items are asked. shots -1: as many as CORE uses for the file."""

    limit: int = 0
    shots: int = 0
    seed: int = 1337
    max_tokens: int = 256

    def shots_of(self, task: Task) -> int:
        """Shots for a task."""
        return task.core_shots if self.shots < 0 else self.shots

    def numbers(self, task: Task) -> list[int]:
        """Which items are asked: all, or `limit` drawn by seed, in the file's order."""
        n = len(task.items)
        if not self.limit or self.limit >= n:
            return list(range(n))
        return sorted(Random(derive(self.seed, task.name)).sample(range(n), self.limit))


@dataclass
class Result:
    """What a model made of a task. metrics: name -> (value, low, high); rows: one an item."""

    model: str
    task: str
    kind: str
    asked: int
    metrics: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def ask(
    subject: Subject, task: Task, asking: Asking, advance: Callable[[int], None] = lambda n: None
) -> Result:
    """Ask a model the items of a task."""
    numbers = asking.numbers(task)
    n_shots = asking.shots_of(task)
    shots = [shots_for(task, n, n_shots, asking.seed) for n in numbers]
    items = [task.items[n] for n in numbers]
    result = Result(subject.name, task.name, task.kind, len(items))
    if task.kind == "open":
        _open(subject, items, shots, asking, result, advance)
    else:
        _likely(subject, task, items, shots, result, advance)
    return result


def _likely(
    subject: Subject,
    task: Task,
    items: Sequence[Item],
    shots: Sequence[Sequence[Item]],
    result: Result,
    advance: Callable[[int], None],
) -> None:
    written, groups, usable = [], [], []
    for item, before in zip(items, shots):
        assert isinstance(item, Choice)
        if subject.chat_choices and subject.format is not None:
            pairs, shown = _chat_pairs(subject, item, before)
        else:
            shown = texts(item, before, task.delimiter)
            pairs = encode_pairs(subject.engine.tokenizer, subject.start, shown)
        try:
            group = [cut_to(c, k, subject.engine.config.max_seq_len) for c, k in pairs]
        except ValueError as error:
            result.rows.append({"where": item.where, "skipped": str(error)})
            reason = f"not asked: {error}"
            result.counts[reason] = result.counts.get(reason, 0) + 1
            continue
        written.append(shown)
        groups.append(group)
        usable.append(item)
    scores = score(subject.engine.runner, groups, advance)
    rows = [
        _likely_row(task.kind, item, shown, found, pairs)
        for item, shown, found, pairs in zip(usable, written, scores, groups)
    ]
    result.rows += rows
    if rows:
        _likely_metrics(result, task, rows)


def _chat_pairs(
    subject: Subject, item: Choice, shots: Sequence[Item]
) -> tuple[list[tuple[list[int], list[int]]], list[tuple[str, str]]]:
    """An item in the chat format: contexts as the user's message, continuations as the answer;
    shots are earlier exchanges."""
    assert subject.format is not None
    before: list[dict[str, Any]] = []
    for shot in shots:
        if isinstance(shot, Choice):
            context, continuation = shot.pairs()[shot.gold]
            before.append({"role": "user", "content": bare_question(context)})
            before.append({"role": "assistant", "content": continuation})
    shown = [(bare_question(c) if c else c, k) for c, k in item.pairs()]
    asked = [[*before, {"role": "user", "content": c}] for c, _ in shown]
    contexts = [r.ids for r in subject.format.render_many(asked, generation=True)]
    answers = subject.engine.tokenizer.encode_batch([k for _, k in shown])
    return list(zip(contexts, answers)), shown


def _likely_row(
    kind: Kind,
    item: Choice,
    shown: list[tuple[str, str]],
    found: list[Scored],
    pairs: list[Pair],
) -> dict[str, Any]:
    sums = [s.logprob for s in found]
    row = {
        "where": item.where,
        "pairs": [list(pair) for pair in shown],
        "logprobs": sums,
        "greedy": [s.greedy for s in found],
        "tokens": [[len(p.ids) + 1 - s.tokens, s.tokens] for s, p in zip(found, pairs)],
        "gold": item.gold,
        "answer": _best(sums),
    }
    if kind == "choice":  # of the others the options are contexts, whose lengths say nothing
        options = item.continuations
        row["answer_norm"] = _best([s / len(o) for s, o in zip(sums, options)])
        row["answer_bytes"] = _best([s / len(o.encode()) for s, o in zip(sums, options)])
    return row


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _share(right: int, n: int) -> tuple[float, float, float]:
    low, high = wilson(right, n)
    return (right / n if n else 0.0), low, high


def _likely_metrics(result: Result, task: Task, rows: list[dict[str, Any]]) -> None:
    n = len(rows)
    if task.kind == "completion":
        result.metrics["acc"] = _share(sum(row["greedy"][0] for row in rows), n)
        nats = [-row["logprobs"][0] for row in rows]
        mean = sum(nats) / n
        spread = math.sqrt(sum((x - mean) ** 2 for x in nats) / max(1, n - 1) / n)
        edges = (mean, mean - 1.959964 * spread, mean + 1.959964 * spread)
        a, b, c = (math.exp(min(edge, 700.0)) for edge in edges)
        result.metrics["perplexity"] = (a, b, c)
    else:
        names = {"acc": "answer"}
        if task.kind == "choice":
            names |= {"acc_norm": "answer_norm", "acc_bytes": "answer_bytes"}
        for name, key in names.items():
            result.metrics[name] = _share(sum(row[key] == row["gold"] for row in rows), n)
    accuracy = result.metrics["acc"]
    centred = [core.centred(value, task.chance) for value in accuracy]
    result.metrics["centred"] = (centred[0], centred[1], centred[2])


def _open(
    subject: Subject,
    items: Sequence[Item],
    shots: Sequence[Sequence[Item]],
    asking: Asking,
    result: Result,
    advance: Callable[[int], None],
) -> None:
    asked = [item for item in items if isinstance(item, Open)]
    grader = Grader()
    grader.check(asked, result.task)
    verifiers = {item.verifier for item in asked}
    worked = bool(verifiers - {MATCH, "exact"})  # more than a line: reasoning, code
    stops = (NEXT,) if "python-tests" in verifiers else (NEXT, "\n\n")
    params = SamplingParams(
        max_tokens=asking.max_tokens,
        temperature=0.0,
        stop=stops if worked and subject.format is None else (),
    )
    prompts = [messages_for(item, before) for item, before in zip(asked, shots)]
    right = unscored = unasked = exact = refused = 0
    for at in range(0, len(asked), AT_ONCE):
        part = prompts[at : at + AT_ONCE]
        answers = answer_all(
            subject.engine,
            subject.format,
            part,
            params,
            subject.tools,
            start=subject.start.ids,
            on_answer=lambda: advance(1),
        )
        for item, messages, answer in zip(asked[at : at + AT_ONCE], part, answers):
            if not answer.asked:
                result.rows.append({"where": item.where, "skipped": NO_ROOM})
                unasked += 1
                continue
            grade = grader.grade(item, answer.text)
            unscored += grade.right is None
            right += (grade.right or 0.0) >= 1.0
            exact += grade.exact
            refused += grade.refused
            result.rows.append(
                {
                    "where": item.where,
                    "question": messages[-1]["content"],
                    "answers": list(item.answers),
                    "verifier": item.verifier,
                    "reply": answer.text,
                    "right": grade.right,
                    "exact": grade.exact,
                    "refused": grade.refused,
                    "finish_reason": answer.finish_reason,
                    "calls": [call.as_json() for call in answer.calls],
                    **({"meta": dict(item.meta)} if item.meta else {}),
                }
            )
    if n := len(asked) - unasked:
        result.metrics["right"] = _share(right, n)
        if not worked:
            result.metrics["exact"] = _share(exact, n)
        result.metrics["refused"] = _share(refused, n)
    for name, count in (("unscored", unscored), (f"not asked: {NO_ROOM}", unasked)):
        if count:
            result.counts[name] = count
