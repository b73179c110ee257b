"""Task files into tasks. The kind of a file is seen from its first rows and said.

A row that cannot be used is counted with its line, never dropped silently.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadInput, NoInput
from llmctl.data.conversations.rows import json_lines
from llmctl.data.problems import aliases_of, default_verifier, is_number, right_answers
from llmctl.evals.tasks import core
from llmctl.evals.tasks.kinds import Choice, Item, Kind, Open, Task

MAX_OPTIONS = 1024
WEB_FILES = ("quizzes.parquet", "problems.parquet")  # of a web artifact
SUFFIXES = (".jsonl", ".ndjson", ".parquet")
Row = Mapping[str, Any]
Placed = tuple[str, Row]  # where a row stands, and the row


class Unusable(ValueError):
    """Why one row cannot be used."""


def find_files(words: tuple[str, ...]) -> list[Path]:
    """The task files that paths, folders and patterns name, in order, each once.

    A folder stands for the task files below it; a web artifact for its quizzes and problems.
    """
    found: list[Path] = []
    for word in words:
        if glob.has_magic(word) and not Path(word).exists():
            matches = sorted(p for p in glob.glob(word, recursive=True) if Path(p).is_file())
            if not matches:
                raise NoInput(f"--tasks {word}: no file matches; check the pattern")
            found += map(Path, matches)
        elif Path(word).is_dir():
            found += _in_folder(Path(word))
        elif Path(word).is_file():
            found.append(Path(word))
        else:
            raise NoInput(f"--tasks {word}: no such file or folder; check the path")
    return list(dict.fromkeys(found))


def _in_folder(folder: Path) -> list[Path]:
    if web := [folder / name for name in WEB_FILES if (folder / name).is_file()]:
        return web
    files = sorted(p for p in folder.rglob("*.jsonl") if p.is_file())
    files += sorted(p for p in folder.rglob("*.parquet") if p.is_file())
    if not files:
        raise NoInput(f"--tasks {folder}: no .jsonl or .parquet file below it; check the path")
    return files


def read_tasks(path: Path, *, split: str = "", max_bad: float = 0.05) -> list[Task]:
    """The tasks of a file: one, or one of each kind and topic that its rows are of.

    split: where rows name a split, only those of this one ("" for all). BadInput (65) when the
    format is unknown, when more than `max_bad` of the rows cannot be used, or none is left.
    """
    if path.suffix not in SUFFIXES:
        raise BadInput(f"{path}: not a task file; JSONL and parquet are read")
    skipped: dict[str, tuple[int, str]] = {}

    def skip(where: str, reason: str) -> None:
        count, first = skipped.get(reason, (0, where))
        skipped[reason] = (count + 1, first)

    rows = list(_parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path, skip))
    if split:
        rows = [(w, r) for w, r in rows if r.get("split") in (None, "", split)]
    reader = _reader(path, rows)
    items: dict[tuple[Kind, str], list[Item]] = {}
    for where, row in rows:
        try:
            kind, item = reader(where, row)
            topic = str(item.meta.get("topic", "")) if isinstance(item, Open) else ""
            items.setdefault((kind, topic), []).append(item)
        except Unusable as error:
            skip(where, str(error))
    n_bad = sum(count for count, _ in skipped.values())
    reasons = "; ".join(f"{why}: {n}, first {at}" for why, (n, at) in skipped.items())
    if not items:
        raise BadInput(f"{path}: no usable row{f' ({reasons})' if reasons else ''}")
    if n_bad > max_bad * (n_bad + sum(map(len, items.values()))):
        raise BadInput(
            f"{path}: {n_bad:,} rows cannot be used ({reasons}); mend them or raise max_bad"
        )
    return [
        _task(path, kind, f"{path.stem}: {topic or kind}" if len(items) > 1 else "", found, skipped)
        for (kind, topic), found in items.items()
    ]


def _task(
    path: Path, kind: Kind, name: str, found: list[Item], skipped: Mapping[str, tuple[int, str]]
) -> Task:
    stem = path.stem
    sizes = [len(i.contexts) * len(i.continuations) for i in found if isinstance(i, Choice)]
    return Task(
        name=name or stem,
        kind=kind,
        path=path,
        items=tuple(found),
        chance=core.chance(stem, sizes) if kind in ("choice", "schema") else 0.0,
        delimiter=core.delimiter(stem),
        core_shots=core.SHOTS.get(stem, 0),
        skipped=skipped,
    )


def _json_rows(path: Path, skip: Callable[[str, str], None]) -> Iterator[Placed]:
    """(place, row) of a JSONL file; what is no JSON object is skipped."""
    with open(path, "rb") as handle:
        for row in json_lines(path, handle):
            if row.value is None:
                skip(row.where, row.why)
            else:
                yield row.where, row.value


def _parquet_rows(path: Path) -> Iterator[Placed]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        number = 0
        for batch in file.iter_batches(batch_size=4096, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield f"{path.name}:{number}", row
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadInput(f"{path}: damaged parquet ({error}); fetch it again") from None


Reader = Callable[[str, Row], tuple[Kind, Item]]


def _reader(path: Path, rows: list[Placed]) -> Reader:
    """The reader for a file's columns, by the first row that one fits."""
    for _, row in rows[:100]:
        for wanted, reader in _READERS:
            if wanted <= row.keys():
                return reader
    if not rows:
        return _choice
    columns = ", ".join(sorted(map(str, rows[0][1])))
    raise BadInput(
        f"{path}: no known kind of task; it has {columns}, but a task has query, choices, gold; "
        "context_options, continuation, gold; context, continuation; context, answer; "
        "question, answer; prompt, answer; or text, test_list"
    )


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise Unusable(f"{key} is no text")
    return value.strip()


