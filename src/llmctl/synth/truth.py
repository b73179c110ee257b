"""The truth about the planted web, as parquet files with fixed schemas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmctl.core.files import atomic_write

_TEXT = pa.struct([("role", pa.string()), ("content", pa.string())])
_FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.string())])  # arguments: JSON
_CALL = pa.struct([("type", pa.string()), ("function", _FUNCTION)])
_MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("name", pa.string()),  # of the tool whose result it is
        ("tool_calls", pa.list_(_CALL)),
    ]
)

TRUTH = pa.schema(
    [
        ("url", pa.string()),
        ("record_id", pa.string()),
        ("warc", pa.string()),
        ("class", pa.string()),
        ("kept_expected", pa.bool_()),
        ("dup_of", pa.string()),  # url of the original
        ("language", pa.string()),
        ("charset", pa.string()),  # of the bytes
        ("declared_charset", pa.string()),  # what header and page say; "" = nothing
        ("main_text", pa.string()),  # a line a block, personal data not yet masked
        ("boilerplate", pa.list_(pa.string())),
        ("pii", pa.list_(pa.struct([("kind", pa.string()), ("value", pa.string())]))),
        ("facts", pa.list_(pa.string())),
        ("broken", pa.bool_()),
        ("genre", pa.string()),
        ("html_bytes", pa.int32()),
    ]
)
FACTS = pa.schema(
    [
        ("fact_id", pa.string()),
        ("subject", pa.string()),
        ("kind", pa.string()),  # person, village, firm
        ("relation", pa.string()),
        ("value", pa.string()),
        ("exposure", pa.int32()),
        ("prompts", pa.list_(pa.string())),
        ("questions", pa.list_(pa.string())),
        ("aliases", pa.list_(pa.string())),
    ]
)
CONVERSATIONS = pa.schema(
    [
        ("messages", pa.list_(_MESSAGE)),
        ("kind", pa.string()),
        ("fact_id", pa.string()),
    ]
)
TEXTBOOK = pa.schema([("text", pa.string()), ("id", pa.string()), ("kind", pa.string())])
PREFERENCES = pa.schema(
    [
        ("prompt", pa.list_(_TEXT)),
        ("responses", pa.list_(pa.string())),
        ("ranks", pa.list_(pa.int32())),  # 1 = best, ties allowed
        ("split", pa.string()),  # train, test
        ("kind", pa.string()),
    ]
)
PROBLEMS = pa.schema(
    [
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("verifier", pa.string()),
        (
            "meta",
            pa.struct(
                [
                    ("difficulty", pa.int32()),
                    ("steps", pa.list_(pa.string())),
                    ("solution", pa.string()),
                ]
            ),
        ),
        ("split", pa.string()),
    ]
)
QUIZZES = pa.schema(
    [
        ("kind", pa.string()),  # choice, open
        ("topic", pa.string()),
        ("query", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("gold", pa.int32()),  # index into choices; -1 for open questions
        ("answer", pa.string()),
        ("aliases", pa.list_(pa.string())),
        ("fact_id", pa.string()),
        ("exposure", pa.int32()),  # -1 where no measured fact is asked for
        ("split", pa.string()),  # train, test
    ]
)


def write_parquet(path: Path, schema: pa.Schema, batches: Iterable[list[dict[str, Any]]]) -> int:
    """Rows to a parquet file, a row group a batch, complete or not at all. Returns their number."""
    rows = 0
    with atomic_write(path) as handle:
        with pq.ParquetWriter(
            handle, schema, compression="zstd", write_page_checksum=True
        ) as writer:
            for batch in batches:
                if batch:
                    writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                    rows += len(batch)
    return rows


def merge(parts: list[Path], path: Path) -> None:
    """The parts' row groups in order in one file; memory holds one part at a time."""
    with atomic_write(path) as handle:
        with pq.ParquetWriter(
            handle, TRUTH, compression="zstd", write_page_checksum=True
        ) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part, schema=TRUTH))


def count(path: Path) -> dict[str, Any]:
    """Figures for the manifest: pages of each class, personal data, boilerplate, charsets."""
    classes: Counter[str] = Counter()
    pii: Counter[str] = Counter()
    charsets: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    names = [name for name in TRUTH.names if name not in ("url", "record_id", "warc", "dup_of")]
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        for row in file.read_row_group(group, columns=names).to_pylist():
            classes[row["class"]] += 1
            totals["html_bytes"] += row["html_bytes"]
            if row["class"] == "nonpage":
                continue
            charsets[row["charset"]] += 1
            languages[row["language"]] += 1
            totals["boilerplate_lines"] += len(row["boilerplate"])
            totals["wrong_charset"] += row["charset"] != (row["declared_charset"] or row["charset"])
            totals["broken"] += row["broken"]
            if row["class"] == "good":
                totals["good_text_bytes"] += len(row["main_text"].encode())
                totals["statements"] += len(row["facts"])
                pii.update(item["kind"] for item in row["pii"])
    return {
        "pages": sum(classes.values()),
        "classes": dict(sorted(classes.items())),
        "pii": dict(sorted(pii.items())),
        "charsets": dict(sorted(charsets.items())),
        "languages": dict(sorted(languages.items())),
        **dict(sorted(totals.items())),
    }
