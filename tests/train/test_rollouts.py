"""Answers drawn, graded and compared: draws are repeatable, odd rewards stay out."""

import json
import math

import pytest
import torch

from llmctl.artifacts.checkpoint import Checkpoints
from llmctl.core.distributed import World
from llmctl.core.errors import Diverged, Mismatch
from llmctl.infer.completion import CallRecord, Completion
from llmctl.reward.judges import VerifierJudge, finite
from llmctl.train.policy_loss import Objective
from llmctl.train.rl_batches import Drawing, RlBatches
from llmctl.train.rl_rows import PolicyLoss, micro_batches
from llmctl.train.rl_watch import Finished, Watch
from llmctl.train.rollouts import Grading, Group, Rollout, Sampler, grade, measures, summary

from .rl_tiny import problems, tiny_format, tiny_policy

PROBLEMS = [p for p in problems() if p.split == "train"]


class Fixed:
    """Gives rewards from a list, whatever is said."""

    name, verdicts = "fixed", True

    def __init__(self, rewards):
        self.rewards = list(rewards)

    def grade_all(self, answers):
        return [finite(self.rewards[i % len(self.rewards)]) for i in range(len(answers))]


def answers(n=4, finish="stop"):
    return [Rollout([1, 2], [True, True], [-1.0, -1.0], "x", "x", finish) for _ in range(n)]


def graded(rewards, **options):
    group = Group(0, [1], answers(len(rewards), options.pop("finish", "stop")))
    grade([group], PROBLEMS, Grading(Fixed(rewards), **options))
    return group


def sampler(model=None, lanes=1, dtype=torch.float32):
    return Sampler(model or tiny_policy(), tiny_format(), dtype=dtype, lanes=lanes)


def prompts():
    return [tiny_format().render(p.prompt, generation=True).ids for p in PROBLEMS]


def batches(folder, judge=None, model=None, **drawing):
    facts = dict(prompts_per_step=4, group_size=4, max_tokens=4, seed=7) | drawing
    judge = judge or VerifierJudge("math", PROBLEMS)
    return RlBatches(
        PROBLEMS, prompts(), sampler(model), Grading(judge), Drawing(**facts), Objective(),
        world=World(0, 1, torch.device("cpu")), folder=folder, seq_len=32, shared=True,
    )  # fmt: skip


@pytest.mark.parametrize("odd", [None, math.nan, math.inf, "1.0", [1.0]])
def test_a_reward_that_is_no_number_is_masked_and_counted(odd):
    group = graded([1.0, 0.0, 0.0, 0.0, 1.0, odd])
    assert [r.trained for r in group.rollouts] == [True] * 5 + [False]
    assert group.rollouts[-1].advantage == 0 and group.rollouts[0].advantage > 0
    assert sum(r.advantage for r in group.rollouts) == pytest.approx(0, abs=1e-9)
    row = summary(measures([group], Fixed([])))
    assert row["unscored"] == pytest.approx(1 / 6) and row["reward"] == pytest.approx(0.4)


def test_too_many_of_them_end_the_run():
    with pytest.raises(Diverged, match="2 of 4 answers"):
        graded([1.0, 0.0, None, math.nan])


def test_equal_rewards_are_dead_and_not_trained_on():
    group = graded([1.0, 1.0, 1.0])
    assert group.dead and not any(r.trained for r in group.rollouts)
    assert summary(measures([group], Fixed([])))["dead"] == 1


def test_overlong_answers_are_graded_masked_or_penalised():
    for overlong, reward, trained in (
        ("none", 1.0, True),
        ("mask", 1.0, False),
        ("penalty", 0.0, True),
    ):
        group = Group(0, [1], [*answers(1, "length"), *answers(2)])
        grade([group], PROBLEMS, Grading(Fixed([1.0, 0.0, 1.0]), overlong=overlong))
        assert (group.rollouts[0].reward, group.rollouts[0].trained) == (reward, trained)
        assert group.rollouts[0].score == 1.0  # pass@1 does not see the penalty


def test_the_same_step_draws_the_same_answers(tmp_path):
    first, second = batches(tmp_path / "a"), batches(tmp_path / "b")
    list(first.take(0, 4))
    list(first.take(3, 4))
    list(second.take(3, 4))  # without having drawn any other step
    path = "rollouts/step-000004.jsonl"
    assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    rows = [json.loads(line) for line in open(tmp_path / "a" / path)]
    assert len(rows) == 16 and len({r["text"] for r in rows}) > 4
    assert {"prompt", "text", "reward", "advantage", "tokens", "finish", "calls"} <= set(rows[0])


