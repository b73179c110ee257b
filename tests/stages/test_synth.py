from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmctl.core.errors import UsageError
from llmctl.stages.synth import STAGE, SynthConfig, dry_run, run
from llmctl.synth.plan import Shares
from llmctl.web.plan import Settings


def test_run_fills_the_folder_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = SynthConfig(pages=300, facts=20, workers=1)
    stats = run(config, [], SimpleNamespace(path=tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    tables = {"truth", "facts", "textbook", "conversations", "preferences", "problems"}
    tables |= {"quizzes"}
    assert names == {"warc"} | {f"{name}.parquet" for name in tables}
    assert stats["pages"] == 300 and stats["classes"]["blocked"] == 12
    out = capsys.readouterr()
    assert out.out == "" and "near_duplicate" in out.err


def test_dry_run_says_how_much(capsys: pytest.CaptureFixture[str]):
    dry_run(SynthConfig(size_mb=1000, workers=2), [])
    told = capsys.readouterr().err
    assert "WARC" in told and "256" in told


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size_mb": 0.0}, "size_mb=0"),
        ({"pages": 7}, "pages=7"),
        ({"facts": 5000}, "facts=5,000"),
        ({"blocked": 1.5}, "blocked=1.5"),
        ({"thin": 0.5, "foreign": 0.4}, "leave at least"),
        ({"exact_duplicate": 0.3}, "copies"),
        ({"workers": -1}, "workers=-1"),
    ],
)
def test_nonsense_is_refused(settings: dict, words: str):
    with pytest.raises(UsageError, match=words):
        SynthConfig(**settings)


def test_the_stage_reads_nothing_and_writes_a_web():
    assert (STAGE.name, STAGE.reads, STAGE.writes) == ("synth", (), "web")


@pytest.mark.parametrize("values", [Shares, Settings])
def test_defaults_stand_in_the_stages_alone(values):
    assert all(field.default is dataclasses.MISSING for field in dataclasses.fields(values))
