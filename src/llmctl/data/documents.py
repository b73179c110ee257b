"""Documents from files of others: parquet, JSONL, plain text; in units that workers share out.

A unit is a stretch of one file that can be read alone: row groups of a parquet file, a byte range
of JSONL or text, or a whole compressed file. Units and the rows in them depend on the files only,
so position (unit, row) means the same whoever reads it, and memory is bounded by a block of rows.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from llmctl.core.errors import BadInput, NoInput

UNIT_BYTES = 16 << 20  # of text, about: what a worker takes at a time
PIECE_BYTES = 64 << 10  # a .txt file is cut into documents about this long
MAX_LINE = 1 << 28  # bytes of a JSONL line; a longer one counts as damaged
KINDS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}
PACKED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


@dataclass(frozen=True)
class Source:
    """One input file. packed: "" or its compression. n_text: bytes of text, estimated."""

    path: Path
    kind: str  # parquet, jsonl, text
    packed: str
    n_bytes: int


@dataclass(frozen=True)
class Unit:
    """A stretch of a source: row groups first..stop-1 of parquet, otherwise bytes."""

    source: Source
    first: int
    stop: int
    n_text: int  # bytes of text, estimated
    n_rows: int | None  # None: not known without reading


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """The files to read below paths, in order: of a folder those of known kinds, sorted by name."""
    found: list[Source] = []
    for path in paths:
        if path.is_file():
            found.append(_source(path))
            continue
        if not path.is_dir():
            raise NoInput(f"{path}: no such file or folder; check the path")
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        inside = [p for p in inside if _wanted(p.relative_to(path))]
        kind = next((k for k in KINDS.values() if any(_kind(p)[0] == k for p in inside)), "")
        inside = [p for p in inside if kind and _kind(p)[0] == kind]  # a README is no document
        if not inside:
            raise NoInput(f"{path}: no parquet, JSONL or text file in it; check the path")
        found += [_source(p) for p in inside]
    return found


def _wanted(relative: Path) -> bool:
    """Whether a file of a folder may hold documents: none that is hidden or describes others."""
    hidden = any(part.startswith(".") for part in relative.parts)
    beside = relative.parts[0] in ("rejected", "state") or relative.suffix == ".json"
    return not hidden and not beside


def _kind(path: Path) -> tuple[str, str]:
    """(kind, compression) by the file's name; kind "" when the name says nothing."""
    packed = PACKED.get(path.suffix.lower(), "")
    inner = Path(path.stem) if packed else path
    return KINDS.get(inner.suffix.lower(), ""), packed


def _source(path: Path) -> Source:
    kind, packed = _kind(path)
    size = path.stat().st_size
    if not kind:
        kind = _sniffed(path)
    if kind == "parquet" and packed:
        raise BadInput(f"{path}: parquet packed once more; unpack it first")
    if kind == "text" and packed:
        raise BadInput(f"{path}: packed text; unpack it first")
    return Source(path, kind, packed, size)


def _sniffed(path: Path) -> str:
    """The kind of a file by its first bytes. BadInput (65) says what else it is."""
    with open(path, "rb") as handle:
        head = handle.read(4096)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"WARC/", b"\x1f\x8b")) or ".warc" in path.name:
        raise BadInput(f"{path}: no documents but a WARC or packed file; run crawl-filter first")
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise BadInput(f"{path}: a web page; documents are parquet, JSONL or plain text")
    if b"\0" in head:
        raise BadInput(f"{path}: a binary file; documents are parquet, JSONL or plain text")
    return "jsonl" if head.lstrip().startswith(b"{") else "text"


def plan_units(sources: Sequence[Source], text_column: str) -> list[Unit]:
    """All units, in order. BadInput (65) at once for a file without the text column."""
    units: list[Unit] = []
    for source in sources:
        if source.kind == "parquet":
            units += _parquet_units(source, text_column)
        elif source.packed:
            _check_first_line(source, text_column)
            units.append(Unit(source, 0, source.n_bytes, 3 * source.n_bytes, None))
        else:
            if source.kind == "jsonl":
                _check_first_line(source, text_column)
            n = max(1, round(source.n_bytes / PIECE_BYTES))  # pieces, for text
            step = UNIT_BYTES if source.kind == "jsonl" else UNIT_BYTES // PIECE_BYTES
            end = source.n_bytes if source.kind == "jsonl" else n
            scale = 1 if source.kind == "jsonl" else PIECE_BYTES
            for first in range(0, end, step):
                stop = min(first + step, end)
                rows = stop - first if source.kind == "text" else None
                n_text = min((stop - first) * scale, source.n_bytes)
                units.append(Unit(source, first, stop, n_text, rows))
    return units


def _parquet_file(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{path}: no readable parquet file ({first_line(error)}); fetch it again"
        ) from None


def _parquet_units(source: Source, text_column: str) -> Iterator[Unit]:
    """Row groups, joined up to about UNIT_BYTES of text."""
    file = _parquet_file(source.path)
    names = file.schema_arrow.names
    if text_column not in names:
        raise BadInput(
            f"{source.path}: no column {text_column!r}; it has {', '.join(names[:20])}; "
            "choose one with --text-column"
        )
    kind = file.schema_arrow.field(text_column).type
    if not _is_text(kind):
        raise BadInput(
            f"{source.path}: column {text_column!r} holds {kind}, not text; choose another with "
            "--text-column"
        )
    where = next(
        i
        for i in range(len(file.schema))
        if file.schema.column(i).path.split(".")[0] == text_column
    )
    first, size, rows = 0, 0, 0
    for group in range(file.metadata.num_row_groups):
        facts = file.metadata.row_group(group)
        size += facts.column(where).total_uncompressed_size
        rows += facts.num_rows
        if size >= UNIT_BYTES:
            yield Unit(source, first, group + 1, size, rows)
            first, size, rows = group + 1, 0, 0
    if rows:
        yield Unit(source, first, file.metadata.num_row_groups, size, rows)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _check_first_line(source: Source, text_column: str) -> None:
    """The first line must be an object with the text key; later ones count as bad rows."""
    try:
        with opened(source) as handle:
            line = next((x for x in iter(lambda: handle.readline(MAX_LINE), b"") if x.strip()), b"")
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf")) if line else {text_column: ""}
    except (ValueError, OSError, EOFError, RecursionError, zlib.error) as error:
        raise BadInput(
            f"{source.path}: line 1 is no JSON ({first_line(error)}); wanted JSONL"
        ) from None
    if not isinstance(row, dict):
        raise BadInput(f"{source.path}: line 1 is no JSON object; wanted JSONL, one object a line")
    if not isinstance(row.get(text_column), str):
        what = "is no text" if text_column in row else "is missing"
        raise BadInput(
            f"{source.path}: line 1: key {text_column!r} {what}; it has "
            f"{', '.join(map(str, list(row)[:20]))}; choose one with --text-column"
        )


def opened(source: Source) -> BinaryIO:
    """A file's content, unpacked as it is read."""
    if source.packed == "gzip":
        return gzip.open(source.path, "rb")  # type: ignore[return-value]
    if source.packed == "zstd":
        import io

        stream: Any = pa.input_stream(str(source.path), compression="zstd")
        return io.BufferedReader(stream, 1 << 20)
    return open(source.path, "rb")


def first_line(error: BaseException) -> str:
    """What an exception says, without what follows."""
    return (str(error) or type(error).__name__).split("\n")[0]
