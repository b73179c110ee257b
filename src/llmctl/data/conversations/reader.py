"""Reading conversations: the format is found by the columns, bad rows are counted, never silent."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from llmctl.core.errors import BadInput, UsageError, did_you_mean
from llmctl.data.conversations.messages import BadRow, Notes, tidy
from llmctl.data.conversations.rows import Row, find_files, read_rows
from llmctl.data.conversations.shapes import Shape, find_shape, refusal
from llmctl.tokenizer.chat import Message, check_messages

LOOK = 50  # rows looked at to find a file's format


@dataclass(frozen=True)
class Conversation:
    """Messages as transformers has them, and where they stood. extra: the row's other columns."""

    messages: list[Message]
    where: str
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """What conversations share that must not be parted between training and measuring: the
        fact they are about, however it is put; else how the user begins, as in all of a tree."""
        if fact := self.extra.get("fact_id"):
            return f"fact {fact}"
        asked = [m for m in self.messages if m["role"] == "user"]
        return json.dumps([m.get("content") for m in asked[:1] or self.messages])


@dataclass
class Conversations:
    """What was read. n_rows counts rows of the files; a row may give several conversations."""

    rows: list[Conversation] = field(default_factory=list)
    format: str = ""
    n_rows: int = 0
    skipped: dict[str, int] = field(default_factory=dict)  # reason: rows
    first: dict[str, str] = field(default_factory=dict)  # reason: where the first such row stands
    notes: Notes = field(default_factory=dict)  # what reading changed: how often

    def skip(self, why: str, where: str) -> None:
        """Count a row that cannot be used."""
        self.skipped[why] = self.skipped.get(why, 0) + 1
        self.first.setdefault(why, where)

    def summary(self) -> str:
        """One line for people: how many, in which format, what was left out or changed."""
        parts = [f"{len(self.rows):,} conversations ({self.format})"]
        parts += [f"{n:,} skipped: {w} (first {self.first[w]})" for w, n in self.skipped.items()]
        return "; ".join([*parts, *(f"{what}: {n:,}" for what, n in self.notes.items())])


def read_conversations(path: Path | str, *, max_bad: float) -> Conversations:
    """All conversations of a file, folder or artifact (of a web artifact: its conversations).

    max_bad: share of rows that may be unusable. BadInput (65) beyond it, naming the reasons, and
    for a file that holds something else, naming the command that reads it.
    """
    found = Conversations()
    for file in find_files(Path(path), "conversations"):
        _read_file(file, found)
    bad = sum(found.skipped.values())
    if bad > max_bad * found.n_rows:
        reasons = sorted(found.skipped.items(), key=lambda r: -r[1])[:4]
        told = "; ".join(f"{n:,} {why} (first {found.first[why]})" for why, n in reasons)
        share = math.ceil(1000 * bad / found.n_rows) / 1000
        raise BadInput(
            f"{path}: {bad:,} of {found.n_rows:,} rows cannot be used: {told}; mend them"
            + (f", or go on without them with --max-bad {share:g}" if found.rows else "")
        )
    if not found.rows:
        raise BadInput(f"{path}: no conversation in it; check the file")
    return found


def _read_file(file: Path, found: Conversations) -> None:
    rows = read_rows(file)
    head = list(islice(rows, LOOK))
    values = [row.value for row in head if row.value is not None]
    shape = next((s for value in values if (s := find_shape(value))), None)
    if shape is None and values:
        raise BadInput(f"{file}: {refusal(values[0])}")
    if shape is None and head:
        raise BadInput(f"{file}: {head[0].where}: {head[0].why}; wanted parquet, JSONL or JSON")
    if shape is None:
        return
    if shape.name not in found.format.split(", "):
        found.format = f"{found.format}, {shape.name}" if found.format else shape.name
    every = chain(head, rows)
    for row in shape.regroup(every) if shape.regroup else every:
        found.n_rows += 1
        if row.value is None:
            found.skip(row.why, row.where)
        else:
            _take(shape, row, found)


def _take(shape: Shape, row: Row, found: Conversations) -> None:
    """Add the conversations of a row; skip it when it gives none."""
    assert row.value is not None
    reasons: list[str] = []
    usable = 0
    try:
        for raw, extra in shape.read(row.value, found.notes):
            try:
                messages = tidy(raw, found.notes)
                if why := check_messages(messages):
                    raise BadRow(why)
            except BadRow as bad:
                reasons.append(str(bad))
                continue
            found.rows.append(Conversation(messages, row.where, extra))
            usable += 1
    except BadRow as bad:
        reasons.append(str(bad))
    except (TypeError, AttributeError, KeyError, IndexError):
        reasons.append(f"not as {shape.name} has it")
    if not usable:
        found.skip(reasons[0] if reasons else "no conversation in the row", row.where)
    elif reasons:
        what = "paths of a tree left out"
        found.notes[what] = found.notes.get(what, 0) + len(reasons)


class SourceSpec(NamedTuple):
    """One --data: where, how much of the mixture, and which rows."""

    path: Path
    weight: float  # 1.0 where none was given
    keep: dict[str, frozenset[str]]  # column: values that are kept; {}: all rows

    def select(self, found: Conversations) -> list[Conversation]:
        """The rows that are kept. UsageError (2) when a column or every value is unknown."""
        rows = found.rows
        for column, values in self.keep.items():
            columns = sorted({name for row in rows for name in row.extra})
            if column not in columns:
                hint = did_you_mean(column, columns) or "; it has none beside the messages"
                raise UsageError(f"{self.path}: no column {column!r}{hint}")
            there = {str(row.extra[column]) for row in rows if column in row.extra}
            if missing := sorted(values - there):
                hint = did_you_mean(missing[0], sorted(there)[:30])
                raise UsageError(f"{self.path}: no row has {column}={missing[0]}{hint}")
            rows = [row for row in rows if str(row.extra.get(column)) in values]
        if not rows:
            raise UsageError(f"{self.path}: no row is left by {dict(self.keep)}; keep more")
        return rows


def parse_source(text: str) -> SourceSpec:
    """PATH, PATH=WEIGHT, PATH#COLUMN=VALUE,VALUE or PATH#COLUMN=VALUE&COLUMN=VALUE=WEIGHT.

    A file whose name holds # or = is taken as it is when it exists. UsageError (2) for nonsense.
    """
    if text and Path(text).exists():
        return SourceSpec(Path(text), 1.0, {})
    path, mark, rest = text.partition("#")
    where = rest if mark else path
    body, equals, number = where.rpartition("=")
    weighted = bool(equals) and (not mark or "=" in body.rpartition("&")[2])
    weight = _weight(number, text) if weighted else 1.0
    where = body if weighted else where
    if not mark:
        path = where
    keep = {}
    for part in where.split("&") if mark else []:
        column, equals, values = part.partition("=")
        if not column or not equals or not values:
            raise UsageError(f"--data {text}: wanted PATH#COLUMN=VALUE,VALUE after the path")
        keep[column] = frozenset(values.split(","))
    if not path:
        raise UsageError(f"--data {text!r}: no path in it; wanted PATH, PATH=WEIGHT or PATH#…")
    return SourceSpec(Path(path), weight, keep)


def _weight(number: str, text: str) -> float:
    if not re.fullmatch(r"\d*\.?\d+([eE][-+]?\d+)?", number) or not 0 < float(number) < 1e6:
        raise UsageError(f"--data {text}: weight {number!r} is no number above 0; or no such file")
    return float(number)
