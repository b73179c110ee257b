"""llmctl eval: what models can do. Reads one or several models, writes a report.

With --tasks: every item of the task files asked of every model. Multiple choice, schemas and
endings are scored by likelihood, with the very ids of lm-evaluation-harness; open questions are
answered greedily and graded by alias or verifier. report.txt holds the table, report.json every
score with its 95% interval, items.jsonl every item with its log-probabilities or its answer.

Without --tasks, for one of our own models: held-out bits per byte on the validation split it never
trained on, and facts of the synthetic world completed right, by how many kept training pages
stated them. What it was made from is found by its lineage; a web of others has no known facts, so
only bits per byte are measured.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llmctl.core.config import setting
from llmctl.core.errors import NoInput, UsageError
from llmctl.core.stage import Stage
from llmctl.core.tool_names import tool_names

ASKED = ("limit", "seed", "answer_tokens", "dtype")  # by tasks and abilities
IN_TASKS = ("shots", "chat", "tools", "split", "max_bad", "bos")
IN_WORLD = ("tokens", "facts_per_class", "max_tokens")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Measure models on task files, or a base model on what it was made from."""

    tasks: tuple[str, ...] = setting(
        (),
        "task files, folders or patterns, repeatable: CORE's JSONL, GSM8K, question and answer, "
        "our quizzes and problems (a web artifact); none: bits per byte and facts",
    )
    abilities: tuple[str, ...] = setting(
        (),
        "what to measure in the synthetic world, repeatable: answers, known, strangers, rare, "
        "context, search, steps, direct, python, problems, letters, letters-python, all",
    )
    limit: int = setting(0, "items of each task, drawn by seed; 0: all of them")
    shots: int = setting(0, "solved items of the same task before each; -1: as CORE has it")
    chat: bool | None = setting(
        None, "ask in the chat format; none: open questions of a model that has one, never choices"
    )
    tools: tuple[str, ...] = setting(
        (), "what a model may call for open questions: python, search (repeatable)"
    )
    split: str = setting("test", "rows of this split where rows name one; empty: all rows")
    max_bad: float = setting(0.05, "rows that may be unusable", unit="fraction of a file")
    answer_tokens: int = setting(256, "longest answer to an open question", unit="tokens")
    bos: bool | None = setting(None, "start token before each text; none: as in training")
    seed: int = setting(1337, "draws the items of --limit, and the shots")
    dtype: str = setting("fp32", "number format; auto: as stored", choices=("auto", "fp32", "bf16"))
    device: str = setting("auto", "where to run tasks", choices=("auto", "cpu", "cuda"))
    workers: int = setting(0, "CPU threads; 0: one for each core that is idle", payload=False)
    tokens: str = setting("", "tokens artifact; empty: the one the model was trained on")
    documents: str = setting(
        "", "documents for facts and for the search tool; empty: found by lineage"
    )
    web: str = setting("", "web artifact with the facts; empty: found by lineage")
    facts_per_class: int = setting(0, "facts asked in each exposure class; 0: all of them")
    batch: int = setting(64, "facts asked at once", payload=False)
    max_tokens: int = setting(12, "longest completion of a fact", unit="tokens")

    def __post_init__(self) -> None:
        least = {"batch": 1, "max_tokens": 1, "answer_tokens": 1, "shots": -1}
        for name in (*least, "facts_per_class", "limit", "workers", "seed"):
            if getattr(self, name) < least.get(name, 0):
                raise UsageError(
                    f"{name} must be at least {least.get(name, 0)}, got {getattr(self, name)}"
                )
        tool_names(self.tools)
        if not 0 <= self.max_bad <= 1:
            raise UsageError(f"max_bad must be from 0 to 1, got {self.max_bad}")
        if self.abilities and self.tasks:
            raise UsageError("--tasks and --abilities were both given; ask one after the other")
        if self.tools and self.chat is False:
            raise UsageError("--tools needs the chat format; leave --no-chat out")
        self._check_unheeded()

    def _check_unheeded(self) -> None:
        """Refuse a setting that says nothing about what is measured."""
        unheeded: tuple[str, ...]
        if self.tasks:
            how, unheeded = "with --tasks", (*IN_WORLD, "web")
        elif self.abilities:
            how, unheeded = "with --abilities", (*IN_TASKS, *IN_WORLD)
        else:
            how, unheeded = "without --tasks or --abilities", (*IN_TASKS, *ASKED)
            if self.device == "cuda":
                raise UsageError("bits per byte and facts are measured on the CPU; leave device")
        for knob in fields(self):
            if knob.name in unheeded and getattr(self, knob.name) != knob.default:
                raise UsageError(f"{knob.name} says nothing {how}; leave it out")

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The tools asked for; a word may hold several with commas between."""
        return tool_names(self.tools)


def run(config: EvalConfig, inputs: list[Any], draft: Any) -> dict[str, Any]:
    """Measure, print the tables, keep them and every answer."""
    if config.abilities:
        return _run_abilities(config, inputs, draft)
    return _run_tasks(config, inputs, draft) if config.tasks else _run_world(config, inputs, draft)


def _run_abilities(config: EvalConfig, inputs: list[Any], draft: Any) -> dict[str, Any]:
    from llmctl.core import console
    from llmctl.core.files import atomic_write, write_json
    from llmctl.evals import abilities

    names = abilities.chosen(config.abilities)
    _check_abilities(config, inputs, names)
    found = abilities.ask_models(
        inputs,
        names,
        web=config.web,
        documents=config.documents,
        max_tokens=config.answer_tokens,
        limit=config.limit,
        seed=config.seed,
        dtype=config.dtype,
        device=config.device,
        workers=config.workers,
    )
    text = abilities.table(found)
    console.info(text)
    with atomic_write(draft.path / "answers.jsonl") as file:
        for name, measured in found.items():
            file.write(abilities.answers_jsonl(name, measured))
    with atomic_write(draft.path / "report.txt") as file:
        file.write(f"{text}\n".encode())
    stats = {name: {m.name: m.as_json() for m in measured} for name, measured in found.items()}
    write_json(Path(draft.path) / "report.json", {"abilities": stats})
    return {"abilities": stats}


def _check_abilities(config: EvalConfig, inputs: list[Any], names: list[str]) -> None:
    """Refuse now what a later ability or model would be refused for, when others are answered."""
    from llmctl.artifacts.lineage import find_upstream
    from llmctl.evals.abilities import ABILITIES
    from llmctl.evals.tasks.several import check_tools, tokenizer_of
    from llmctl.tokenizer.chat import chat_format

    tools = {tool for name in names for tool in ABILITIES[name].tools}
    for model in inputs:
        if not config.web:
            find_upstream(model, "web")
        documents = config.documents
        if "search" in tools and not documents:
            documents = str(find_upstream(model, "documents"))
        if chat_format(tokenizer_of(model)) is not None:  # a base model is asked without tools
            check_tools(model, sorted(tools), documents)


def _run_tasks(config: EvalConfig, inputs: list[Any], draft: Any) -> dict[str, Any]:
    from llmctl.core import console
    from llmctl.core.files import atomic_write, write_json
    from llmctl.evals.tasks import report, several
    from llmctl.evals.tasks.ask import Asking

    tasks = several.load_tasks(config.tasks, split=config.split, max_bad=config.max_bad)
    asking = Asking(
        limit=config.limit, shots=config.shots, seed=config.seed, max_tokens=config.answer_tokens
    )
    opening = several.Opening(
        chat=config.chat,
        bos=config.bos,
        tools=config.tool_names,
        documents=config.documents,
        dtype=config.dtype,
        device=config.device,
        workers=config.workers,
    )
    results = several.ask_models(inputs, tasks, asking, opening)
    paths = dict(zip(several.names_of(inputs), (str(model.path) for model in inputs)))
    text = report.table(tasks, results, asking)
    console.info(text)
    with atomic_write(draft.path / "items.jsonl") as file:
        for line in report.items_jsonl(results):
            file.write(line)
    with atomic_write(draft.path / "report.txt") as file:
        file.write(f"{text}\n".encode())
    found = report.as_json(tasks, results, asking, paths)
    write_json(Path(draft.path) / "report.json", found)
    return {"tasks": {t["task"]: t["results"] for t in found["tasks"]}}


def _run_world(config: EvalConfig, inputs: list[Any], draft: Any) -> dict[str, Any]:
    from llmctl.core import console
    from llmctl.core.files import atomic_write, write_json
    from llmctl.evals import world

    model = _only(inputs)
    sources = world.find_sources(model, config.tokens, config.documents, config.web)
    subject = world.open_subject(model.path, sources.tokens, config.workers)
    stats: dict[str, Any] = {"bits_per_byte": round(subject.bits_per_byte(), 4)}
    console.info(f"held-out bits per byte: {stats['bits_per_byte']:.4f}")
    tables = [f"held-out bits per byte: {stats['bits_per_byte']:.4f}"]
    if sources.web is None or sources.documents is None:
        console.warn("no synthetic web in the model's lineage, so no facts to ask about")
    else:
        facts = world.ask_facts(
            subject, sources, config.facts_per_class, config.batch, config.max_tokens
        )
        stats["facts"] = facts.stats()
        tables.append(facts.table())
        console.info(facts.table())
        with atomic_write(draft.path / "answers.jsonl") as file:
            file.write(facts.answers_jsonl())
    with atomic_write(draft.path / "report.txt") as file:
        file.write(("\n\n".join(tables) + "\n").encode())
    write_json(Path(draft.path) / "report.json", stats)
    return stats


def _only(inputs: list[Any]) -> Any:
    """The one model of a run without --tasks; it has to be ours, since its lineage is needed."""
    if len(inputs) > 1:
        raise UsageError(f"{len(inputs)} models: name the tasks to compare them on with --tasks")
    if inputs[0].kind == "foreign":
        raise UsageError(
            f"{inputs[0].path}: no manifest.json, so its training data is not known; "
            "name task files with --tasks"
        )
    return inputs[0]


def dry_run(config: EvalConfig, inputs: list[Any]) -> None:
    """Say which artifacts would be read, and how many answers that takes."""
    from llmctl.core import console

    if not inputs:
        raise NoInput("eval --dry-run needs a model; train one first or name it")
    if config.tasks:
        from llmctl.evals.tasks import several
        from llmctl.evals.tasks.ask import Asking

        tasks = several.load_tasks(config.tasks, split=config.split, max_bad=config.max_bad)
        asking = Asking(limit=config.limit, shots=config.shots, seed=config.seed)
        lines = [
            (t.name, t.kind, len(asking.numbers(t)), several.answers_of(t, asking)) for t in tasks
        ]
        title = f"would ask {len(inputs)} model{'s' * (len(inputs) > 1)}"
        console.table(title, ["task", "kind", "items", "answers each"], lines, left=2)
        return
    if config.abilities:
        from llmctl.evals import abilities

        names = abilities.chosen(config.abilities)
        plan = abilities.plan(inputs, names, web=config.web, limit=config.limit, seed=config.seed)
        console.table(
            "would ask, items each", ["ability", "tools", *plan.models], plan.rows, left=2
        )
        return
    from llmctl.evals import world

    model = _only(inputs)
    sources = world.find_sources(model, config.tokens, config.documents, config.web)
    rows = [(name, str(path)) for name, path in vars(sources).items()]
    console.table("would read", ["what", "where"], rows, left=2)


STAGE = Stage(
    name="eval",
    version=2,
    summary="models (+ task files) -> report",
    config=EvalConfig,
    run=run,
    dry_run=dry_run,
    reads=("model", "foreign"),
    writes="report",
    upstream="pretrain",
    many=True,
    path_settings=("tokens", "documents", "web", "tasks"),
)