def _texts(row: Row, key: str) -> tuple[str, ...]:
    value = row.get(key)
    if not isinstance(value, list | tuple) or not value or len(value) > MAX_OPTIONS:
        raise Unusable(f"{key} is no list of texts")
    if not all(isinstance(v, str) and v.strip() for v in value):
        raise Unusable(f"{key} holds what is no text")
    return tuple(v.strip() for v in value)


def _gold(row: Row, n: int) -> int:
    gold = row.get("gold")
    if type(gold) is not int or not 0 <= gold < n:
        raise Unusable(f"gold is no number below that of the options ({n})")
    return gold


def _choice(where: str, row: Row) -> tuple[Kind, Item]:
    choices = _texts(row, "choices")
    if len(choices) < 2:
        raise Unusable("only one choice")
    return "choice", Choice(where, (_text(row, "query"),), choices, _gold(row, len(choices)))


def _schema(where: str, row: Row) -> tuple[Kind, Item]:
    contexts = _texts(row, "context_options")
    if len(contexts) < 2:
        raise Unusable("only one context")
    ending = _text(row, "continuation")
    if not ending:
        raise Unusable("continuation is empty")
    return "schema", Choice(where, contexts, (ending,), _gold(row, len(contexts)))


def _completion(where: str, row: Row) -> tuple[Kind, Item]:
    ending = _text(row, "continuation")
    if not ending:
        raise Unusable("continuation is empty")
    return "completion", Choice(where, (_text(row, "context"),), (ending,), 0)


def _open(where: str, row: Row) -> tuple[Kind, Item]:
    """CORE's generative rows: context, answer, perhaps aliases or a chain of thought."""
    question, answer = _text(row, "context"), _text(row, "answer")
    aliases = _texts(row, "aliases") if row.get("aliases") else ()
    if not question or not answer:
        raise Unusable("context or answer is empty")
    answers = tuple(dict.fromkeys((answer, *aliases)))
    if "chain_of_thought" not in row:
        return "open", Open(where, question, answers)
    thought = row["chain_of_thought"]
    worked = f"{thought.strip()} " if isinstance(thought, str) else ""
    return "open", Open(where, question, answers, "math", f"{worked}The answer is {answer}.")


def _question(where: str, row: Row) -> tuple[Kind, Item]:
    """GSM8K (its answer ends in #### and the number), or a question with all right answers."""
    question, answer = _text(row, "question"), row.get("answer")
    if not question:
        raise Unusable("question is empty")
    if isinstance(answer, str) and "####" in answer:
        final = answer.rsplit("####", 1)[1].strip()
        if not final:
            raise Unusable("nothing after ####")
        return "open", Open(where, question, (final,), "math", answer.strip())
    if isinstance(answer, Mapping):  # TriviaQA: {"value", "aliases"}
        row = {"answer": [answer.get("value"), *aliases_of(answer.get("aliases"))]}
    elif isinstance(answer, str):
        row = {"answer": [answer]}
        if is_number(answer):  # alone; a list names the forms that count, and is scored by them
            return "open", Open(where, question, _texts(row, "answer"), default_verifier(answer))
    return "open", Open(where, question, tuple(dict.fromkeys(_texts(row, "answer"))))


def _problem(where: str, row: Row) -> tuple[Kind, Item]:
    """Our problems, and anybody's {prompt, answer}."""
    prompt, answers = row.get("prompt"), right_answers(row)
    if isinstance(prompt, list):  # messages: the last one asks
        prompt = prompt[-1].get("content") if prompt and isinstance(prompt[-1], Mapping) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise Unusable("prompt is no text")
    if not answers:
        raise Unusable("answer is neither text nor a number")
    verifier = row.get("verifier") or default_verifier(answers[0])
    if not isinstance(verifier, str):
        raise Unusable("verifier is no name")
    meta = row.get("meta") if isinstance(row.get("meta"), Mapping) else {}
    worked = str((meta or {}).get("solution") or "")
    return "open", Open(where, prompt.strip(), answers, verifier, worked, meta or {})


def _code(where: str, row: Row) -> tuple[Kind, Item]:
    """MBPP: a task, the code that solves it, and its tests."""
    tests = _texts(row, "test_list")
    question = f"{_text(row, 'text')}\nYour code must pass this test:\n{tests[0]}"
    meta = {"tests": list(tests), "setup": str(row.get("test_setup_code") or "")}
    worked = f"```python\n{row['code']}\n```" if isinstance(row.get("code"), str) else ""
    return "open", Open(where, question, ("\n".join(tests),), "python-tests", worked, meta)


def _quiz(where: str, row: Row) -> tuple[Kind, Item]:
    """Our quizzes: multiple choice and open questions in one file."""
    if row.get("kind") == "choice":
        return _choice(where, row)
    answers = (_text(row, "answer"), *(_texts(row, "aliases") if row.get("aliases") else ()))
    meta = {k: row[k] for k in ("fact_id", "exposure", "topic") if row.get(k) is not None}
    answers = tuple(dict.fromkeys(answers))
    return "open", Open(where, _text(row, "query"), answers, "match", "", meta)


_READERS: tuple[tuple[set[str], Reader], ...] = (
    ({"kind", "query", "choices", "answer", "aliases"}, _quiz),
    ({"query", "choices", "gold"}, _choice),
    ({"context_options", "continuation", "gold"}, _schema),
    ({"context", "continuation"}, _completion),
    ({"context", "answer"}, _open),
    ({"question", "answer"}, _question),
    ({"prompt", "answer"}, _problem),
    ({"text", "test_list"}, _code),
)
