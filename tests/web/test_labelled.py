"""Blocks are found by place, whatever stands around them; the labels of real pages stay theirs."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llmctl.web.labelled import blocks

LABELS = Path(__file__).with_name("labels") / "pages.jsonl"
KINDS = ("main", "title", "comments", "optional")


def rows() -> list[dict]:
    return [json.loads(line) for line in LABELS.read_text(encoding="utf-8").splitlines()]


def texts(page: str) -> list[str]:
    return [block.text for block in blocks(page.encode())]


def test_blocks_are_what_a_reader_sees():
    assert texts("<p>One <b>two</b><br>three</p>four") == ["One two", "three", "four"]
    assert texts("<head><title>no</title></head><body>yes <!-- no > --> on") == ["yes on"]
    assert texts("a <script>if (1 < 2) '<p>no'</script> b") == ["a b"]
    assert texts("fish &amp; chips&nbsp;!<div></div>  <div> </div>") == ["fish & chips !"]
    assert texts('<a href="x"" title="y">z</a><p>after') == ["z", "after"]  # a stray quote


def test_offsets_count_bytes_of_the_page():
    page = "<p> Grüße <i>aus</i> Köln </p>".encode("iso-8859-1")
    [block] = blocks(page, "iso-8859-1")
    assert block.text == "Grüße aus Köln"
    assert page[block.start : block.end] == "Grüße <i>aus</i> Köln".encode("iso-8859-1")


@given(st.binary(max_size=300))
def test_any_bytes_have_blocks_in_order(page: bytes):
    at = 0
    for block in blocks(b"<p>" + page + b"<div>x<!--"):
        assert at <= block.start < block.end and block.text.strip()
        at = block.end


def test_labels_are_many_and_each_page_has_its_half():
    found = rows()
    assert len(found) >= 160 and len({row["sha256"] for row in found}) == len(found)
    assert len({row["lang"] for row in found}) >= 20 and len({row["type"] for row in found}) >= 9
    for row in found:
        odd = int(row["sha256"][:8], 16) % 2
        assert row["split"] == ("dev" if odd else "held-out")
        places = sorted(block[0] for kind in KINDS for block in row[kind])
        assert len(set(places)) == len(places)  # no block is two things
    assert min(Counter(row["split"] for row in found).values()) >= 70


def test_labels_point_at_the_real_pages(shared: Path):
    wanted = {row["sha256"]: row for row in rows()}
    seen = set()
    for path in sorted((shared / "data" / "warc").glob("web-dev-*.warc.gz")):
        for record in gzip.open(path).read().split(b"\r\n\r\nWARC/1."):
            body = record.split(b"\r\n\r\n", 2)[-1]
            digest = hashlib.sha256(body).hexdigest()
            if digest in wanted:
                seen.add(digest)
                row = wanted[digest]
                have = {(b.start, b.end - b.start, b.digest) for b in blocks(body, row["charset"])}
                assert all(tuple(block) in have for kind in KINDS for block in row[kind])
    assert len(seen) > len(wanted) // 2, "few pages were found in the archives"
