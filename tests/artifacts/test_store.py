"""The commit protocol: manifest last, locks, refusals that name the difference."""

import subprocess
import sys

import pytest

from llmctl.artifacts.manifest import fingerprint, read_manifest
from llmctl.artifacts.store import Artifact, Draft, open_artifact, open_draft
from llmctl.core.errors import Mismatch, NoInput, OutputBusy
from llmctl.core.files import read_json, write_json


def record(**settings):
    return {
        "stage": "toy",
        "version": 1,
        "fingerprint": fingerprint("toy", 1, settings, []),
        "settings": settings,
        "config": settings,
        "inputs": [],
        "argv": ["llmctl", "toy"],
    }


def make(folder, payload=b"payload", **settings):
    with open_draft(folder, "toy", record(**settings), volatile=("log.txt",)) as draft:
        assert isinstance(draft, Draft)
        (draft.path / "data.bin").write_bytes(payload)
        (draft.path / "log.txt").write_text("took 3 s")
        return draft.commit({"n": 1})


def test_finished_folder_holds_payload_and_manifest_only(tmp_path):
    artifact = make(tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "data.bin",
        "log.txt",
        "manifest.json",
    ]
    assert open_artifact(tmp_path / "a", ("toy",)).id == artifact.id


def test_id_is_of_the_payload_and_not_of_what_varies(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert first.id == second.id
    assert make(tmp_path / "c", b"other").id != first.id
    (tmp_path / "b" / "log.txt").unlink()
    open_artifact(tmp_path / "b", ("toy",))  # a volatile file may go


def test_same_run_is_found_finished(tmp_path):
    make(tmp_path / "a", seed=1)
    with open_draft(tmp_path / "a", "toy", record(seed=1)) as found:
        assert isinstance(found, Artifact)


def test_other_run_is_refused_naming_the_keys(tmp_path):
    make(tmp_path / "a", seed=1)
    with (
        pytest.raises(OutputBusy, match=r"seed \(1 there, 2 here\)"),
        open_draft(tmp_path / "a", "toy", record(seed=2)),
    ):
        pass
    with open_draft(tmp_path / "a", "toy", record(seed=2), force=True) as draft:
        assert not (draft.path / "data.bin").exists()


def test_force_keeps_a_sound_artifact_and_replaces_a_damaged_one(tmp_path):
    make(tmp_path / "a")
    with open_draft(tmp_path / "a", "toy", record(), force=True) as found:
        assert isinstance(found, Artifact)
    (tmp_path / "a" / "data.bin").write_bytes(b"pbyload")
    with open_draft(tmp_path / "a", "toy", record(), force=True) as draft:
        assert isinstance(draft, Draft) and not (draft.path / "data.bin").exists()


def test_unfinished_run_is_resumed_and_not_read(tmp_path):
    with pytest.raises(RuntimeError), open_draft(tmp_path / "a", "toy", record()) as draft:
        draft.remember("threads", 2)
        (draft.path / "part-0").write_text("done")
        raise RuntimeError
    with pytest.raises(NoInput, match="unfinished"):
        open_artifact(tmp_path / "a", ("toy",))
    with open_draft(tmp_path / "a", "toy", record()) as draft:
        assert draft.resuming and (draft.path / "part-0").exists()
        assert draft.remember("threads", 8) == 2


def test_killed_before_its_first_file_is_no_obstacle(tmp_path):
    (tmp_path / "run.json.tmp.12.abcd").write_text("{")
    with open_draft(tmp_path, "toy", record()) as draft:
        assert isinstance(draft, Draft)


def test_emptying_killed_half_way_is_still_replaceable(tmp_path, monkeypatch):
    make(tmp_path / "a", seed=1)

    def killed(*words, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.iterdir", killed)
    with (
        pytest.raises(KeyboardInterrupt),
        open_draft(tmp_path / "a", "toy", record(seed=2), force=True),
    ):
        pass
    monkeypatch.undo()
    with open_draft(tmp_path / "a", "toy", record(seed=2), force=True) as draft:
        assert isinstance(draft, Draft) and not (draft.path / "data.bin").exists()


@pytest.mark.parametrize("checkpoint", [True, False])
def test_discarding_keeps_checkpoints(tmp_path, checkpoint):
    with open_draft(tmp_path / "a", "toy", record()) as draft:
        (draft.path / "half.txt").write_text("half")
        (draft.path / "state").mkdir()
        if checkpoint:
            (draft.path / "state" / "step-00000010").mkdir()
        draft.discard()
    assert (tmp_path / "a").exists() is checkpoint


def test_foreign_folder_is_never_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with (
        pytest.raises(OutputBusy, match="no run of llmctl"),
        open_draft(tmp_path, "toy", record(), force=True),
    ):
        pass
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_second_writer_is_refused_naming_the_holder(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from llmctl.artifacts.store import _lock\n"
        "with _lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    try:
        with (
            pytest.raises(OutputBusy, match=f"pid {holder.pid}"),
            open_draft(tmp_path, "toy", record()),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with open_draft(tmp_path, "toy", record()) as draft:  # a killed holder's lock is free
        assert isinstance(draft, Draft)


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_payload_is_noticed(tmp_path, damage):
    make(tmp_path / "a")
    path = tmp_path / "a" / "data.bin"
    if damage == "cut":
        path.write_bytes(b"payloa")
    elif damage == "flip":
        path.write_bytes(b"pbyload")
    else:
        path.unlink()
    with pytest.raises(Mismatch, match="data.bin"):
        open_artifact(tmp_path / "a", ("toy",))


def test_wrong_kind_and_missing_path(tmp_path):
    make(tmp_path / "a")
    with pytest.raises(Mismatch, match="a toy artifact, but pretrain reads tokens"):
        open_artifact(tmp_path / "a", ("tokens",), reader="pretrain")
    with pytest.raises(NoInput):
        open_artifact(tmp_path / "nothing", ("tokens", "foreign"))


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x"])
def test_manifest_cannot_name_files_outside(tmp_path, name):
    make(tmp_path / "a")
    manifest = read_json(tmp_path / "a" / "manifest.json")
    manifest["files"][0]["name"] = name
    write_json(tmp_path / "a" / "manifest.json", manifest)
    with pytest.raises(Mismatch, match="leaves the folder"):
        read_manifest(tmp_path / "a")


def test_foreign_id_follows_content_not_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("same")
    first = open_artifact(tmp_path / "a", ("foreign",))
    assert first.id == open_artifact(tmp_path / "b", ("foreign",)).id
    (tmp_path / "b" / "x.txt").write_text("other")
    assert first.id != open_artifact(tmp_path / "b", ("foreign",)).id
