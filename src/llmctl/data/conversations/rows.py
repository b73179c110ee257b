"""Rows of the files that conversations and rankings come in: parquet, JSONL, JSON.

A JSONL file is split at newline bytes only: U+2028 and U+0085, at which `str.splitlines` splits
too, stand in many a text.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmctl.artifacts.manifest import BOOKKEEPING
from llmctl.artifacts.store import open_artifact
from llmctl.core.errors import BadInput, Mismatch, NoInput
from llmctl.data.documents import MAX_LINE, PACKED, Source, first_line, opened

SUFFIXES = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
MAX_JSON = 1 << 31  # bytes of a file that is one JSON value
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Row:
    """One row: its columns, or why it is none."""

    value: dict[str, Any] | None
    where: str  # "file.jsonl:12", counted from 1: a line of JSONL, otherwise a row
    why: str = ""


def find_files(path: Path, payload: str) -> list[Path]:
    """The files to read at `path`: itself, an artifact's `payload`.parquet, or those of a folder.

    payload: "conversations" or "preferences": also the kind of artifact wanted.
    NoInput (66) when there is none, Mismatch (78) for an artifact of another kind.
    """
    if path.is_dir():
        artifact = open_artifact(path, ("web", payload, "foreign"), reader=f"--data ({payload})")
        named = path / f"{payload}.parquet"
        if artifact.kind == "web" or named.is_file():
            if not named.is_file():
                raise Mismatch(f"{path}: no {named.name} in this artifact; make it again")
            return [named]
        files = [f for f in artifact.files() if _kind(f) and _is_payload(f.relative_to(path))]
        if chosen := [f for f in files if f.suffix != ".json"] or files:
            return chosen  # beside rows, a dataset's info.json is none of them
        raise NoInput(f"{path}: no parquet, JSONL or JSON file in it; check the path")
    if not path.is_file():
        raise NoInput(f"{path}: no such file or folder; check the path")
    return [path]


def _is_payload(relative: Path) -> bool:
    return relative.name not in BOOKKEEPING and relative.parts[0] not in ("state", "logs")


def _kind(path: Path) -> str:
    inner = Path(path.stem) if path.suffix.lower() in PACKED else path
    return SUFFIXES.get(inner.suffix.lower(), "")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, bad ones marked. BadInput (65) when the file as a whole is damaged."""
    try:
        yield from _parquet(path) if _is_parquet(path) else _json(path)
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadInput(f"{path}: damaged ({first_line(error)}); fetch it again") from None


def _is_parquet(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(4) == b"PAR1" or path.suffix.lower() == ".parquet"


def _parquet(path: Path) -> Iterator[Row]:
    file = pq.ParquetFile(path, page_checksum_verification=True)
    number = 0
    for batch in file.iter_batches(batch_size=512, use_threads=False):
        for value in batch.to_pylist():
            number += 1
            yield Row(_without_none(value), f"{path.name}:{number}")


def _without_none(value: Any) -> Any:
    """A parquet value without the keys its schema has and the row has not."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value


def _json(path: Path) -> Iterator[Row]:
    source = Source(path, "jsonl", PACKED.get(path.suffix.lower(), ""), path.stat().st_size)
    with opened(source) as stream:
        handle: Any = stream
        start = handle.peek(4096).removeprefix(BOM).lstrip()
        if start.startswith(b"[") or (start.startswith(b"{") and _spread_out(start)):
            yield from _array(path, handle.read(MAX_JSON + 1))
            return
        yield from json_lines(path, handle)


def _spread_out(start: bytes) -> bool:
    """Whether an object begins that goes on over several lines: a file that is one JSON value."""
    line, newline, _ = start.partition(b"\n")
    return bool(newline) and line.strip() == b"{"


def json_lines(path: Path, handle: Any) -> Iterator[Row]:
    """The rows of a JSONL file that is open for reading bytes; blank lines are none."""
    number = 0
    while line := handle.readline(MAX_LINE):
        number += 1
        where = f"{path.name}:{number}"
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            while (more := handle.readline(MAX_LINE)) and not more.endswith(b"\n"):
                pass
            yield Row(None, where, "a line that is too long")
            continue
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip():
            yield _row(line, where)


def _row(line: bytes, where: str) -> Row:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return Row(None, where, "no JSON")
    if not isinstance(value, dict):
        return Row(None, where, "no JSON object")
    return Row(value, where)


def _array(path: Path, raw: bytes) -> Iterator[Row]:
    """Rows of a file that is one JSON array, or an object that holds one."""
    raw = raw.removeprefix(BOM)
    if len(raw) > MAX_JSON:
        raise BadInput(f"{path}: over {MAX_JSON:,} bytes of one JSON value; make JSONL of it")
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: no JSON ({first_line(error)}); fetch it again") from None
    if isinstance(values, dict):
        lists = [v for v in values.values() if isinstance(v, list)]
        values = lists[0] if len(lists) == 1 and len(lists[0]) > 1 else [values]
    for number, value in enumerate(values, 1):
        bad = "" if isinstance(value, dict) else "no JSON object"
        yield Row(None if bad else value, f"{path.name}:{number}", bad)
