"""Tuning's own part of the loop: any batches, steps without targets, extra columns, resume."""

import json
from dataclasses import dataclass

import pytest
import torch

from llmctl.artifacts.store import Draft
from llmctl.core.distributed import World
from llmctl.core.errors import UsageError
from llmctl.train.meter import Column
from llmctl.train.metrics import read_metrics
from llmctl.train.settings import TuningConfig
from llmctl.train.tuning import Tuning

from . import tiny

WORLD = World(0, 1, torch.device("cpu"))


@dataclass
class Numbers:
    """A micro-batch that is nothing like pretraining's."""

    ids: torch.Tensor
    keep: bool

    def to(self, device):
        return Numbers(self.ids.to(device), self.keep)


class Draws:
    """Rows of counted ids; the steps in `empty` have no target at all."""

    def __init__(self, empty=(), none=()):
        self.empty, self.none = empty, none

    def take(self, step, micro_batch):
        if step in self.none:
            return
        generator = torch.Generator().manual_seed(step)
        start = torch.randint(1, 20, (4, 1), generator=generator)
        for part in (start + torch.arange(8)).split(micro_batch):
            yield Numbers(part, step not in self.empty)

    def describe(self, step):
        return {"step": step}

    def tokens(self, step):
        return 32

    def metrics(self, step):
        return {"half": step / 2}


def loss_of(model):
    def loss_fn(batch):
        logits = model(batch.ids[:, :-1]).flatten(0, 1)
        targets = batch.ids[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        keep = float(batch.keep)
        return loss * keep, torch.tensor(targets.numel() * keep)

    return loss_fn


def tune(folder, batches, model=None, **settings):
    folder.mkdir(exist_ok=True)
    run = {"fingerprint": "x"}
    if (folder / "run.json").exists():
        run = json.loads((folder / "run.json").read_text())
    given = {"lr": 1e-2, "workers": 1, "dtype": "fp32", **settings}
    tuning = Tuning(
        TuningConfig(**given),
        Draft(folder, "model", False, run),
        WORLD,
        shape=tiny.SHAPE,
        steps=8,
        tokens_per_step=32,
        seq_len=8,
        rows_per_step=4,
        facts={"data": "draws"},
    )
    model = model or tiny.model()
    loop = tuning.fit(
        model, batches, loss_of(model), meter_columns=[Column("half", 6, "half", ".1f")]
    )
    return loop, tiny.bits(model)


def test_any_batches_train_and_their_metrics_are_shown(tmp_path, capsys):
    tune(tmp_path, Draws())
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert [r["half"] for r in rows] == [s / 2 for s in range(8)]
    assert {r["targets"] for r in rows} == {28}
    assert "half" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["empty", "none"])
def test_a_step_without_targets_changes_nothing_and_is_no_nan(tmp_path, how):
    model, seen = tiny.model(), []
    batches = Draws(**{how: (3,)})
    plain = batches.metrics
    batches.metrics = lambda step: (seen.append(tiny.bits(model)), plain(step))[1]
    loop, _ = tune(tmp_path, batches, model, weight_decay=0.1)
    assert tiny.same(seen[2], seen[3]) and not tiny.same(seen[3], seen[4])
    row = read_metrics(tmp_path / "metrics.jsonl")[3]
    assert (row["step"], row["loss"], row["targets"]) == (4, None, 0)
    assert loop.state.skipped == [] and loop.state.step == 8


def test_a_run_cut_at_a_checkpoint_goes_on_to_the_same_bits(tmp_path):
    _, whole = tune(tmp_path / "whole", Draws(), save_steps=3)

    class Cut(Draws):
        def take(self, step, micro_batch):
            if step == 5:
                raise RuntimeError("power")
            return super().take(step, micro_batch)

    with pytest.raises(RuntimeError):
        tune(tmp_path / "parts", Cut(), save_steps=3)
    _, parts = tune(tmp_path / "parts", Draws(), save_steps=3)
    assert tiny.same(parts, whole)


def test_rows_that_ranks_cannot_share_are_refused(tmp_path):
    world = World(0, 3, torch.device("cpu"))
    with pytest.raises(UsageError, match="4 rows a step cannot be shared by 3 ranks"):
        Tuning(
            TuningConfig(),
            Draft(tmp_path, "model", False, {}),
            world,
            shape=tiny.SHAPE,
            steps=8,
            tokens_per_step=32,
            seq_len=8,
            rows_per_step=4,
            facts={},
        )


def test_shares_of_the_run_are_checked():
    with pytest.raises(UsageError, match=r"warmup=0.5 and decay=0.8"):
        TuningConfig(warmup=0.5, decay=0.8)
    with pytest.raises(UsageError, match="lr must not be negative"):
        TuningConfig(lr=-1.0)