def test_lanes_share_the_weights_and_the_memory_for_keys(monkeypatch):
    from llmctl.infer import engine

    made, caches = [], []

    class Counted(engine.Runner):
        def __init__(self, *args, **options):
            made.append(1)
            super().__init__(*args, **options)

        def new_cache(self, max_rows, columns):
            caches.append(max_rows)
            return super().new_cache(max_rows, columns)

    monkeypatch.setattr(engine, "Runner", Counted)
    monkeypatch.setattr(engine, "free_bytes", lambda device: 0)  # never asked
    model = tiny_policy()
    row = model.config.max_seq_len * model.config.kv_bytes_per_token(4)
    found = Sampler(model, tiny_format(), dtype=torch.float32, lanes=3, kv_bytes=6 * row)
    found.refresh()
    assert len(made) == 2
    params = {"max_tokens": model.config.max_seq_len, "temperature": 1.0}
    drawn = found.draw(prompts()[:9], params, 5)
    assert caches == [2, 2, 2] and len(drawn) == 9
    found.close()


def test_every_problem_is_asked_once_an_epoch(tmp_path):
    found = batches(tmp_path)
    asked = [p for step in range(8) for p in found._problems(step, 0)]
    assert sorted(asked) == list(range(32)) and asked != sorted(asked)


def test_sampler_and_trainer_agree_on_what_was_drawn(tmp_path):
    """Log-probabilities of the engine, one token at a time, and of the trainer, all at once."""
    model = tiny_policy()
    found = batches(tmp_path, Fixed([0.0, 1.0]), model, temperature=0.8)
    from llmctl.train.rl import drawable

    loss_fn = PolicyLoss(
        model, model, Objective(), dtype=torch.float32, drawable=drawable(found.sampler, 0.8)
    )
    for batch in found.take(0, 2):
        loss_fn(batch)
    row = found.metrics(0)
    assert row["drift"] < 1e-5 and row["drift_p99"] < 1e-4
    assert row["kl"] == 0 and row["dead"] == 0 and row["pass_1"] == 0.5 and row["pass_k"] == 1
    assert row["rollout_tokens_per_s"] > 0 and row["learn_tokens_per_s"] > 0
    assert found.tokens(0) == sum(
        r["tokens"] for r in map(json.loads, open(tmp_path / "rollouts/step-000001.jsonl"))
    )


def test_the_sampler_sees_the_weights_as_they_are_now(tmp_path):
    model = tiny_policy()
    found = batches(tmp_path, Fixed([0.0, 1.0]), model)
    list(found.take(0, 4))
    before = [r.ids for g in found.held.groups for r in g.rollouts]
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.3)
    list(found.take(0, 4))
    assert [r.ids for g in found.held.groups for r in g.rollouts] != before


def test_a_dead_batch_has_no_micro_batch(tmp_path):
    found = batches(tmp_path, Fixed([1.0]))
    assert list(found.take(0, 4)) == []
    row = found.metrics(0)
    assert row["dead"] == 1 and "entropy" not in row and "kl" not in row


def test_dead_groups_are_drawn_again_a_bounded_number_of_times(tmp_path):
    found = batches(tmp_path, Fixed([1.0]), resample=2)
    list(found.take(0, 4))
    assert found.metrics(0)["rounds"] == 3
    alive = batches(tmp_path, Fixed([1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]), resample=3)
    list(alive.take(0, 4))  # every second group is alive
    assert len(alive.held.groups) == 4 and alive.metrics(0)["rounds"] == 2


def test_steps_without_anything_to_learn_end_the_run(tmp_path):
    found = batches(tmp_path, Fixed([1.0]), dead_stop=3)
    with pytest.raises(Diverged, match="3 steps in a row"):
        for step in range(3):
            list(found.take(step, 4))
            found.metrics(step)


def test_a_resumed_run_counts_the_steps_without_anything_to_learn_before_it(tmp_path):
    rows = [dict(step=1, dead=1.0), dict(step=2, dead=0.5), dict(step=3, dead=1.0), dict(step=4)]
    lines = [json.dumps(row) + "\n" for row in [*rows, dict(step=5, dead=0.0)]]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    watch = Watch(dead_stop=3)
    watch.begin(tmp_path, 4)  # step 5 came after the checkpoint, and is made anew
    watch.dead(1.0)
    with pytest.raises(Diverged, match="3 steps in a row"):
        watch.dead(1.0)


