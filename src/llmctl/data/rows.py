"""Rows of a unit, in blocks: texts that UTF-8 can hold, their ids, and what was wrong with them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llmctl.core.errors import BadInput
from llmctl.data.documents import MAX_LINE, PIECE_BYTES, Unit, first_line, opened
from llmctl.tokenizer.bpe import clean_text

BLOCK_BYTES = 4 << 20  # of text, about: what is in memory at a time
ID_COLUMN = "id"
OK, EMPTY, REPLACED, BAD = range(4)  # what became of a row


@dataclass(frozen=True)
class Rows:
    """A block of rows: texts (N,) without nulls, valid UTF-8; ids (N,), None without a column."""

    texts: pa.LargeStringArray
    ids: list[str | None] | None
    marks: list[int]  # OK, EMPTY, REPLACED or BAD
    problem: str = ""  # the first bad row, for a message


def read_unit(unit: Unit, text_column: str) -> Iterator[Rows]:
    """The rows of a unit in blocks of about BLOCK_BYTES. BadInput (65) where a file is damaged."""
    reader = {"parquet": _parquet_rows, "jsonl": _json_rows, "text": _text_rows}[unit.source.kind]
    try:
        yield from reader(unit, text_column)
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadInput(
            f"{unit.source.path}: damaged ({first_line(error)}); fetch it again, or go on "
            "without the rest of it with --skip-damaged"
        ) from None


def _parquet_rows(unit: Unit, text_column: str) -> Iterator[Rows]:
    file = pq.ParquetFile(
        unit.source.path, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 20
    )
    has_id = ID_COLUMN in file.schema_arrow.names and ID_COLUMN != text_column
    columns = [text_column, *([ID_COLUMN] if has_id else [])]
    mean = max(1, unit.n_text // max(1, unit.n_rows or 1))
    batches = file.iter_batches(
        batch_size=max(1, min(65_536, BLOCK_BYTES // mean)),
        row_groups=list(range(unit.first, unit.stop)),
        columns=columns,
        use_threads=False,
    )
    for batch in batches:
        ids = _names(batch.column(ID_COLUMN)) if has_id else None
        yield checked(batch.column(text_column), ids)


def _names(column: pa.Array) -> list[str | None]:
    """Ids of any simple type as text."""
    raws = column.cast(pa.string()).cast(pa.binary()).to_pylist()
    return [None if raw is None else raw.decode("utf-8", "replace") for raw in raws]


def checked(texts: pa.Array, ids: list[str | None] | None) -> Rows:
    """Rows of a string column: nulls and empty texts marked, broken UTF-8 replaced and marked."""
    texts = texts.cast(pa.large_string()) if texts.type != pa.large_string() else texts
    try:
        texts.validate(full=True)
        marks = [OK] * len(texts)
    except pa.ArrowInvalid:
        raws = texts.cast(pa.large_binary()).to_pylist()
        whole = [None if raw is None else _decoded(raw) for raw in raws]
        marks = [REPLACED if t and t.encode() != r else OK for t, r in zip(whole, raws)]
        texts = pa.array(whole, pa.large_string())
    if texts.null_count:
        texts = texts.fill_null("")
    sizes = pc.binary_length(texts).to_pylist()
    marks = [EMPTY if not size else mark for size, mark in zip(sizes, marks)]
    return Rows(texts, ids, marks)


def _decoded(raw: bytes) -> str:
    """The text of bytes that are not UTF-8: surrogates joined or replaced, rubbish replaced."""
    try:
        return clean_text(raw.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")


def _json_rows(unit: Unit, text_column: str) -> Iterator[Rows]:
    texts: list[str] = []
    ids: list[str | None] = []
    marks: list[int] = []
    size, problem = 0, ""
    for at, line in _lines(unit):
        row, mark, why = _json_row(line, text_column)
        text = row.get(text_column, "")
        clean = clean_text(text)
        if mark == OK:
            mark = EMPTY if not text else REPLACED if clean is not text else OK
        problem = problem or (f"{unit.source.path}: byte {at:,}: {why}" if why else "")
        name = row.get(ID_COLUMN)
        texts.append(clean)
        ids.append(clean_text(str(name)) if isinstance(name, str | int) else None)
        marks.append(mark)
        size += len(line)
        if size >= BLOCK_BYTES:
            yield Rows(pa.array(texts, pa.large_string()), ids, marks, problem)
            texts, ids, marks, size, problem = [], [], [], 0, ""
    if texts:
        yield Rows(pa.array(texts, pa.large_string()), ids, marks, problem)


def _json_row(line: bytes, text_column: str) -> tuple[dict[str, Any], int, str]:
    """(row, mark, problem) of a JSONL line; a bad one is an empty row."""
    if len(line) >= MAX_LINE:
        return {}, BAD, f"a line of more than {MAX_LINE:,} bytes"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, BAD, f"no JSON ({first_line(error)})"
    if not isinstance(row, dict):
        return {}, BAD, "no JSON object"
    text = row.get(text_column)
    if text is None:
        return {k: v for k, v in row.items() if k == ID_COLUMN}, EMPTY, ""
    if not isinstance(text, str):
        return {}, BAD, f"key {text_column!r} is no text"
    return row, OK, ""


def _lines(unit: Unit) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the lines that begin in the unit's byte range; blank ones left out."""
    with opened(unit.source) as handle:
        at = 0
        if unit.first:
            handle.seek(unit.first - 1)
            at = unit.first - 1 + len(handle.readline())
        while unit.source.packed or at < unit.stop:
            line = handle.readline(MAX_LINE)
            if not line:
                return
            start, at = at, at + len(line)
            while len(line) == MAX_LINE and (rest := handle.readline(MAX_LINE)):
                at += len(rest)  # an endless line is dropped without being held
                if len(rest) < MAX_LINE:
                    break
            line = line.removeprefix(b"\xef\xbb\xbf") if not start else line
            if line.strip():
                yield start, line


