"""Compares a documents artifact with the truth of the synthetic web it was filtered from.

Pages are matched by URL. Of an original and its copies one may stay: whichever does counts as the
original, so that a filter is not blamed for keeping the other one of two equal pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from llmctl.core.errors import BadInput, NoInput

COPIES = ("exact_duplicate", "near_duplicate", "mirror")
CERTAIN_LENGTH = 25  # characters; a shorter line may also stand in a sentence by chance
COLUMNS = ("kind", "name", "planted", "kept", "removed %")  # of the table of scores
_COLUMNS = ("url", "class", "dup_of", "boilerplate", "pii", "facts")

Page = dict[str, Any]  # a row of truth.parquet


class Row(NamedTuple):
    """What of one planted kind is left; removed is None where nothing was planted."""

    kind: str  # class, boilerplate, pii
    name: str
    planted: int
    kept: int
    removed: float | None  # per cent


def _truth(web: Path) -> Iterator[Page]:
    path = web / "truth.parquet"
    if not path.is_file():
        raise NoInput(f"{path}: no such file; name a folder written by llmctl synth")
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        yield from file.read_row_group(group, columns=list(_COLUMNS)).to_pylist()


def _parts(documents: Path, keep: Callable[[str], bool] | None) -> Iterator[dict[str, str]]:
    """The text of each kept page by URL, one file of the artifact at a time."""
    columns = ["url", "text", "id"] if keep else ["url", "text"]
    parts = sorted(documents.glob("part-*.parquet"))
    if not parts:
        raise NoInput(f"{documents}: no part-*.parquet; name a documents artifact")
    for part in parts:
        file = pq.ParquetFile(part)
        missing = set(columns) - set(file.schema_arrow.names)
        if missing:
            raise BadInput(f"{part}: no column {' and '.join(sorted(missing))}; not documents")
        rows = file.read(columns=columns).to_pylist()
        yield {row["url"]: row["text"] for row in rows if keep is None or keep(row["id"])}


def _kept(
    web: Path, documents: Path, keep: Callable[[str], bool] | None = None
) -> Iterator[tuple[Page, str]]:
    """Every page of the truth that is among the documents, with its text there."""
    for texts in _parts(documents, keep):
        for row in _truth(web):
            text = texts.get(row["url"])
            if text is not None:
                yield row, text


def _surplus(kept: dict[str, list[str]]) -> Counter[str]:
    """Kept pages of each class when one page of each group of copies counts as the original.

    kept: the classes of the kept pages of each group, by the URL of the group's original.
    """
    counts: Counter[str] = Counter()
    for classes in kept.values():
        if "good" not in classes and any(name in COPIES for name in classes):
            classes = ["good", *classes[1:]]
        counts.update(classes)
    return counts


def _has_line(text: str, lines: set[str], line: str) -> bool:
    return line in lines or (len(line) >= CERTAIN_LENGTH and line in text)


def _row(kind: str, name: str, planted: int, kept: int) -> Row:
    removed = 100.0 * (1 - kept / planted) if planted else None
    return Row(kind, name, planted, kept, removed)


def score_documents(web_folder: Path | str, documents_folder: Path | str) -> list[Row]:
    """What of the planted web is left in the documents.

    A class's row counts pages; of `good` the removed share is the loss. Boilerplate counts the
    lines of all pages that were kept, and pii the values on good pages that were kept.
    """
    web, documents = Path(web_folder), Path(documents_folder)
    planted = Counter(row["class"] for row in _truth(web))
    groups: dict[str, list[str]] = {}
    lines: Counter[str] = Counter()
    pii: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for row, text in _kept(web, documents):
        groups.setdefault(row["dup_of"] or row["url"], []).append(row["class"])
        own = {line.strip() for line in text.split("\n")}
        lines["planted"] += len(row["boilerplate"])
        lines["kept"] += sum(_has_line(text, own, line) for line in row["boilerplate"])
        for item in row["pii"]:
            pii[item["kind"]] += 1
            left[item["kind"]] += item["value"] in text
    kept = _surplus(groups)
    rows = [_row("class", name, planted[name], kept[name]) for name in sorted(planted)]
    rows.append(_row("boilerplate", "lines", lines["planted"], lines["kept"]))
    return rows + [_row("pii", kind, pii[kind], left[kind]) for kind in sorted(pii)]


def exposures(
    web_folder: Path | str,
    documents_folder: Path | str,
    keep: Callable[[str], bool] | None = None,
) -> dict[str, int]:
    """Fact id -> number of distinct kept pages whose text still states the fact.

    All facts of the web are there, those that no page states with 0. A page and its copies count
    once. keep: which documents to count, by their column `id`; all without it.
    """
    web = Path(web_folder)
    path = web / "facts.parquet"
    if not path.is_file():
        raise NoInput(f"{path}: no such file; name a folder written by llmctl synth")
    facts = pq.read_table(path, columns=["fact_id", "prompts", "value"]).to_pylist()
    needles = {
        fact["fact_id"]: [f"{prompt[1:]} {fact['value']}" for prompt in fact["prompts"]]
        for fact in facts
    }
    seen: dict[str, set[str]] = {fact_id: set() for fact_id in needles}
    for row, text in _kept(web, Path(documents_folder), keep):
        for fact_id in row["facts"]:
            if any(needle in text for needle in needles.get(fact_id, ())):
                seen[fact_id].add(row["dup_of"] or row["url"])
    return {fact_id: len(pages) for fact_id, pages in seen.items()}
