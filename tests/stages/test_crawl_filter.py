"""crawl-filter as a whole: same bytes however it runs, offline, and one sentence for bad input."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "web"))
import warcs

from llmctl.artifacts.store import Artifact
from llmctl.core.errors import BadInput, NoInput, UsageError
from llmctl.stages.crawl_filter import CrawlFilterConfig, dry_run, run

PERSONAL = "Write to jane.doe@example.net or 206-555-0143, host 9.9.9.9, number 219-09-9999."


class Folder:
    """What a draft is to the stage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)


def members() -> list[bytes]:
    """Good pages and one or more for most steps to drop."""
    bad = {
        "list": "\n".join(f"item {i}" for i in range(60)),
        "repeat": "The same sentence stands here again and again, word for word. " * 40,
        "german": "Der Fluss fließt langsam durch das weite Tal hinab zum Meer. " * 9,
        "thin": ". ".join(warcs.prose(60, 1).split(". ")[:2]) + ".",
        "curly": warcs.prose(77) + "\n<p>function() { return }",
    }
    made = warcs.pages_warc(30)
    made += [
        warcs.member(warcs.record(f"http://bad.example.net/{k}", warcs.http(warcs.page(v))))
        for k, v in bad.items()
    ]
    copy = warcs.page(warcs.prose(3), "Page 3")
    made.append(warcs.member(warcs.record("http://mirror.example.net/3", warcs.http(copy))))
    private = warcs.page(warcs.prose(50) + "\n" + PERSONAL)
    made.append(warcs.member(warcs.record("http://p.example.net/", warcs.http(private))))
    made.append(
        warcs.member(warcs.record("http://a.example/x", warcs.http(b"GIF89a", "image/gif")))
    )
    return made


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> list[Path]:
    folder, made = tmp_path_factory.mktemp("web"), members()
    paths = [folder / f"{name}.warc.gz" for name in "abc"]
    for i, path in enumerate(paths):
        path.write_bytes(b"".join(made[i::3]))
    return paths


