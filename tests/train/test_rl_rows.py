"""Micro-batches of rollouts: what is a target, and that a whole step is what the papers say."""

import pytest
import torch

from llmctl.train.policy_loss import Objective, k3
from llmctl.train.rl_rows import PolicyLoss, micro_batches
from llmctl.train.rollouts import Group, Rollout

from .rl_tiny import tiny_policy

END = 97


def rollout(ids, sampled=None, advantage=1.0, trained=True):
    made = Rollout(list(ids), sampled or [True] * len(ids), [-1.0] * len(ids), "", "", "stop")
    made.advantage, made.trained = advantage, trained
    return made


def groups():
    """Two problems; unequal lengths, an answer of one token, one with a tool's words inside."""
    torch.manual_seed(3)
    draw = lambda n: torch.randint(1, 90, (n,)).tolist()  # noqa: E731
    tool = rollout(draw(7), [True, True, False, False, False, True, True], -0.3)
    first = [rollout([*draw(4), END], advantage=0.7), rollout([END], advantage=-1.2), tool]
    second = [rollout(draw(6), advantage=0.4), rollout(draw(6), advantage=-0.4, trained=False)]
    return [Group(0, draw(5), first), Group(1, draw(3), second)]


def policies():
    return tiny_policy(0, steps=0), tiny_policy(1, steps=0).requires_grad_(False)


def slow_step(model, reference, objective, old):
    """Each answer by itself, whole logits, one token after the other; the mean loss."""
    total, sizes = torch.zeros(()), []
    for group in groups():
        for r in (r for r in group.rollouts if r.trained):
            ids = torch.tensor([group.prompt + r.ids])
            logprobs = model(ids)[0].log_softmax(-1)
            start = reference(ids)[0].log_softmax(-1)
            losses = []
            for j, own in enumerate(r.sampled):
                if not own:
                    continue
                at = len(group.prompt) + j
                lp, ref = logprobs[at - 1, r.ids[j]], start[at - 1, r.ids[j]]
                before = lp.detach() if old is None else torch.tensor(old)
                ratio = (lp - before).exp()
                clipped = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
                loss = -torch.minimum(ratio * r.advantage, clipped * r.advantage)
                losses.append(loss + objective.kl_coef * k3(lp, ref))
            each = torch.stack(losses)
            total = total + (each.mean() if objective.loss == "grpo" else each.sum())
            sizes.append(len(losses))
    divisor = {"dapo": sum(sizes), "grpo": len(sizes), "dr-grpo": len(sizes) * objective.max_tokens}
    return total / divisor[objective.loss]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("budget", [1000, 12])
@pytest.mark.parametrize(
    "objective, from_sampler",
    [
        (Objective(loss="dapo"), False),
        (Objective(loss="grpo", kl_coef=0.3), False),
        (Objective(loss="dr-grpo", kl_coef=0.1, max_tokens=9), True),
    ],
)
def test_a_whole_step_equals_the_slow_reference(objective, from_sampler, budget, shared):
    model, reference = policies()
    wanted = slow_step(model, reference, objective, -1.0 if from_sampler else None)
    wanted.backward()
    grads = {k: p.grad.clone() for k, p in model.named_parameters()}
    model.zero_grad()

    loss_fn = PolicyLoss(
        model, reference, objective, dtype=torch.float32, old_from_sampler=from_sampler,
        ask_reference=True,
    )  # fmt: skip
    total = count = 0.0
    for batch in micro_batches(groups(), objective, budget=budget, shared=shared):
        loss, n = loss_fn(batch)
        loss.backward()
        total, count = total + loss.item(), count + n.item()
    assert total / count == pytest.approx(wanted.item(), rel=1e-4)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad / count, grads[name], atol=1e-5), name


def test_the_end_is_a_target_and_a_tools_words_are_not():
    [batch] = micro_batches(groups(), Objective(), budget=1000, shared=True)
    found = batch.targets.tolist()
    assert found.count(END) == 2
    tool = groups()[0].rollouts[2]
    assert found[6:10] == [tool.ids[0], tool.ids[1], tool.ids[5], tool.ids[6]]
    # a target is predicted by what stands right before it: the prompt's end, else the token before
    flat = batch.ids[0].tolist()
    assert batch.source[0] == 4 == batch.source[5] == batch.source[6]
    assert flat[batch.source[8]] == tool.ids[4]


def test_a_tools_words_get_no_gradient_through_the_head():
    model, reference = policies()
    loss_fn = PolicyLoss(model, reference, Objective(), dtype=torch.float32)
    only = Group(0, [1, 2, 3], [rollout([5, 77, 6], [True, False, True])])
    [batch] = micro_batches([only], Objective(), budget=100, shared=True)
    loss, count = loss_fn(batch)
    loss.backward()
    assert batch.targets.tolist() == [5, 6] and count == 2
    found = {k: p.grad.clone() for k, p in model.named_parameters()}
    model.zero_grad()
    logprobs = model(torch.tensor([[1, 2, 3, 5, 77, 6]]))[0].log_softmax(-1)
    (-logprobs[2, 5] - logprobs[4, 6]).backward()  # and nothing of how likely 77 was
    for name, parameter in model.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-5), name


def test_later_updates_compare_with_what_the_first_found():
    model, reference = policies()
    loss_fn = PolicyLoss(model, reference, Objective(), dtype=torch.float32)
    [batch] = micro_batches(groups(), Objective(), budget=1000, shared=True)
    loss_fn(batch)
    old = batch.note.old.clone()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.05)
    loss, _ = loss_fn(batch)
    assert torch.equal(batch.note.old, old)
    now = loss_fn.logprobs(model, batch)
    ratio = (now - old).exp()
    wanted = -torch.minimum(ratio * batch.advantages, ratio.clamp(0.8, 1.28) * batch.advantages)
    assert loss.item() == pytest.approx(wanted.sum().item(), abs=1e-4)


def test_clipped_are_tokens_that_moved_past_the_clip_the_way_their_advantage_pulls():
    model, reference = policies()
    loss_fn = PolicyLoss(model, reference, Objective(), dtype=torch.float32)
    better, worse = rollout([5, 6, 7, 8], advantage=1.0), rollout([15, 16, 17], advantage=-1.0)
    [batch] = micro_batches(
        [Group(0, [1, 2], [better, worse])], Objective(), budget=99, shared=True
    )
    loss_fn(batch)
    assert batch.note.sums["clipped"] == 0
    ratio = {5: 1.3, 6: 1.3, 7: 0.7, 8: 1.25, 15: 1.3, 16: 0.7, 17: 0.85}  # the clip: 0.8, 1.28
    batch.note.old -= torch.tensor([ratio[token] for token in batch.targets.tolist()]).log()
    loss_fn(batch)
    assert batch.note.sums["clipped"] == 3  # 5, 6 and 16


def test_kl_is_zero_before_the_first_update_and_watched_on_the_first_batch():
    model, _ = policies()
    loss_fn = PolicyLoss(model, model, Objective(), dtype=torch.bfloat16)
    for batch in micro_batches(groups(), Objective(), budget=12, shared=True):
        loss_fn(batch)
        assert ("kl" in batch.note.sums) == (batch.note.number == 0)
        assert batch.note.sums.get("kl", 0.0) == 0.0
