"""Rows of a preference file as Python objects, with where each stands; JSONL, JSON or parquet.

Lines end at newline bytes only: `str.splitlines` would also cut at U+2028, which JSON text may
hold.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadInput, NoInput

LARGEST = 4 << 30  # bytes of a JSON or JSONL file, unpacked; preferences are read whole
WEB_FILE = "preferences.parquet"  # where a synthetic web keeps its rankings
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".gz")

Row = tuple[str, Any]  # where ("file.jsonl:12"), the value, or an Unreadable


class Unreadable:
    """A row that is no JSON."""


def find_files(path: Path) -> list[Path]:
    """The preference files behind a path: itself, a web artifact's rankings, a folder's files."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise NoInput(f"{path}: no such file or folder; check the path")
    if (path / WEB_FILE).is_file():
        return [path / WEB_FILE]
    inside = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    found = [p for p in inside if p.name not in ("manifest.json", "run.json", "report.json")]
    if not found:
        raise NoInput(f"{path}: no parquet, JSONL or JSON file in it; check the path")
    return found


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of one file, in order."""
    with open(path, "rb") as handle:
        head = handle.read(4)
    if head == b"PAR1":
        yield from _parquet_rows(path)
        return
    raw = _unpacked(path) if head.startswith(b"\x1f\x8b") else path.read_bytes()
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in raw[:4096]:
        raise BadInput(f"{path}: a binary file; preferences are parquet, JSONL or JSON")
    if raw.lstrip()[:1] == b"[":
        yield from _list_rows(path, raw)
        return
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.strip():
            yield f"{path.name}:{number}", _parsed(line)


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as handle:
            raw = handle.read(LARGEST + 1)
    except (OSError, EOFError) as error:
        raise BadInput(f"{path}: damaged gzip file ({error}); fetch it again") from None
    if len(raw) > LARGEST:
        raise BadInput(f"{path}: more than {LARGEST:,} bytes unpacked; split it")
    return raw


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return Unreadable()


def _list_rows(path: Path, raw: bytes) -> Iterator[Row]:
    """One JSON list of rows."""
    rows = _parsed(raw)
    if not isinstance(rows, list):
        raise BadInput(f"{path}: begins like a JSON list but is no valid one; fetch it again")
    for number, row in enumerate(rows, 1):
        yield f"{path.name}:{number}", row


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        number = 0
        for batch in file.iter_batches(1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{path.name}:{number}", row
    except (pa.ArrowException, OSError) as error:
        what = str(error).split("\n")[0]
        raise BadInput(f"{path}: no readable parquet file ({what}); fetch it again") from None
