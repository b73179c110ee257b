"""What happens around a stage, tried with a toy stage: reuse, refusal, pipes, the default input."""

from dataclasses import dataclass

import pytest

from llmctl import pipeline
from llmctl.core.config import setting
from llmctl.core.errors import Mismatch, NoInput, UsageError
from llmctl.core.stage import Stage
from llmctl.launch import find_inputs


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    times: int = setting(1, "copies")
    extra: str = setting("", "a further input file")
    workers: int = setting(0, "processes", payload=False)


def run_toy(config, inputs, draft):
    text = "".join(i.files()[0].read_text() for i in inputs)
    (draft.path / "copy.txt").write_text(text * config.times)
    return {"bytes": len(text)}


TOY = Stage(
    name="toy",
    version=1,
    summary="copies",
    config=ToyConfig,
    run=run_toy,
    reads=("toys", "foreign"),
    writes="toys",
    upstream="maker",
    many=True,
    path_settings=("extra",),
)


def make_seed(config, inputs, draft):
    (draft.path / "made.txt").write_text("made")
    return {}


MAKER = Stage(
    name="maker", version=1, summary="makes", config=ToyConfig, run=make_seed, writes="toys"
)


@pytest.fixture(autouse=True)
def toys(monkeypatch, tmp_path):
    stages = {"toy": TOY, "maker": MAKER}
    monkeypatch.setattr(pipeline, "load_stage", stages.__getitem__)
    monkeypatch.setattr(pipeline.settings, "read_recipe", lambda name, known: {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("hello ")
    (tmp_path / "in2.txt").write_text("world ")


def test_same_command_twice_gives_the_same_folder_at_once(capsys):
    first = pipeline.run("toy", "in.txt")
    before = (first.path / "manifest.json").stat().st_mtime_ns
    again = pipeline.run("toy", "in.txt", workers=7)
    assert again.path == first.path and again.id == first.id
    assert (again.path / "manifest.json").stat().st_mtime_ns == before
    assert "already there" in capsys.readouterr().err


def test_settings_inputs_and_side_inputs_change_the_folder(tmp_path):
    paths = {pipeline.run("toy", "in.txt").path, pipeline.run("toy", "in.txt", times=2).path}
    paths.add(pipeline.run("toy", ["in.txt", "in2.txt"]).path)
    paths.add(pipeline.run("toy", "in.txt", extra="in2.txt").path)
    (tmp_path / "in2.txt").write_text("other")
    paths.add(pipeline.run("toy", "in.txt", extra="in2.txt").path)
    assert len(paths) == 5


def test_moving_the_input_changes_nothing(tmp_path):
    first = pipeline.run("toy", "in.txt")
    (tmp_path / "in.txt").rename(tmp_path / "moved.txt")
    assert pipeline.run("toy", "moved.txt").path == first.path


def test_nothing_given_takes_the_default_and_records_it():
    made = pipeline.run("toy")
    assert (made.path / "copy.txt").read_text() == "made"
    assert [i["kind"] for i in made.inputs] == ["toys"]
    assert pipeline.existing_default(TOY).path.name.startswith("maker-")


def test_quoted_pattern_is_expanded_in_order(tmp_path):
    both = pipeline.run("toy", "in*.txt")
    assert (both.path / "copy.txt").read_text() == "hello world "
    with pytest.raises(NoInput, match="no file matches"):
        pipeline.run("toy", "out*.txt")


def test_input_named_twice_is_read_once(capsys):
    both = pipeline.run("toy", ["in.txt", "in.txt"])
    assert (both.path / "copy.txt").read_text() == "hello "
    assert "named twice" in capsys.readouterr().err


def test_failing_stage_leaves_no_manifest(monkeypatch):
    def fail(config, inputs, draft):
        (draft.path / "half.txt").write_text("half")
        raise Mismatch("no")

    stage = Stage(**{**vars(TOY), "run": fail})
    monkeypatch.setattr(pipeline, "load_stage", {"toy": stage}.__getitem__)
    with pytest.raises(Mismatch):
        pipeline.run("toy", "in.txt", out="o")
    with pytest.raises(NoInput, match="unfinished"):
        pipeline.open_artifact("o", ("toys",))


def test_hopeless_run_leaves_nothing(monkeypatch, tmp_path):
    def refuse(config, inputs, draft):
        (draft.path / "half.txt").write_text("half")
        raise UsageError("no")

    stage = Stage(**{**vars(TOY), "run": refuse})
    monkeypatch.setattr(pipeline, "load_stage", {"toy": stage}.__getitem__)
    with pytest.raises(UsageError):
        pipeline.run("toy", "in.txt", out="o")
    assert not (tmp_path / "o").exists()


def test_full_disk_names_the_place(monkeypatch):
    def fill(config, inputs, draft):
        raise OSError(28, "No space left on device")

    stage = Stage(**{**vars(TOY), "run": fill})
    monkeypatch.setattr(pipeline, "load_stage", {"toy": stage}.__getitem__)
    with pytest.raises(OSError) as raised:
        pipeline.run("toy", "in.txt", out="o")
    assert raised.value.filename == "o"


def test_output_without_input_is_refused(monkeypatch):
    monkeypatch.setattr("llmctl.launch.stdin_is_pipe", lambda: False)
    assert find_inputs(TOY, [], None) is None
    assert find_inputs(TOY, ["a"], "o") == ["a"]
    with pytest.raises(UsageError, match="no INPUT"):
        find_inputs(TOY, [], "o")
    with pytest.raises(UsageError, match="empty"):
        find_inputs(TOY, [""], "o")


def test_pipe_under_torchrun_is_refused(monkeypatch):
    monkeypatch.setattr("llmctl.launch.stdin_is_pipe", lambda: True)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="--nproc"):
        find_inputs(TOY, [], None)


def test_what_varies_stays_outside_the_id_also_with_ranks(monkeypatch):
    def run_timed(config, inputs, draft):
        (draft.path / "copy.txt").write_text("same")
        (draft.path / "log.txt").write_text(str(next(clock)))
        return {}

    clock = iter(range(10))
    stage = Stage(**{**vars(TOY), "run": run_timed, "volatile": ("log.txt",)})
    monkeypatch.setattr(pipeline, "load_stage", {"toy": stage}.__getitem__)
    first = pipeline.run("toy", "in.txt", out="a")
    monkeypatch.setattr(ToyConfig, "nproc", 2, raising=False)
    monkeypatch.setattr(
        "llmctl.core.ranks.start_ranks", lambda n, task, folder: pipeline.run_rank(task)
    )
    second = pipeline.run("toy", "in.txt", out="b")
    assert first.id == second.id


def test_remote_input_is_for_stages_that_read_it():
    with pytest.raises(UsageError, match="reads local files"):
        pipeline.run("toy", "https://a.example/x.txt")


def test_plain_word_is_never_taken_for_a_folder_of_that_name(tmp_path):
    before = pipeline.run("toy", "in.txt", extra="gpt2").path
    (tmp_path / "gpt2").mkdir()
    assert pipeline.run("toy", "in.txt", extra="gpt2").path == before


def test_command_shown_to_users_asks_for_the_same_run():
    words = pipeline.Request(stage="toy", inputs=["a"], overrides={"pii": ("x,y", "z")}).argv()
    assert words == ["llmctl", "toy", "a", "--pii", "x,y", "--pii", "z"]
    assert pipeline.Request(stage="toy", overrides={"pii": ()}).argv()[2:] == ["--set", "pii="]
