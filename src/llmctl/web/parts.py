"""Documents as parquet: the tasks' files while a run works, the artifact's parts at its end."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document

from llmctl.core.files import publish, temporary_name
from llmctl.web.blocks import Rejected

SCHEMA = pa.schema(
    [
        ("text", pa.large_string()),
        ("id", pa.string()),
        ("dump", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("file_path", pa.string()),
        ("language", pa.string()),
        ("language_score", pa.float64()),
    ]
)
REJECTED = pa.schema(
    [
        *SCHEMA,
        ("step", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
    ]
)
# What a task hands on beside the columns: length before replacement, what was replaced, its score
TASK_SCHEMA = pa.schema([*SCHEMA, ("_chars", pa.int64()), ("_pii", pa.string())])
GROUP_BYTES = 16 << 20  # of text in a row group
GROUP_ROWS = 4096


class ParquetRows:
    """Rows into one parquet file that appears whole or not at all."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        self._temporary = temporary_name(path)
        self._writer = pq.ParquetWriter(
            self._temporary,
            schema,
            compression="zstd",
            compression_level=3,
            write_page_checksum=True,
            use_dictionary=["dump", "file_path", "language"],
        )
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self.text_bytes = self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        size = len(row["text"].encode("utf-8", "replace"))
        self._rows.append(row)
        self._bytes += size
        self.text_bytes += size
        self.rows += 1
        if self._bytes >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
            self._rows, self._bytes = [], 0

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._flush()
        self._writer.close()
        publish(self._temporary, self.path)

    def abandon(self) -> None:
        self._writer.close()
        self._temporary.unlink(missing_ok=True)


class Parts:
    """part-00000.parquet, … each of at most `part_bytes` of text, and one row more."""

    def __init__(self, folder: Path, schema: pa.Schema, part_bytes: int) -> None:
        self.folder, self.schema, self.part_bytes = folder, schema, part_bytes
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("part-*.parquet*"):
            old.unlink()
        self._open: ParquetRows | None = None
        self.files = self.rows = self.text_bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        if self._open is not None and self._open.text_bytes >= self.part_bytes:
            self._shut()
        if self._open is None:
            path = self.folder / f"part-{self.files:05d}.parquet"
            self._open = ParquetRows(path, self.schema)
            self.files += 1
        self._open.add(row)

    def _shut(self) -> None:
        if self._open is not None:
            self._open.close()
            self.rows += self._open.rows
            self.text_bytes += self._open.text_bytes
            self._open = None

    def close(self, at_least_one: bool = False) -> None:
        if self._open is None and not self.files and at_least_one:
            self._open = ParquetRows(self.folder / "part-00000.parquet", self.schema)
            self.files = 1
        self._shut()


def document_row(doc: Document) -> dict[str, Any]:
    """A document in the task's columns."""
    meta = doc.metadata
    row = {name: meta.get(name) for name in SCHEMA.names}
    row |= {"text": doc.text, "id": doc.id, "_chars": meta.get("_chars", len(doc.text))}
    row["_pii"] = json.dumps(meta.get("_pii", {}), sort_keys=True)
    return row


def rejected_row(rejected: Rejected) -> dict[str, Any]:
    drop = rejected.drop
    value = None if drop.value is None else float(drop.value)
    threshold = None if drop.threshold is None else float(drop.threshold)
    return {
        **document_row(rejected.document),
        "step": rejected.step,
        "rule": drop.rule,
        "value": value,
        "threshold": threshold,
    }


def rows_of(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a task's file in order, a few at a time."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=64, columns=columns):
            yield from batch.to_pylist()