def _text_rows(unit: Unit, text_column: str) -> Iterator[Rows]:
    """A text file in pieces of about PIECE_BYTES, cut behind blank lines where there are any."""
    size = unit.source.n_bytes
    last = max(1, round(size / PIECE_BYTES))
    with open(unit.source.path, "rb") as handle:
        cuts = [size if k == last else _cut(handle, k) for k in range(unit.first, unit.stop + 1)]
        step = BLOCK_BYTES // PIECE_BYTES
        for i in range(0, len(cuts) - 1, step):
            raws = []
            for start, stop in zip(cuts[i : i + step], cuts[i + 1 : i + step + 1]):
                handle.seek(start)
                raw = handle.read(stop - start)
                if start == 0 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise BadInput(f"{unit.source.path}: UTF-16 text; convert it to UTF-8")
                raws.append(raw.removeprefix(b"\xef\xbb\xbf") if start == 0 else raw)
            yield checked(_unchecked(raws), None)


def _unchecked(raws: list[bytes]) -> pa.LargeStringArray:
    """Bytes as a string column whose UTF-8 is still to be checked."""
    column = pa.array(raws, pa.large_binary())
    return pa.Array.from_buffers(pa.large_string(), len(raws), column.buffers())


def _cut(handle: BinaryIO, k: int) -> int:
    """Where piece k begins: a function of k and the content near it, so any reader agrees."""
    start = k * PIECE_BYTES
    if k == 0:
        return 0
    handle.seek(start)
    near = handle.read(PIECE_BYTES)
    for mark in (b"\n\n", b"\r\n\r\n", b"\n"):
        if (at := near.find(mark)) >= 0:
            return start + at + len(mark)
    at = 0
    while at < min(4, len(near)) and near[at] & 0xC0 == 0x80:  # not inside a character
        at += 1
    return start + at
