"""Problems: a prompt, the right answer, and the name of what checks it.

Read from our own problems.parquet (prompt, answer, verifier, meta, split), GSM8K's JSONL (question,
answer with "#### 42"), MBPP's (text, test_list), and JSONL with prompt and answer. Lines are cut at
\\n only: other line separators may stand inside a text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.core import console
from llmctl.core.errors import BadInput, NoInput
from llmctl.tokenizer.chat_messages import call_fault

Message = dict[str, Any]
MAX_LINE = 4 << 20  # bytes of one row
MAX_ANSWER = 100_000  # characters
HELD_OUT = 10  # of rows without a split, one in so many is held out
FILE = "problems.parquet"
NO_PROMPT = "the prompt is neither text nor messages that end with one of the user"


@dataclass(frozen=True)
class Problem:
    """One problem. answer: text (for python-tests its tests, one a line). split: train or test."""

    prompt: list[Message]
    answer: str
    verifier: str
    split: str = "train"
    where: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The last message's text."""
        return str(self.prompt[-1]["content"])


Row = Mapping[str, Any]


def read_problems(path: Path, *, max_bad: float = 0.01) -> list[Problem]:
    """The problems of a file, or of a folder that holds problems.parquet or JSONL files.

    A row that cannot be used is skipped and counted. NoInput (66) when there is nothing; BadInput
    (65) when more than `max_bad` of the rows are unusable, naming the first.
    """
    problems: list[Problem] = []
    bad: list[str] = []
    for file in _files(Path(path)):
        for where, row in _rows(file):
            made = row if isinstance(row, str) else _problem(row, where, file)
            if isinstance(made, str):
                bad.append(f"{where}: {made}")
            else:
                problems.append(made)
    if bad and len(bad) > max_bad * (len(bad) + len(problems)):
        raise BadInput(
            f"{bad[0]}; {len(bad):,} of {len(bad) + len(problems):,} problems cannot be used; "
            "mend them, or allow more with --set max_bad=..."
        )
    if bad:
        console.warn(f"{len(bad):,} problems skipped; the first: {bad[0]}")
    if not problems:
        raise NoInput(f"{path}: no problem in it; give rows with prompt and answer")
    return problems


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / FILE).is_file():
        return [path / FILE]
    found = sorted(p for p in path.glob("*") if p.suffix in (".jsonl", ".parquet"))
    if not found:
        raise NoInput(f"{path}: neither a file of problems nor a folder with {FILE} or *.jsonl")
    return found


def _rows(path: Path) -> Iterator[tuple[str, Row | str]]:
    """(where, row, or what is wrong with it)."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    with open(path, "rb") as lines:
        number = 0
        while line := lines.readline(MAX_LINE):
            number += 1
            where = f"{path}, line {number}"
            if len(line) >= MAX_LINE:
                raise BadInput(f"{where}: longer than {MAX_LINE:,} bytes; is this JSONL?")
            if not line.strip():
                continue
            try:
                row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except (ValueError, RecursionError):
                yield where, "no JSON; one object a line"
                continue
            yield where, row if isinstance(row, dict) else "no JSON object"


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path, page_checksum_verification=True).to_pylist()
    except (pa.ArrowException, OSError) as error:
        first = str(error).split("\n")[0]
        raise BadInput(f"{path}: damaged ({first}); fetch it again") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


def _problem(row: Row, where: str, file: Path) -> Problem | str:
    """The problem of a row of any known shape, or why there is none."""
    for keys, read in _SHAPES:
        if all(row.get(key) is not None for key in keys):
            found = read(row)
            break
    else:
        return f"has {', '.join(sorted(map(str, row))[:8]) or 'no keys'}; wanted prompt and answer"
    if isinstance(found, str):
        return found
    prompt, answer, verifier, meta = found
    if len(answer) > MAX_ANSWER:
        return f"an answer of {len(answer):,} characters"
    messages = _messages(prompt)
    if isinstance(messages, str):
        return messages
    split = row.get("split")
    if split not in ("train", "test"):
        split = _split_of(messages, file)
    return Problem(messages, answer, verifier, split, where, meta)


Parts = tuple[Any, str, str, dict[str, Any]]  # prompt, answer, verifier, meta


def _plain(row: Row) -> Parts | str:
    answers = right_answers(row)
    if not answers:
        return "the answer is neither text nor a number"
    meta = dict(row["meta"]) if isinstance(row.get("meta"), Mapping) else {}
    if answers[1:]:
        meta["aliases"] = list(answers[1:])
    verifier = row.get("verifier") or default_verifier(answers[0])
    return row["prompt"], answers[0], str(verifier), meta


def right_answers(row: Row) -> tuple[str, ...]:
    """What is right for a row with prompt and answer (text, a number, or a list with aliases after
    the first), the row's aliases included; () where that is no answer."""
    answer = row.get("answer")
    first, *others = answer if isinstance(answer, list) and answer else [answer]
    if not _is_answer(first):
        return ()
    every = (str(first), *aliases_of(others), *aliases_of(row.get("aliases")))
    return tuple(dict.fromkeys(every))


