"""Files of conversations: private, whole, never through a link."""

import json
import os
import stat

import pytest

from llmctl.chat import store
from llmctl.core.errors import BadInput, NoInput, Refused, UsageError


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_private_and_replaced_whole(tmp_path):
    path = tmp_path / "talk.jsonl"
    path.write_text("old")
    path.chmod(0o644)
    store.write_row(path, {"messages": [], "half": "\ud83d"})
    assert mode(path) == 0o600 and store.read_rows(path) == [{"messages": [], "half": "?"}]
    assert [p.name for p in tmp_path.iterdir()] == ["talk.jsonl"]


def test_links_and_folders_are_refused(tmp_path):
    (tmp_path / "secret").write_text("mine")
    link = tmp_path / "talk"
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(Refused, match="symbolic link"):
        store.write_row(link, {})
    assert (tmp_path / "secret").read_text() == "mine"
    with pytest.raises(UsageError, match="folder"):
        store.write_row(tmp_path, {})


def test_reading_one_object_many_lines_or_many_objects(tmp_path):
    path = tmp_path / "x"
    for text, rows in (
        ('{"a":\n 1}', [{"a": 1}]),
        ("[NaN, 1e999, 0.5]", [None, None, 0.5]),
        ('{"a":1}\n\n{"a":2}\n', [{"a": 1}, {"a": 2}]),
    ):
        path.write_text(text)
        assert store.read_rows(path) == rows


@pytest.mark.parametrize(
    ("raw", "error", "said"),
    [
        (b"", NoInput, "nothing in it"),
        (b'{"a":1}\n{', BadInput, "line 2"),
        (b"\xff\xfe", BadInput, "byte 0"),
        (b"[" * 100_000, BadInput, "line 1"),
    ],
)
def test_bad_files_are_named(tmp_path, raw, error, said):
    path = tmp_path / "x"
    path.write_bytes(raw)
    with pytest.raises(error, match=said):
        store.read_rows(path)


def test_no_file_a_pipe_and_a_giant_are_refused(tmp_path):
    with pytest.raises(NoInput):
        store.read_rows(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="regular"):
        store.read_rows(tmp_path / "pipe")
    with open(tmp_path / "big", "wb") as file:
        file.truncate(store.SIZE_LIMIT + 1)
    with pytest.raises(BadInput, match="at most"):
        store.read_rows(tmp_path / "big")


def test_a_transcript_is_left_to_who_wrote_it_last(tmp_path):
    one = store.Transcript(tmp_path, "some/model dir")
    first = one.write({"n": 1})
    assert one.write({"n": 2}) == first and "model_dir" in first.name
    os.utime(first, (1, 1))  # somebody else has written it
    second = one.write({"n": 3})
    assert second != first and json.loads(first.read_text()) == {"n": 2}


def test_the_latest_with_a_model_is_found_by_its_id(tmp_path):
    for number, id in enumerate(["a", "b", "a", "c"]):
        path = tmp_path / f"{number}.jsonl"
        store.write_row(path, {"chat": {"model": {"id": id}}})
        os.utime(path, (number, number))
    (tmp_path / "9.jsonl").write_text("torn")
    assert store.latest(tmp_path, "a").name == "2.jsonl"
    assert store.latest(tmp_path, "z") is None


def test_history_is_private_and_survives_anything(tmp_path):
    path = tmp_path / "history"
    history = store.History(path)
    assert history.load() == []
    history.append("one\ntwo")
    history.append("three \ud83d")
    with open(path, "ab") as file:
        file.write(b'{"no": 1}\n"torn')
    assert store.History(path).load() == ["one\ntwo", "three \ud83d"] and mode(path) == 0o600
    link = tmp_path / "link"
    link.symlink_to(path)
    linked = store.History(link)
    linked.append("x")
    assert "not kept" in linked.trouble and linked.load() == []
    assert len(store.History(path).load()) == 2


def test_the_state_folder_is_closed_to_others(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert mode(store.state_folder()) == 0o700
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # the standard: to be ignored
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert store.state_folder() == tmp_path / "home/.local/state/llmctl/chat"
