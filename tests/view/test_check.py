"""`inspect --check` opens a model in transformers as what it is; `inspect` lists runs."""

import pytest
import torch

from llmctl.artifacts.store import Artifact, open_draft
from llmctl.core.errors import Mismatch, NoInput
from llmctl.model.hf import load_model
from llmctl.model.reward import RewardModel, save_reward_model
from llmctl.pipeline import run
from llmctl.view.check import check
from llmctl.view.runs import list_runs
from train import chats


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return chats.base_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def reward_model(base, tmp_path):
    """A random reward model, as llmctl rm writes it."""
    model = RewardModel(load_model(base))
    torch.manual_seed(0)
    model.score.weight.data.normal_()
    save_reward_model(model.state_dict(), model.config, tmp_path / "rm", base, pad_id=0)
    return tmp_path / "rm"


def test_logits_are_compared(base):
    pytest.importorskip("transformers")
    assert check(Artifact(base, "foreign"))[-1].startswith("opens in transformers with our logits")


def test_a_reward_model_s_scores_are_compared(reward_model, monkeypatch):
    pytest.importorskip("transformers")
    artifact = Artifact(reward_model, "foreign")
    assert check(artifact)[-1].startswith("opens in transformers with our scores")
    monkeypatch.setattr(RewardModel, "forward", lambda self, ids: torch.full((1,), 1e3))
    with pytest.raises(Mismatch, match="scores differ from transformers' by"):
        check(artifact)


def test_inspect_checks_a_reward_model(reward_model, capsys):
    pytest.importorskip("transformers")
    run("inspect", reward_model, check=True)
    assert "ok: opens in transformers with our scores" in capsys.readouterr().out


def begin(folder, stage, finish):
    """A run's folder, finished or not."""
    record = {"stage": stage, "version": 1, "fingerprint": stage, "settings": {}, "config": {}}
    with open_draft(folder, "model", record | {"inputs": [], "argv": []}) as draft:
        if finish:
            draft.commit({})


def test_a_list_of_runs_leaves_out_what_lies_inside_an_artifact(tmp_path):
    begin(tmp_path / "story" / "rm", "rm", True)
    begin(tmp_path / "story" / "rm" / "state" / "fold-1", "rm", False)
    begin(tmp_path / "rl", "rl", False)
    begin(tmp_path / "rl" / "state" / "reward-0", "rm", True)
    lines = [line.split()[:3] for line in list_runs(tmp_path).split("\n") if str(tmp_path) in line]
    assert sorted(lines) == [
        [str(tmp_path / "rl"), "rl", "unfinished"],
        [str(tmp_path / "story" / "rm"), "rm", "model"],
    ]


def test_no_runs_and_no_folder(tmp_path):
    assert list_runs(tmp_path) == f"{tmp_path}: no runs"
    with pytest.raises(NoInput, match="no such folder"):
        list_runs(tmp_path / "absent")