def filtered(paths, folder: Path, **settings) -> dict:
    inputs = [Artifact(path, "foreign") for path in paths]
    settings = {"workers": 1, **settings}
    return run(CrawlFilterConfig(**settings), inputs, Folder(folder))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def result(web, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("result") / "docs"
    return folder, filtered(web, folder, keep_rejected=True)


def test_documents_are_what_they_should_be(web, result):
    folder, stats = result
    table = pq.read_table(folder / "part-00000.parquet", page_checksum_verification=True)
    assert table.column_names == [
        *("text", "id", "dump", "url", "date", "file_path", "language", "language_score"),
    ]
    rows = table.to_pylist()
    assert {r["url"] for r in rows} == {
        *(f"http://pages.example.net/{i}" for i in range(30)),
        "http://p.example.net/",
    }
    assert stats["documents"] == len(rows) == 31
    assert all(r["language"] == "en" and r["language_score"] > 0.65 for r in rows)
    shown = {f"file-{Artifact(path, 'foreign').id[:16]}" for path in web}
    assert {r["file_path"] for r in rows} == shown
    private = next(r["text"] for r in rows if r["url"] == "http://p.example.net/")
    assert not any(word in private for word in ("jane.doe", "555-0143", "9.9.9.9", "219-09"))
    assert stats["replaced"] == {"email": 1, "ip": 1, "phone": 1, "ssn": 1}
    assert sorted(p.name for p in folder.iterdir()) == [
        *("funnel.json", "part-00000.parquet", "rejected"),
    ]


def test_the_funnel_adds_up(result):
    folder, _ = result
    steps = json.loads((folder / "funnel.json").read_text())
    assert [s["step"] for s in steps] == [
        *("read", "url", "extract", "language", "gopher_repetition", "gopher_quality", "c4"),
        *("fineweb_quality", "dedup", "pii"),
    ]
    for before, after in zip(steps, steps[1:]):
        assert before["pages_out"] == after["pages_in"]
        assert before["chars_out"] == after["chars_in"]
    for step in steps:
        assert step["pages_in"] - sum(step["dropped"].values()) == step["pages_out"]


def test_rejected_pages_say_why(result):
    folder, stats = result
    rows = pq.read_table(folder / "rejected").to_pylist()
    assert len(rows) == sum(stats["dropped"].values()) - stats["dropped"]["read"]
    why = {r["url"]: r for r in rows}
    thin = why["http://bad.example.net/thin"]
    assert (thin["step"], thin["rule"]) == ("gopher_quality", "gopher_short_doc")
    assert thin["value"] < thin["threshold"] == 50
    assert why["http://bad.example.net/german"]["rule"] == "language_de"
    assert why["http://mirror.example.net/3"]["step"] == "dedup"


def test_same_bytes_for_any_number_of_workers(web, result, tmp_path):
    filtered(web, tmp_path / "two", keep_rejected=True, workers=2)
    assert digests(tmp_path / "two") == digests(result[0])


def test_urls_are_read_like_files(web, result, tmp_path):
    urls = [Artifact(Path(path.name), "foreign", url=f"file://{path}") for path in web]
    (tmp_path / "out").mkdir()
    stats = run(CrawlFilterConfig(workers=1), urls, Folder(tmp_path / "out"))
    assert stats["documents"] == result[1]["documents"]
    paths = pq.read_table(tmp_path / "out" / "part-00000.parquet").column("file_path").to_pylist()
    assert set(paths) == {f"file://{path}" for path in web}


def test_nothing_depends_on_the_name_of_a_file_given_alone(tmp_path):
    """The fingerprint does not cover it; and ids of two files of one name must not be the same."""
    lines = [[json.dumps({"text": warcs.prose(10 * n + i)}) for i in range(3)] for n in (1, 2)]
    paths = [tmp_path / name / "x.jsonl" for name in "ab"]
    for path, texts in zip(paths, lines):
        path.parent.mkdir()
        path.write_text("\n".join(texts))
    filtered(paths, tmp_path / "one")
    rows = pq.read_table(tmp_path / "one" / "part-00000.parquet").to_pylist()
    assert len(rows) == len({row["id"] for row in rows}) == 6
    renamed = [path.rename(path.with_name(f"{i}.jsonl")) for i, path in enumerate(paths)]
    filtered(renamed, tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_small_parts_hold_the_same_documents(web, result, tmp_path):
    filtered(web, tmp_path / "parts", part_bytes=9000)
    paths = sorted((tmp_path / "parts").glob("part-*"))
    assert len(paths) > 3 and paths[0].name == "part-00000.parquet"
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    assert rows == pq.read_table(result[0] / "part-00000.parquet").to_pylist()


def test_settings_change_what_is_kept(web, tmp_path):
    stats = filtered(web, tmp_path / "any", language=("any",), dedup="none", pii=())
    assert stats["documents"] == 32 and stats["replaced"] == {}
    stats = filtered(web, tmp_path / "fineweb", preset="fineweb", dedup="exact")
    assert stats["replaced"] == {"email": 1, "ip": 1} and stats["dropped"]["dedup"] == 1


def test_documents_can_be_filtered_again(result, tmp_path):
    folder = result[0]
    lines = [json.dumps({"text": warcs.prose(i), "id": str(i)}) for i in range(3)]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress("\n".join([*lines, "{", ""]).encode()))
    stats = filtered([folder / "part-00000.parquet", tmp_path / "x.jsonl.gz"], tmp_path / "again")
    assert stats["documents"] == 31  # the three are copies of pages of the first
    assert stats["dropped"]["dedup"] == 3


def errors_with(tmp_path, *paths, **settings) -> str:
    with pytest.raises(BadInput) as caught:
        filtered(paths, tmp_path / "out", **settings)
    return str(caught.value)


def test_a_bad_file_alone_is_an_error_that_names_it(tmp_path):
    for name, data, words in (
        ("empty", b"", "empty"),
        ("page", b"<html><body>404 Not Found</body></html>", "HTML page"),
        ("zeros", bytes(999), "zero bytes"),
        ("old", b"filedesc://a.arc 0.0.0.0 20260101 text/plain 9\n", "ARC"),
    ):
        path = tmp_path / f"{name}.warc.gz"
        path.write_bytes(data)
        said = errors_with(tmp_path, path)
        assert not (tmp_path / "out" / ".work").exists()
        assert str(path) in said and words in said
    with pytest.raises(NoInput):
        filtered([tmp_path / "missing.warc.gz"], tmp_path / "out")


def test_bad_files_among_good_ones_are_said_and_left_out(web, result, tmp_path, capsys):
    (tmp_path / "bad.warc.gz").write_bytes(b"<html>")
    (tmp_path / "cut.warc.gz").write_bytes(web[0].read_bytes()[:-50])
    stats = filtered([*web[1:], tmp_path / "bad.warc.gz", tmp_path / "cut.warc.gz"], tmp_path / "o")
    said = capsys.readouterr().err
    assert "bad.warc.gz: not read" in said and "cut.warc.gz: damaged" in said
    assert stats["documents"] in (30, 31)


def test_nothing_left_is_an_error_unless_allowed(tmp_path):
    path = tmp_path / "x.warc.gz"
    path.write_bytes(warcs.member(warcs.record("http://a.example/", warcs.http(b"<html>hi"))))
    assert "--allow-empty" in errors_with(tmp_path, path)
    stats = filtered([path], tmp_path / "empty", allow_empty=True)
    assert stats["documents"] == 0
    assert pq.read_table(tmp_path / "empty" / "part-00000.parquet").num_rows == 0


def test_nonsense_settings_are_refused():
    for wrong in (
        {"language_threshold": 1.5},
        {"max_bad_files": -1.0},
        {"page_time_limit": 0.0},
        {"workers": -1},
        {"language": ()},
    ):
        with pytest.raises(UsageError):
            CrawlFilterConfig(**wrong)


def test_dry_run_reads_nothing(web, capsys):
    dry_run(CrawlFilterConfig(), [Artifact(web[0], "foreign")])
    dry_run(CrawlFilterConfig(), [])
    assert "pages, about" in capsys.readouterr().err


SCRIPT = """
import sys
from pathlib import Path
from llmctl.artifacts.store import Artifact
from llmctl.stages.crawl_filter import CrawlFilterConfig, run
if __name__ == "__main__":
    class Draft: path = Path(sys.argv[1])
    Draft.path.mkdir(exist_ok=True)
    inputs = [Artifact(Path(p), "foreign") for p in sys.argv[2:]]
    run(CrawlFilterConfig(workers=2, keep_rejected=True), inputs, Draft)
"""

BLOCK_SOCKETS = """
import socket
def refuse(self, *args):
    if self.family != socket.AF_UNIX: raise OSError("no network in this test")
    return original(self, *args)
original = socket.socket.connect
socket.socket.connect = socket.socket.connect_ex = refuse
def no_names(*args, **more): raise OSError("no network in this test")
socket.getaddrinfo = socket.gethostbyname = no_names
"""


def in_a_process(tmp_path: Path, web, out: Path) -> subprocess.Popen:
    """The same run in its own process, where nothing can reach a network."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK_SOCKETS)
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "",
    }
    command = [sys.executable, str(tmp_path / "script.py"), str(out), *map(str, web)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_without_network_and_after_kill_9_the_same_bytes(web, result, tmp_path):
    out = tmp_path / "out"
    first = in_a_process(tmp_path, web, out)
    deadline = time.monotonic() + 60
    while not list(out.glob(".work/tasks/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.wait()
    assert not (out / "funnel.json").exists()
    begun = time.monotonic()
    while any(_holds(pid, out) for pid in os.listdir("/proc") if pid.isdigit()):
        assert time.monotonic() - begun < 10, "workers outlived their parent"
        time.sleep(0.05)
    second = in_a_process(tmp_path, web, out)
    said = second.communicate(timeout=100)[1]
    assert second.returncode == 0, said
    assert digests(out) == digests(result[0])
    assert list(tmp_path.glob(".cache/*")) == []  # no model, list or cache was put aside


def _holds(pid: str, out: Path) -> bool:
    """Whether a process has a file open under the run's folder."""
    try:
        return any(str(out) in os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def test_the_edge_cases_of_readers_go_through(shared, web, tmp_path):
    edge = sorted((shared / "data" / "warc" / "edge").iterdir())
    stats = filtered([*web, *edge], tmp_path / "out", workers=2)
    assert stats["documents"] >= 31 and stats["files"] == len(edge) + 3


def test_a_killed_worker_is_replaced_and_loses_nothing(web, result, tmp_path):
    out = tmp_path / "out"
    process = in_a_process(tmp_path, web, out)
    deadline = time.monotonic() + 60
    while not (workers := list(out.glob(".work/logs/worker-*.log"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if not killed and _holds(pid, workers[0]):
            os.kill(int(pid), 9)
            killed += 1
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 0 and killed and "begins again" in said, said
    assert digests(out) == digests(result[0])
