"""Several models on several task files: opened one after the other, every task asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.artifacts.store import Artifact
from llmctl.core import console
from llmctl.core.errors import BadInput, NoInput, UsageError
from llmctl.evals.tasks.ask import Asking, Result, Subject, ask
from llmctl.evals.tasks.grade import Grader
from llmctl.evals.tasks.kinds import KINDS, Choice, Open, Task
from llmctl.evals.tasks.read import find_files, read_tasks
from llmctl.evals.tasks.requests import start_of
from llmctl.infer.opening import model_line, open_engine
from llmctl.infer.toolbox import ToolBox
from llmctl.model.hf import check_folder
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import ChatFormat, chat_format


@dataclass(frozen=True)
class Opening:
    """How models are opened. chat: None: their format, where they have one, for open questions;
    True: for choices too; False: plain text."""

    chat: bool | None = None
    bos: bool | None = None
    tools: tuple[str, ...] = ()
    documents: str = ""
    dtype: str = "fp32"
    device: str = "auto"
    workers: int = 0


def load_tasks(words: tuple[str, ...], *, split: str, max_bad: float) -> list[Task]:
    """The tasks of all files named; says what each is. BadInput (65) when two have one name.

    In a folder or pattern a file that is no task file is said and left out; one named alone is
    refused.
    """
    files = find_files(words)
    tasks: list[Task] = []
    for path in files:
        try:
            found = read_tasks(path, split=split, max_bad=max_bad)
        except BadInput as error:
            if str(path) in words or len(files) == 1:
                raise
            console.warn(f"left out: {error}")
            continue
        for task in found:
            console.info(f"{task.name}: {len(task.items):,} items, {KINDS[task.kind]}")
        for why, (n, first) in found[0].skipped.items():
            console.warn(f"{path}: {n:,} rows skipped, {why}, first {first}")
        tasks += found
    if not tasks:
        raise BadInput("--tasks: no task file among those named")
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"--tasks: two files are called {twice}; rename one, or ask one at a time")
    return tasks


def names_of(models: Sequence[Artifact]) -> list[str]:
    """A short name for each model: its folder's, or the whole path where that is not enough."""
    short = [model.path.resolve().name for model in models]
    return [s if short.count(s) == 1 else str(m.path) for s, m in zip(short, models)]


def ask_models(
    models: Sequence[Artifact], tasks: Sequence[Task], asking: Asking, opening: Opening
) -> dict[str, dict[str, Result]]:
    """Results by model and task."""
    check(models, tasks, asking, opening)
    results: dict[str, dict[str, Result]] = {}
    for name, model in zip(names_of(models), models):
        subject = open_subject(name, model, opening)
        console.info(model_line(subject.engine))
        results[name] = of_model = {}
        for task in tasks:
            with console.progress(
                f"{name}: {task.name}", answers_of(task, asking), "answers"
            ) as bar:
                of_model[task.name] = ask(subject, task, asking, bar.advance)
            for why, n in of_model[task.name].counts.items():
                console.warn(f"{name}, {task.name}: {n:,} items {why}")
        del subject
    return results


def open_subject(name: str, model: Artifact, opening: Opening) -> Subject:
    """A model ready to be asked. UsageError (2) for --chat or --tools without a chat format."""
    engine = open_engine(
        model.path, dtype=opening.dtype, device=opening.device, workers=opening.workers
    )
    format = _format(model, engine.tokenizer, opening)
    start = start_of(model.path, engine.tokenizer, bos=opening.bos)
    tools = _tools(model, format, opening) if format is not None and opening.tools else None
    return Subject(name, engine, start, format, bool(opening.chat), tools)


def check(
    models: Sequence[Artifact], tasks: Sequence[Task], asking: Asking, opening: Opening
) -> None:
    """Refuse now what a later task or model would be refused for, when others are answered."""
    for task in tasks:
        items = [task.items[n] for n in asking.numbers(task)]
        Grader().check([item for item in items if isinstance(item, Open)], task.name)
    for model in models:
        _format(model, tokenizer_of(model), opening)
        check_tools(model, opening.tools, opening.documents)


def check_tools(model: Artifact, tools: Sequence[str], documents: str) -> None:
    """Refused (77) for python where there is no isolation, UsageError (2) or NoInput (66) for
    search without documents; nothing is opened for it yet."""
    from llmctl.infer.tools import PythonTool, documents_of

    if "python" in tools:
        PythonTool()
    if "search" in tools:
        found = documents_of(model, documents)
        if found is None:
            raise UsageError(f"{model.path}: made from no documents; name some with --documents")
        if not Path(found).exists():
            raise NoInput(f"--documents {found}: no such file or folder; check the path")


def tokenizer_of(model: Artifact) -> Tokenizer:
    """A model's tokenizer, its weights left alone."""
    return Tokenizer.of_model(check_folder(model.path))


def _format(model: Artifact, tokenizer: Tokenizer, opening: Opening) -> ChatFormat | None:
    format = None if opening.chat is False else chat_format(tokenizer)
    if format is None and (opening.chat or opening.tools):
        asked = "--tools" if opening.tools else "--chat"
        raise UsageError(
            f"{model.path}: {asked} needs a chat format, and this model has none, or --no-chat "
            "was given; tune it with llmctl sft first"
        )
    return format


def _tools(model: Artifact, format: ChatFormat, opening: Opening) -> ToolBox:
    from llmctl.infer.tools import documents_of, open_tools

    documents = documents_of(model, opening.documents)
    return open_tools(opening.tools, format, documents=documents)


def answers_of(task: Task, asking: Asking) -> int:
    """Answers that a task takes."""
    items = [task.items[n] for n in asking.numbers(task)]
    return sum(len(i.pairs()) if isinstance(i, Choice) else 1 for i in items)
