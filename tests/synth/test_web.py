from __future__ import annotations

import gzip
import html
from collections import Counter
from pathlib import Path

import pytest
from synthetic import Web, small_plan

from llmctl.core.files import sha256_file
from llmctl.synth.build import build_web
from llmctl.synth.plan import CLASSES, make_plan, pages_for
from llmctl.synth.shard import write_shard


def hashes(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in files}


def records(folder: Path) -> list[tuple[dict[str, str], bytes]]:
    """Header fields and content of every record, read by hand."""
    found = []
    for path in sorted((folder / "warc").glob("*.gz")):
        data, at = gzip.decompress(path.read_bytes()), 0
        while at < len(data):
            end = data.index(b"\r\n\r\n", at)
            lines = data[at:end].decode().split("\r\n")
            assert lines[0] == "WARC/1.0"
            fields = dict(line.split(": ", 1) for line in lines[1:])
            start, length = end + 4, int(fields["Content-Length"])
            assert data[start + length : start + length + 4] == b"\r\n\r\n"
            found.append((fields, data[start : start + length]))
            at = start + length + 4
    return found


def test_two_workers_write_the_bytes_of_one(web: Web, tmp_path: Path):
    build_web(web.plan, tmp_path, workers=2)
    assert hashes(tmp_path) == hashes(web.folder)


def test_an_interrupted_build_goes_on_to_the_same_bytes(web: Web, tmp_path: Path):
    (tmp_path / "warc").mkdir()
    (tmp_path / "parts").mkdir()
    write_shard(web.plan, 1, tmp_path / "warc", tmp_path / "parts" / "truth-00001.parquet")
    kept = (tmp_path / "warc" / "web-00001.warc.gz").stat().st_mtime_ns
    (tmp_path / "warc" / "web-00000.warc.gz.tmp.1.abcd").write_bytes(b"torn")
    build_web(web.plan, tmp_path)
    assert (tmp_path / "warc" / "web-00001.warc.gz").stat().st_mtime_ns == kept
    assert hashes(tmp_path) == hashes(web.folder)


def test_a_finished_build_adds_nothing(web: Web):
    before = hashes(web.folder)
    assert build_web(web.plan, web.folder) == web.stats
    assert hashes(web.folder) == before


def test_another_seed_is_another_world(web: Web, tmp_path: Path):
    write_shard(small_plan(6), 0, tmp_path, tmp_path / "truth.parquet")
    name = "web-00000.warc.gz"
    assert sha256_file(tmp_path / name) != sha256_file(web.folder / "warc" / name)


def test_classes_have_their_shares(web: Web):
    counts = Counter(page["class"] for page in web.pages)
    assert counts == Counter(web.plan.totals)
    assert counts["blocked"] == round(0.04 * 1200)
    assert set(counts) == set(CLASSES)
    assert web.stats["classes"] == dict(sorted(counts.items()))
    assert len({page["url"] for page in web.pages}) == len(web.pages)


def test_size_is_about_what_was_asked_for(web: Web):
    good = web.stats["good_text_bytes"] / 1e6
    asked = 1.05  # MB
    assert pages_for(asked, 60, web.plan.shares) == pytest.approx(1200 * asked / good, rel=0.12)
    assert make_plan(1, web.plan.shares, 256, size_mb=6).facts == 256


def test_every_record_is_whole_and_the_truth_finds_it(web: Web):
    found = records(web.folder)
    kinds = Counter(fields["WARC-Type"] for fields, _ in found)
    assert kinds["response"] == kinds["request"] == kinds["metadata"] == len(web.pages)
    assert kinds["warcinfo"] == web.plan.n_shards
    ids = [fields["WARC-Record-ID"] for fields, _ in found]
    assert len(set(ids)) == len(ids)
    by_id = {f["WARC-Record-ID"]: (f, body) for f, body in found if f["WARC-Type"] == "response"}
    for page in web.pages:
        fields, content = by_id[page["record_id"]]
        assert fields["WARC-Target-URI"] == page["url"]
        body = content.partition(b"\r\n\r\n")[2]
        assert len(body) == page["html_bytes"]
        if page["class"] == "nonpage":
            continue
        shown = html.unescape(body.decode(page["charset"]))
        shown = shown.replace("<b><i>", "").replace("</b></i>", "")
        for line in page["main_text"].split("\n"):
            assert line[:40] in shown, (page["url"], line)
        assert all(line in shown for line in page["boilerplate"])


def test_warcio_reads_it(web: Web):
    archive = pytest.importorskip("warcio.archiveiterator")
    with open(web.folder / "warc" / "web-00000.warc.gz", "rb") as file:
        kinds = Counter(r.rec_type for r in archive.ArchiveIterator(file, check_digests="raise"))
    assert kinds["response"] == kinds["request"] == kinds["metadata"] > 100


def test_copies_follow_their_originals_which_have_no_other(web: Web):
    place = {page["url"]: at for at, page in enumerate(web.pages)}
    originals = [page["dup_of"] for page in web.pages if page["dup_of"]]
    assert len(originals) == len(set(originals)) > 50
    for page in web.pages:
        if page["dup_of"]:
            original = web.pages[place[page["dup_of"]]]
            assert original["class"] == "good" and original["warc"] == page["warc"]
            assert place[page["dup_of"]] < place[page["url"]]


def test_personal_data_stands_in_the_text_and_is_counted(web: Web):
    counts: Counter[str] = Counter()
    for page in web.of("good"):
        for item in page["pii"]:
            assert item["value"] in page["main_text"]
            counts[item["kind"]] += 1
    assert set(counts) == {"email", "ip", "phone", "ssn"}
    assert web.stats["pii"] == dict(sorted(counts.items()))


def test_wrong_charsets_can_be_told_from_the_bytes(web: Web):
    wrong = [
        page
        for page in web.of("good")
        if page["declared_charset"] not in ("", page["charset"]) and page["charset"] != "utf-8"
    ]
    assert len(wrong) > 5
    for page in wrong:
        with pytest.raises(UnicodeDecodeError):
            page["main_text"].encode(page["charset"]).decode(page["declared_charset"])
