"""`llmctl rl` as a whole: it learns, resumes to the same bits, refuses, and stops in time."""

import json
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from llmctl import pipeline
from llmctl.artifacts.store import Draft
from llmctl.core import distributed
from llmctl.core.config import payload_settings
from llmctl.core.distributed import World
from llmctl.core.errors import Mismatch, NoInput, Refused, UsageError
from llmctl.model import hf
from llmctl.model.reward import RewardModel, save_reward_model
from llmctl.reward.judges import finite
from llmctl.train import rl
from llmctl.train.metrics import read_metrics
from llmctl.train.rl_batches import RlBatches
from train.rl_tiny import problems, tiny_format, tiny_policy, write_policy, write_problems

FAST = dict(max_tokens=6, workers=1, lr=3e-3, warmup=0.0, dtype="fp32")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A policy that is right one time in four, and its problems."""
    folder = tmp_path_factory.mktemp("rl")
    torch.set_num_threads(1)
    write_policy(folder / "sft")
    write_problems(folder / "problems.jsonl")
    return folder


def train(place, out, **settings):
    settings = FAST | dict(data=str(place / "problems.jsonl")) | settings
    return pipeline.run("rl", [place / "sft"], out=out, **settings)


def broken(*args):
    raise RuntimeError("killed")


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_reward_rises_and_everything_is_on_record(place, tmp_path):
    some = [p for p in problems() if p.split == "train"][:8]
    held_out = [p for p in problems() if p.split == "test"]
    data = str(write_problems(tmp_path / "eight.jsonl", some + held_out))
    settings = dict(data=data, steps=16, eval_steps=8, group_size=16, lr=4e-3)
    artifact = train(place, tmp_path / "out", **settings)
    assert artifact.stats["start_ids"] == []  # as of the foreign folder it was made from
    rows = read_metrics(tmp_path / "out" / "metrics.jsonl")
    reward = [r["reward"] for r in rows]
    assert sum(reward[-4:]) > sum(reward[:4]) + 0.8, reward
    assert "(drawn; reward" in "".join(r.get("sample", "") for r in rows)
    for key in ("pass_1", "pass_k", "length", "dead", "truncated", "unscored"):
        assert all(key in r for r in rows), key
    for key in ("entropy", "kl", "drift", "rollout_tokens_per_s", "learn_tokens_per_s"):
        assert key in rows[0], key  # of a step in which something could be learned
    assert max(r["drift"] for r in rows if "drift" in r) < 1e-4
    lines = (tmp_path / "out/rollouts/step-000016.jsonl").read_text().splitlines()
    assert len(lines) == 128 and {"prompt", "text", "reward", "advantage"} <= set(
        json.loads(lines[0])
    )
    stats = artifact.stats
    assert stats["steps"] == 16 and stats["stopped"] is None and stats["reward_by"] == "auto"
    assert stats["start_n"] == stats["end_n"] == 8
    evals = sorted(p.name for p in (tmp_path / "out/evals").iterdir())
    assert evals == [f"step-0000{n}.jsonl" for n in ("00", "08", "16")]
    assert artifact.kind == "model" and hf.load_model(tmp_path / "out").config.eos_ids


@pytest.mark.parametrize("settings", [{}, dict(updates=3, kl_coef=0.05, temperature=0.9)])
def test_killed_anywhere_it_ends_with_the_same_bits(place, tmp_path, monkeypatch, settings):
    settings = dict(steps=6, save_steps=2, eval_steps=3) | settings
    train(place, tmp_path / "whole", **settings)
    metrics, fatal = RlBatches.metrics, [4, 2]

    def dying(self, step):
        if fatal and step == fatal[-1]:
            fatal.pop()
            raise RuntimeError("killed")
        return metrics(self, step)

    monkeypatch.setattr(RlBatches, "metrics", dying)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="killed"):
            train(place, tmp_path / "torn", **settings)
    train(place, tmp_path / "torn", **settings)
    assert weights(tmp_path / "torn") == weights(tmp_path / "whole")
    for name in ("rollouts/step-000004.jsonl", "evals/step-000006.jsonl"):
        if (tmp_path / "whole" / name).exists():
            assert (tmp_path / "torn" / name).read_bytes() == (
                tmp_path / "whole" / name
            ).read_bytes()
    assert len(read_metrics(tmp_path / "torn/metrics.jsonl")) == 6


class Counting:
    """A reward that can be gamed: every character counts. Gold wants short answers."""

    def __init__(self, name):
        self.name, self.verdicts = name, False

    def grade_all(self, answers):
        sign = 1.0 if self.name == "reward" else -1.0
        return [finite(sign * len(reply)) for _, reply in answers]


def killed_before_its_commit(place, out, monkeypatch, **settings):
    """What the same command makes of such a run, if no step is done again."""
    with monkeypatch.context() as killing:
        killing.setattr(Draft, "commit", broken)
        with pytest.raises(RuntimeError, match="killed"):
            train(place, out, **settings)
    with monkeypatch.context() as counting:
        counting.setattr(RlBatches, "_sample", broken)
        return train(place, out, **settings)


def test_a_spent_kl_budget_survives_a_kill_before_the_commit(place, tmp_path, monkeypatch):
    settings = dict(steps=12, save_steps=4, eval_steps=6, kl_budget=1e-9)
    made = killed_before_its_commit(place, tmp_path / "torn", monkeypatch, **settings)
    assert made.stats["stopped"] == "kl-budget" and made.stats["steps"] == 5
    assert weights(tmp_path / "torn") != weights(place / "sft")
    assert [p.name for p in (tmp_path / "torn/state").glob("*")] == ["step-00000005"]


def test_an_over_optimised_run_stops_and_keeps_the_best_model(place, tmp_path, monkeypatch):
    monkeypatch.setattr(rl.Reinforcement, "_open_judge", lambda self, reward, name: Counting(name))
    settings = dict(steps=40, eval_steps=3, gold="exact", lr=1e-2)
    artifact = train(place, tmp_path / "out", **settings)
    stats = artifact.stats
    assert stats["stopped"] == "over-optimised" and stats["steps"] < 40
    assert "has risen" in stats["stopped_because"]
    assert stats["model_of_step"] == 0  # gold was best before anything was learned
    assert weights(tmp_path / "out") == weights(place / "sft")
    rows = [r for r in read_metrics(tmp_path / "out/metrics.jsonl") if "eval_gold" in r]
    assert rows[-1]["guard_alarms"] == 2 and rows[-1]["eval_reward"] > rows[0]["eval_reward"]
    settings["steps"] = stats["steps"]  # the last evaluation of the plan is the one that alarms
    again = killed_before_its_commit(place, tmp_path / "torn", monkeypatch, **settings)
    assert {k: again.stats[k] for k in ("stopped", "model_of_step")} == {
        k: stats[k] for k in ("stopped", "model_of_step")
    }


def test_a_dead_batch_changes_no_weight(place, tmp_path, monkeypatch):
    class Same(Counting):
        def grade_all(self, answers):
            return [1.0] * len(answers)

    monkeypatch.setattr(rl.Reinforcement, "_open_judge", lambda self, reward, name: Same(name))
    train(place, tmp_path / "out", steps=3)
    assert weights(tmp_path / "out") == weights(place / "sft")
    assert [r["dead"] for r in read_metrics(tmp_path / "out/metrics.jsonl")] == [1.0] * 3


def test_a_group_of_one_is_refused():
    from llmctl.stages.rl import RlConfig

    with pytest.raises(UsageError, match="group_size=1"):
        RlConfig(group_size=1)
    with pytest.raises(UsageError, match="not a multiple of updates=4"):
        RlConfig(steps=10, updates=4)


def test_what_the_guard_judges_by_is_in_the_fingerprint():
    from llmctl.stages.rl import RlConfig

    found = payload_settings(RlConfig(eval_n=5, eval_steps=3, rollout_rows=4, save_steps=2))
    assert found == {"eval_n": 5, "eval_steps": 3}


def test_a_resumed_run_draws_as_many_answers_at_once_as_it_began_with(place, tmp_path, monkeypatch):
    seen = []

    class Watched(rl.Sampler):
        def __init__(self, *args, max_rows, **options):
            seen.append(max_rows)
            super().__init__(*args, max_rows=max_rows, **options)

    monkeypatch.setattr(rl, "Sampler", Watched)
    with monkeypatch.context() as killing:
        killing.setattr(RlBatches, "metrics", broken)
        with pytest.raises(RuntimeError, match="killed"):
            train(place, tmp_path / "out", steps=1, rollout_rows=4)
    train(place, tmp_path / "out", steps=1, rollout_rows=64)
    assert seen == [4, 4]


def test_a_resumed_run_has_as_much_memory_for_keys_as_it_began_with(
    place, tmp_path, monkeypatch, capsys
):
    seen = []

    class Watched(rl.Sampler):
        def __init__(self, *args, kv_bytes, **options):
            seen.append(kv_bytes)
            super().__init__(*args, kv_bytes=kv_bytes, **options)

    monkeypatch.setattr(rl, "Sampler", Watched)
    monkeypatch.setattr(RlBatches, "metrics", broken)
    for free in (10**9, 3 * 10**9, 10**8):
        monkeypatch.setattr(rl, "free_bytes", lambda device, free=free: free)
        with pytest.raises(RuntimeError, match="killed"):
            train(place, tmp_path / "out", steps=1)
    assert seen[0] == seen[1] < 0.4 * 10**9 and "bit-exact" in capsys.readouterr().err
    assert 0 < seen[2] < 0.4 * 10**8  # it would not fit


def test_code_without_isolation_is_refused_before_any_work(place, tmp_path, monkeypatch):
    sandbox = pytest.importorskip("llmctl.sandbox")
    monkeypatch.setattr(sandbox, "available", lambda: "no kernel for it")
    with pytest.raises(Refused, match="no kernel for it"):
        train(place, tmp_path / "out", reward="python-tests")
    assert not (tmp_path / "out").exists()


def test_prompts_that_ranks_cannot_share_are_refused_however_they_were_started(
    place, tmp_path, monkeypatch
):
    """Plain torchrun leaves nproc at 1."""
    three = World(0, 3, torch.device("cpu"))
    monkeypatch.setattr(distributed, "session", lambda *args: nullcontext(three))
    with pytest.raises(UsageError, match="prompts_per_step=8 cannot be shared by 3 ranks"):
        train(place, tmp_path / "out")


def test_what_does_not_fit_is_refused(place, tmp_path):
    with pytest.raises(UsageError, match="neither a verifier"):
        train(place, tmp_path / "a", reward="nonsense")
    with pytest.raises(NoInput, match="no such file"):
        train(place, tmp_path / "b", data=str(tmp_path / "missing.jsonl"))
    with pytest.raises(NoInput, match="name problems with --data"):
        train(place, tmp_path / "c", data="")
    with pytest.raises(NoInput, match="no problem has difficulty 9"):
        train(place, tmp_path / "d", difficulty=("9",))
    few = write_rankings(tmp_path / "few.jsonl", 4)
    with pytest.raises(NoInput, match="gold=math needs held-out"):
        train(place, tmp_path / "f", data=str(few), reward=str(place / "sft"), gold="math")
    base = write_policy(tmp_path / "base")
    (base / "tokenizer_config.json").write_text("{}")
    with pytest.raises(Mismatch, match="run `llmctl sft`"):
        pipeline.run("rl", [base], out=tmp_path / "e", data=str(place / "problems.jsonl"))


def test_prompts_without_answers_need_a_reward_model(place, tmp_path):
    chat = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": chat}) + "\n")
    with pytest.raises((Mismatch, NoInput)):
        train(place, tmp_path / "out", data=str(path), reward="math")


def write_judge(folder, seed=3):
    """A reward model with random opinions, and rankings whose prompts can be asked."""
    trunk = tiny_policy(seed, steps=0)
    judge = RewardModel(trunk)
    torch.manual_seed(seed)
    torch.nn.init.normal_(judge.score.weight)
    save_reward_model(judge.state_dict(), judge.config, folder, tiny_format().tokenizer, pad_id=0)
    return folder


def write_rankings(path, n=80):
    rows = [
        {"prompt": f"{i}+{i}", "responses": [f"{i}", "12"], "ranks": [1, 2]} for i in range(1, n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_against_a_reward_model_on_the_prompts_of_rankings(place, tmp_path):
    judge, gold = write_judge(tmp_path / "rm"), write_judge(tmp_path / "gold", 4)
    data = write_rankings(tmp_path / "rankings.jsonl")
    settings = dict(data=str(data), reward=str(judge), gold=str(gold), steps=6, eval_steps=3)
    artifact = train(place, tmp_path / "out", **settings, kl_budget=50.0)
    rows = read_metrics(tmp_path / "out/metrics.jsonl")
    assert all("kl_answer" in r and "pass_1" not in r for r in rows)
    assert {"eval_gold", "eval_reward", "guard_proxy_z"} <= set(rows[-1])
    assert artifact.stats["start_gold"] != artifact.stats["start_reward"]
    assert not list((tmp_path / "out/state").glob("reward-*"))  # the copy was for the run only


def test_a_reward_model_is_copied_at_the_start(place, tmp_path, monkeypatch):
    """What happens to the folder afterwards does not change the run."""
    judge = write_judge(tmp_path / "rm")
    data = write_rankings(tmp_path / "rankings.jsonl")
    settings = dict(data=str(data), reward=str(judge), steps=3)
    train(place, tmp_path / "whole", **settings)
    take = RlBatches.take

    def meddling(self, step, micro_batch):
        (judge / "model.safetensors").unlink(missing_ok=True)
        return take(self, step, micro_batch)

    monkeypatch.setattr(RlBatches, "take", meddling)
    train(place, tmp_path / "out", **settings)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_dry_run_says_what_it_would_take(place, capsys):
    given = dict(data=str(place / "problems.jsonl"), max_tokens=6, gpu="H100", price=2.5, steps=4)
    pipeline.dry_run(pipeline.Request(stage="rl", inputs=[str(place / "sft")], overrides=given))
    said = " ".join(capsys.readouterr().err.split())
    assert "answers in all" in said and "256" in said  # 4 steps of 8 problems, 8 answers each
    assert "$2.50 a device hour" in said and "H100" in said and "memory a rank: all" in said
    assert "33% of FLOPs" in said  # drawing is a forward pass, learning is three of them


def test_a_language_model_is_no_reward(place, tmp_path):
    with pytest.raises(Mismatch, match="no reward model"):
        train(place, tmp_path / "out", reward=str(place / "sft"))


def test_kill_9_and_the_same_command_again(place, tmp_path):
    """The process itself, killed as soon as some steps are on record."""
    settings = FAST | dict(data=place / "problems.jsonl", steps=12, save_steps=4, eval_steps=6)
    words = [f"--set={k}={v}" for k, v in settings.items()]
    out = tmp_path / "torn"
    command = [sys.executable, "-m", "llmctl", "rl", str(place / "sft"), "-o", str(out), *words]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while child.poll() is None and len(read_metrics(out / "metrics.jsonl")) < 6:
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL, "it ended before it was killed"
    train(place, out, steps=12, save_steps=4, eval_steps=6)
    train(place, tmp_path / "whole", steps=12, save_steps=4, eval_steps=6)
    assert weights(out) == weights(tmp_path / "whole")
