"""The loop: whatever happens to a run, it ends with the same bits or says why not."""

import dataclasses
import os
import signal

import pytest
import torch

from llmctl.core.errors import Cancelled, Diverged, Interrupted, Mismatch
from llmctl.train.loop import Hook
from llmctl.train.metrics import read_metrics

from . import tiny


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run: its weights and its losses."""
    loop = tiny.loop(tmp_path_factory.mktemp("straight"))
    loop.run()
    rows = read_metrics(loop.folder / "metrics.jsonl")
    return tiny.bits(loop.model), [r["loss"] for r in rows]


def at(step, action):
    """A hook that acts once, after the given step."""
    return [Hook(1, lambda done: action() if done == step else None)]


def test_it_learns(straight):
    losses = straight[1]
    assert len(losses) == 12 and losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("moment", [1, 5, 8, 10])
def test_stopped_and_started_again_gives_the_same_bits(tmp_path, straight, moment):
    first = tiny.loop(tmp_path)
    first.hooks = at(moment, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="SIGTERM; state saved at step"):
        first.run()
    assert first.state.step <= moment + 1
    second = tiny.loop(tmp_path)
    second.run()
    assert tiny.same(tiny.bits(second.model), straight[0])
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in rows] == list(range(1, 13))
    assert [r["loss"] for r in rows] == straight[1]


def test_a_crash_between_checkpoints_loses_only_time(tmp_path, straight):
    def crash():
        raise RuntimeError("power")

    first = tiny.loop(tmp_path)
    first.hooks = at(7, crash)  # the last checkpoint is of step 4
    with pytest.raises(RuntimeError):
        first.run()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "lo')  # and half a line
    second = tiny.loop(tmp_path)
    second.run()
    assert tiny.same(tiny.bits(second.model), straight[0])
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 13))


def test_a_corrupt_checkpoint_costs_the_steps_since_the_one_before(tmp_path, straight):
    first = tiny.loop(tmp_path)
    first.hooks = at(10, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(Interrupted):
        first.run()
    newest = max((tmp_path / "state").glob("step-*"))
    path = newest / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    second = tiny.loop(tmp_path)
    second.run()
    assert tiny.same(tiny.bits(second.model), straight[0])
    assert newest.with_name(newest.name + ".corrupt").is_dir()


def test_ctrl_c_saves_and_has_its_own_code(tmp_path):
    loop = tiny.loop(tmp_path)
    loop.hooks = at(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Cancelled, match="Ctrl-C; state saved at step 3 of 12"):
        loop.run()
    assert [c.step for c in loop.checkpoints] == [3]


def test_the_time_limit_is_a_stop(tmp_path):
    with pytest.raises(Interrupted, match="the time limit"):
        tiny.loop(tmp_path, max_minutes=1e-9).run()


@pytest.mark.parametrize("micro_batch", [1, 4, 16])
def test_micro_batches_do_not_change_the_result(tmp_path, straight, micro_batch):
    loop = tiny.loop(tmp_path, micro_batch=micro_batch)
    loop.run()
    losses = [r["loss"] for r in read_metrics(tmp_path / "metrics.jsonl")]
    assert losses == pytest.approx(straight[1], rel=1e-4)


def test_lanes_do_not_change_the_result_and_repeat_it_exactly(tmp_path, straight):
    runs = [tiny.loop(tmp_path / str(i), lanes=2) for i in range(2)]
    for run in runs:
        run.run()
    assert tiny.same(tiny.bits(runs[0].model), tiny.bits(runs[1].model))
    losses = [r["loss"] for r in read_metrics(tmp_path / "0" / "metrics.jsonl")]
    assert losses == pytest.approx(straight[1], rel=1e-4)


def test_muon_learns_and_resumes_to_the_same_bits(tmp_path):
    whole = tiny.loop(tmp_path / "whole", kind="muon")
    whole.run()
    first = tiny.loop(tmp_path / "parts", kind="muon")
    first.hooks = at(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        first.run()
    second = tiny.loop(tmp_path / "parts", kind="muon")
    second.run()
    assert tiny.same(tiny.bits(second.model), tiny.bits(whole.model))
    losses = [r["loss"] for r in read_metrics(tmp_path / "whole" / "metrics.jsonl")]
    assert losses[-1] < 0.8 * losses[0]


def poisoned(transformer, bad_steps, calls):
    """A loss that is NaN in some steps (four micro-batches each)."""
    plain = tiny.loss_of(transformer)

    def loss_fn(batch):
        calls.append(1)
        loss, count = plain(batch)
        return (loss * float("nan") if (len(calls) - 1) // 4 in bad_steps else loss), count

    return loss_fn


def test_a_nan_step_changes_nothing(tmp_path):
    transformer, seen = tiny.model(), []
    loop = tiny.loop(tmp_path, model=transformer, loss_fn=poisoned(transformer, {2}, []))
    loop.hooks = [Hook(1, lambda done: seen.append(tiny.bits(transformer)))]
    loop.run()
    assert loop.state.skipped == [2]
    assert tiny.same(seen[1], seen[2]) and not tiny.same(seen[2], seen[3])
    assert read_metrics(tmp_path / "metrics.jsonl")[2]["loss"] is None


def test_too_many_nan_steps_end_the_run_with_the_last_good_state(tmp_path):
    transformer = tiny.model()
    loss_fn = poisoned(transformer, {4, 5, 6, 7}, [])
    loop = tiny.loop(tmp_path, model=transformer, loss_fn=loss_fn)
    with pytest.raises(Diverged, match="4 of the last 100 steps had no finite gradient"):
        loop.run()
    assert [c.step for c in loop.checkpoints] == [4]
    assert all(torch.isfinite(v).all() for v in loop.checkpoints.latest().tensors("model").values())
    assert len(list((tmp_path / "state").glob("diverged-*.json"))) == 1


def test_nan_weights_are_never_a_good_checkpoint(tmp_path):
    transformer = tiny.model()
    loop = tiny.loop(tmp_path, model=transformer)

    def poison():
        torch.nn.init.constant_(transformer.head_weight, float("nan"))

    loop.hooks = at(8, poison)
    with pytest.raises(Diverged, match="weight is not a finite number"):
        loop.run()
    assert [c.step for c in loop.checkpoints] == [4]
    assert (tmp_path / "state" / "step-00000008.nan").is_dir()


def test_another_runs_state_is_refused_by_name(tmp_path):
    tiny.loop(tmp_path).run()
    other = tiny.loop(tmp_path)
    other.settings = dataclasses.replace(other.settings, facts={"seed": 1})
    with pytest.raises(Mismatch, match=r"seed \(0 there, 1 here\)"):
        other.run()


def test_a_finished_run_trained_on_equals_one_long_run(tmp_path):
    long = tiny.loop(tmp_path / "long", steps=20)
    short = tiny.loop(tmp_path / "short", steps=12)
    short.plan = dataclasses.replace(short.plan, warmup_steps=long.plan.warmup_steps)
    long.run()
    short.run()
    more = tiny.loop(tmp_path / "more", steps=20)
    more.start = next(c for c in short.checkpoints if c.kept)
    more.run()
    assert more.start.step == short.plan.stable_end
    assert tiny.same(tiny.bits(more.model), tiny.bits(long.model))


def test_a_loss_spike_is_counted(tmp_path, capsys):
    loop = tiny.loop(tmp_path)
    loop.state.losses = [1.0, 1.1] * 64
    loop._watch(1.3)
    assert loop.state.spikes == 0
    loop._watch(9.0)
    assert loop.state.spikes == 1 and "loss spike" in capsys.readouterr().err
