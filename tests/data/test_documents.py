"""Files of others become rows; what is wrong with one is named, with file and remedy."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmctl.core.errors import BadInput, NoInput
from llmctl.data import documents
from llmctl.data.documents import find_sources, plan_units
from llmctl.data.rows import BAD, EMPTY, OK, REPLACED, read_unit


def rows_of(*paths, column="text"):
    """Every row as (text, id, mark)."""
    found = []
    for unit in plan_units(find_sources(paths), column):
        for rows in read_unit(unit, column):
            ids = rows.ids or [None] * len(rows.texts)
            found += zip(rows.texts.to_pylist(), ids, rows.marks)
    return found


def jsonl(path, rows):
    path.write_bytes(b"".join(json.dumps(r).encode() + b"\n" for r in rows))
    return path


def test_the_same_rows_from_every_format(tmp_path):
    texts = ["a b", "line\u2028separator\nand more", "漢字"]
    rows = [{"id": f"d{i}", "text": t} for i, t in enumerate(texts)]
    wanted = [(t, f"d{i}", OK) for i, t in enumerate(texts)]
    plain = jsonl(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pa.CompressedOutputStream(str(tmp_path / "a.jsonl.zst"), "zstd") as out:
        out.write(plain.read_bytes())
    for name in ("a.jsonl", "a.parquet", "a.jsonl.gz", "a.jsonl.zst"):
        assert rows_of(tmp_path / name) == wanted, name


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_every_string_type_of_parquet(tmp_path, kind):
    types = {"string_view": pa.string_view(), "large_string": pa.large_string()}
    column = pa.array(["a", None, "b"], types.get(kind, pa.string()))
    if kind == "dictionary":
        column = column.dictionary_encode()
    try:
        pq.write_table(pa.table({"id": [1, 2, 3], "text": column}), tmp_path / "a.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip("this pyarrow does not write it")
    assert rows_of(tmp_path / "a.parquet") == [("a", "1", OK), ("", "2", EMPTY), ("b", "3", OK)]


def test_units_do_not_change_the_rows(tmp_path, monkeypatch):
    rows = [{"id": str(i), "text": "word " * (i % 40)} for i in range(500)]
    path = jsonl(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=7)
    whole = rows_of(path)
    assert len(whole) == 500 and whole == rows_of(tmp_path / "a.parquet")
    monkeypatch.setattr(documents, "UNIT_BYTES", 1000)
    for name in ("a.jsonl", "a.parquet"):
        assert len(plan_units(find_sources([tmp_path / name]), "text")) > 20
        assert rows_of(tmp_path / name) == whole


def test_a_text_file_is_cut_behind_blank_lines(tmp_path, monkeypatch):
    paragraph = "One day the miller of Dunmore went to town. " * 40 + "\n\n"
    (tmp_path / "a.txt").write_text("\ufeff" + paragraph * 200)
    pieces = [text for text, _, _ in rows_of(tmp_path / "a.txt")]
    assert len(pieces) > 3 and "".join(pieces) == paragraph * 200
    assert all(piece.endswith("\n\n") for piece in pieces)
    monkeypatch.setattr(documents, "UNIT_BYTES", 128 << 10)
    assert [text for text, _, _ in rows_of(tmp_path / "a.txt")] == pieces
    (tmp_path / "b.txt").write_text("漢" * 100_000)
    assert "".join(text for text, _, _ in rows_of(tmp_path / "b.txt")) == "漢" * 100_000
    (tmp_path / "c.txt").write_text("short")
    assert rows_of(tmp_path / "c.txt") == [("short", None, OK)]


def test_broken_characters_are_replaced_and_marked(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": "a\ud800b"}, {"text": "\ud83d\ude00"}, {"text": ""}])
    assert [r[::2] for r in rows_of(tmp_path / "a.jsonl")] == [
        ("a�b", REPLACED),
        ("😀", OK),
        ("", EMPTY),
    ]
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \xed\xa0\x80")
    ((text, _, mark),) = rows_of(tmp_path / "a.txt")
    assert (text, mark) == ("caf� ���", REPLACED)


def test_bad_lines_are_rows_marked_bad(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n\n{"text": \n[1]\n{"text": 5}\n{"id": 1}\n{"text": null}\n')
    marks = [mark for _, _, mark in rows_of(path)]
    assert marks == [OK, BAD, BAD, BAD, EMPTY, EMPTY]


def test_a_folder_gives_its_data_files_only(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "part-00000.parquet")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "rejected").mkdir()
    pq.write_table(pa.table({"text": ["no"]}), tmp_path / "rejected" / "part-00000.parquet")
    assert rows_of(tmp_path) == [("a", None, OK)]


def test_what_is_no_document_is_refused_by_name(tmp_path):
    pq.write_table(pa.table({"body": ["a"], "n": [1], "l": [["a"]]}), tmp_path / "a.parquet")
    jsonl(tmp_path / "a.jsonl", [{"content": "a"}])
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    (tmp_path / "page").write_text("<!DOCTYPE html><p>x")
    (tmp_path / "x.warc.gz").write_bytes(gzip.compress(b"WARC/1.0"))
    (tmp_path / "binary").write_bytes(bytes(100))
    (tmp_path / "list.json").write_text('["a"]')
    cases = [
        ("a.parquet", "text", "no column 'text'; it has body, n, l; choose one with --text-column"),
        ("a.parquet", "n", "column 'n' holds int64, not text"),
        ("a.parquet", "l", "column 'l' holds list"),
        ("a.jsonl", "text", "line 1: key 'text' is missing; it has content"),
        ("cut.parquet", "text", "no readable parquet file"),
        ("page", "text", "a web page"),
        ("x.warc.gz", "text", "run crawl-filter first"),
        ("binary", "text", "a binary file"),
        ("list.json", "text", "no JSON object"),
    ]
    for name, column, message in cases:
        with pytest.raises(BadInput, match=message) as caught:
            rows_of(tmp_path / name, column=column)
        assert name in str(caught.value)
    with pytest.raises(NoInput, match="no such file"):
        rows_of(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoInput, match="no parquet, JSONL or text"):
        rows_of(tmp_path / "empty")


def test_damage_inside_a_file_is_named(tmp_path):
    packed = gzip.compress(b'{"text": "abc"}\n' * 50_000)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:-200])
    with pytest.raises(BadInput, match="a.jsonl.gz: damaged"):
        rows_of(tmp_path / "a.jsonl.gz")
    texts = [f"text number {i}" for i in range(5000)]
    path = tmp_path / "b.parquet"
    pq.write_table(pa.table({"text": texts}), path, write_page_checksum=True)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 8
    path.write_bytes(raw)
    with pytest.raises(BadInput, match="b.parquet: damaged"):
        rows_of(path)


def test_an_endless_line_is_dropped_without_being_held(tmp_path, monkeypatch):
    from llmctl.data import rows

    monkeypatch.setattr(rows, "MAX_LINE", 1000)
    path = jsonl(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "x" * 5000}, {"text": "b"}])
    assert [r[::2] for r in rows_of(path)] == [("a", OK), ("", BAD), ("b", OK)]