def test_a_batch_is_found_again_between_two_updates(tmp_path):
    model = tiny_policy()
    loss_fn = PolicyLoss(model, model, Objective(), dtype=torch.float32)
    found = batches(tmp_path, Fixed([0.0, 1.0]), model, updates=2)
    for batch in found.take(0, 2):
        loss_fn(batch)
    found.metrics(0)
    going_on = list(found.take(1, 2))
    again = batches(tmp_path, Fixed([0.0, 1.0]), model, updates=2)
    resumed = list(again.take(1, 2))
    assert len(resumed) == len(going_on) > 1
    for mine, theirs in zip(resumed, going_on):
        assert torch.equal(mine.ids, theirs.ids) and torch.equal(mine.targets, theirs.targets)
        assert torch.equal(mine.advantages, theirs.advantages)
        assert torch.equal(mine.note.old, theirs.note.old)


def test_a_problem_that_a_batch_holds_twice_is_found_again(tmp_path, monkeypatch):
    """Its answers stand behind one prompt in both runs, though the kept groups share no list."""
    monkeypatch.setattr(f"{__name__}.PROBLEMS", PROBLEMS[:1])
    model = tiny_policy()
    loss_fn = PolicyLoss(model, model, Objective(), dtype=torch.float32)
    found = batches(tmp_path, Fixed([0.0, 1.0]), model, updates=2)
    for batch in found.take(0, 4):
        loss_fn(batch)
    found.metrics(0)
    again = batches(tmp_path, Fixed([0.0, 1.0]), model, updates=2)
    going_on, resumed = list(found.take(1, 4)), list(again.take(1, 4))
    assert [b.layout for b in resumed] == [b.layout for b in going_on]
    assert any(len(answers) > 4 for b in resumed for _, answers in b.layout)
    for mine, theirs in zip(resumed, going_on, strict=True):
        assert torch.equal(mine.note.old, theirs.note.old)


def test_a_batch_is_not_found_again_on_another_number_of_ranks(tmp_path):
    """Its groups lie in a file of each rank; those of the others would be lost."""
    found = batches(tmp_path, Fixed([0.0, 1.0]), updates=2)
    list(found.take(0, 2))
    found.metrics(0)
    found = batches(tmp_path, Fixed([0.0, 1.0]), updates=2)
    found.world = World(0, 2, torch.device("cpu"))
    with pytest.raises(Mismatch, match="a batch that 1 ranks share, here are 2"):
        list(found.take(1, 2))


def test_a_batch_stays_as_long_as_a_checkpoint_in_the_middle_of_it(tmp_path):
    """However many batches were drawn since."""
    found = batches(tmp_path, Fixed([0.0, 1.0]), updates=2)
    for number in range(8):
        list(found.take(2 * number, 2))
        found.metrics(2 * number)
        if number in (1, 2):  # at steps 3 and 4: the latter needs no old batch
            Checkpoints(tmp_path / "state").save(number + 2, {"model": {}}, {})
    kept = sorted(p.name for p in (tmp_path / "state").glob("rollouts-*"))
    assert kept == ["rollouts-00000001-0.json", "rollouts-00000007-0.json"]


def test_a_kl_budget_ends_the_run_when_it_is_spent(tmp_path):
    found = batches(tmp_path, kl_budget=2.0)
    for step, kl in enumerate([0.0, 1.0, 2.0, 3.0, 3.0], 1):
        found.watch.kl(step, kl)
        assert found.watch.finished is None
    found.watch.kl(6, 3.0)  # mean of the last five: 2.4
    with pytest.raises(Finished, match="KL budget spent at step 6"):
        list(found.take(6, 4))


def test_an_answer_with_a_call_is_graded_by_its_last_turn(monkeypatch):
    """What a tool said is kept in place and is not the policy's; ids are never encoded again."""
    format, one = tiny_format(), sampler(tiny_policy(steps=0))
    ask = [
        *format.tokenizer.encode("try "),
        format.tokenizer.id_of("<|python|>"),
        20,
        format.end_id,
    ]
    result = format.result_ids("python", "41")
    said = [*format.tokenizer.encode("The answer is 42"), format.end_id]
    ids = [*ask, *result, *said]
    own = [True] * len(ask) + [False] * len(result) + [True] * len(said)
    call = CallRecord("python", {"code": "1"}, "41", 0.1)
    done = Completion(
        0, [1, 2], ids, "try The answer is 42", "stop", policy_logprobs=[0.0] * len(ids),
        sampled=own, calls=[call],
    )  # fmt: skip
    monkeypatch.setattr(one.engines[0], "generate", lambda *args, **options: [done])
    [found] = one.draw([[1, 2]], {"max_tokens": 9}, 0)
    assert found.reply == "The answer is 42" and "41" in found.text
    assert found.ids == ids and found.sampled == own and found.n_sampled == len(ask) + len(said)
    assert found.calls[0]["result"] == "41"
    found.trained, found.advantage = True, 1.0
    [batch] = micro_batches([Group(0, [1, 2], [found])], Objective(), budget=99, shared=True)
    assert batch.targets.tolist() == [*ask, *said]
