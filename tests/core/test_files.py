"""Files appear whole or not at all."""

import pytest

from llmctl.core import console
from llmctl.core.errors import Mismatch
from llmctl.core.files import atomic_write, read_json, remove_temporaries, write_json


def test_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), atomic_write(path) as handle:
        handle.write(b"half")
        raise RuntimeError
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_leftovers_are_removed_and_files_kept(tmp_path):
    (tmp_path / "a.bin.tmp.12.abcd").write_bytes(b"x")
    (tmp_path / "a.bin").write_bytes(b"x")
    remove_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_damaged_json_is_a_mismatch(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(Mismatch):
        read_json(tmp_path / "a.json")


def test_terminal_controls_become_visible():
    hostile = "a\x1b]0;title\x07b\x9bc\u202ed\te\n"
    assert console.printable(hostile) == "a\\x1b]0;title\\x07b\\x9bc<U+202E>d\te\n"
