"""Checkpoints: whole or not there, the newest good one wins, a full disk keeps the old ones."""

import shutil
from collections import namedtuple

import pytest
import torch

from llmctl.artifacts import checkpoint as module
from llmctl.artifacts.checkpoint import MARKER, Checkpoints, copy_into, read_tensors
from llmctl.core.errors import IoError_, Mismatch


def save(checkpoints, step, **options):
    parts = {"model": {"w": torch.full((4,), float(step))}, "optimizer": {}}
    return checkpoints.save(step, parts, {"seed": 5}, **options)


def test_what_was_saved_comes_back(tmp_path):
    save(Checkpoints(tmp_path), 3)
    newest = Checkpoints(tmp_path).latest()
    assert (newest.step, newest.loop) == (3, {"step": 3, "seed": 5})
    assert newest.tensors("model")["w"].tolist() == [3.0] * 4


def test_the_last_two_stay_and_kept_ones_beside_them(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, 6):
        save(checkpoints, step, kept=step == 2)
    assert [c.step for c in checkpoints] == [2, 4, 5]


def test_without_its_marker_a_checkpoint_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    (save(checkpoints, 2) / MARKER).unlink()
    assert checkpoints.latest().step == 1
    checkpoints.clean()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("file", ["model.safetensors", "loop.json", MARKER])
@pytest.mark.parametrize("how", ["flip", "cut"])
def test_a_damaged_newest_is_set_aside_for_the_one_before(tmp_path, capsys, file, how):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    path = save(checkpoints, 2) / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data if how == "flip" else data[: len(data) // 2])
    assert checkpoints.latest().step == 1
    assert "step-00000002.corrupt" in capsys.readouterr().err
    assert (tmp_path / "step-00000002.corrupt").is_dir()


def test_all_damaged_is_said(tmp_path):
    path = save(Checkpoints(tmp_path), 1) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Mismatch, match="all 1 checkpoints are corrupt"):
        Checkpoints(tmp_path).latest()


def test_too_little_room_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    usage = namedtuple("usage", "total used free")(1, 1, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(IoError_, match="takes 1.0 MB, 100 B are free"):
        save(checkpoints, 2)
    assert [c.step for c in checkpoints] == [1]


def test_a_disk_that_fills_up_leaves_nothing_torn(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)

    def full(tensors, path):
        path.write_bytes(b"torn")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(IoError_, match="no space left"):
        save(checkpoints, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_a_checkpoint_with_nan_is_evidence_not_state(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    save(checkpoints, 2, suffix=".nan")
    checkpoints.clean()
    assert checkpoints.latest().step == 1
    assert (tmp_path / "step-00000002.nan").is_dir()


def test_garbage_is_no_traceback(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(Mismatch, match="not a whole safetensors file"):
        read_tensors(tmp_path / "x.safetensors")


def test_other_shapes_are_listed():
    target = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(Mismatch, match=r"b is missing; c is unknown; a is \(4,\), wanted \(2,\)"):
        copy_into(target, {"a": torch.zeros(4), "c": torch.zeros(1)}, "here")