def aliases_of(value: Any) -> tuple[str, ...]:
    """Other right answers: a text is one, a list holds texts and numbers; all else is none."""
    found = value if isinstance(value, list | tuple) else [value]
    return tuple(str(v) for v in found if _is_answer(v))


def _is_answer(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def default_verifier(answer: str) -> str:
    """What checks a row that names nothing: numbers by value, else the text."""
    return "math" if is_number(answer) else "exact"


def is_number(text: str) -> bool:
    """Whether a whole text is a plain decimal number, such as 72, -3.5 or 1,200."""
    digits = text.strip().lstrip("+-").replace(",", "").replace(".", "", 1)
    return digits.isascii() and digits.isdigit()


def _gsm8k(row: Row) -> Parts | str:
    solution, mark, answer = str(row["answer"]).rpartition("####")
    if not mark or not answer.strip():
        return "a question whose answer does not end with '#### value'"
    return row["question"], answer.strip(), "math", {"solution": solution.strip()}


def _mbpp(row: Row) -> Parts | str:
    tests = row["test_list"]
    if not isinstance(tests, list) or not tests or not all(isinstance(t, str) for t in tests):
        return "test_list holds no tests"
    text = row.get("text") or row.get("prompt")
    if not isinstance(text, str):
        return "no task beside its tests"
    asked = f"{text.strip()}\nYour code must pass this test:\n{tests[0]}"
    meta = {"tests": tests, "setup": str(row.get("test_setup_code") or "")}
    return asked, "\n".join(tests), "python-tests", meta


_SHAPES: tuple[tuple[tuple[str, ...], Callable[[Row], Parts | str]], ...] = (
    (("test_list",), _mbpp),
    (("question", "answer"), _gsm8k),
    (("prompt", "answer"), _plain),
)


def _messages(prompt: Any) -> list[Message] | str:
    """A prompt's messages, or why it has none."""
    if isinstance(prompt, str) and prompt.strip():
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt:
        return NO_PROMPT
    for message in prompt:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return NO_PROMPT
        role, calls = message.get("role"), message.get("tool_calls")
        if role not in ("system", "user", "assistant"):
            return NO_PROMPT
        if calls and (why := call_fault(role, calls)):
            return why
    return [dict(m) for m in prompt] if prompt[-1]["role"] == "user" else NO_PROMPT


def _split_of(messages: list[Message], file: Path) -> str:
    """Of a row that names none: by the file's name, else one in ten by its prompt's hash."""
    if "test" in file.stem.lower():
        return "test"
    text = json.dumps(messages, sort_keys=True, ensure_ascii=False)
    drawn = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4])
    return "test" if drawn % HELD_OUT == 0 else "train"
