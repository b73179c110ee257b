"""Advantages and losses against arithmetic that can be followed by hand."""

import math

import pytest
import torch

from llmctl.train.policy_loss import (
    Drawable,
    Objective,
    advantages,
    is_dead,
    k3,
    policy_head,
    standard_deviation,
    token_losses,
)


def test_advantage_is_reward_minus_the_groups_mean():
    assert advantages([1.0, 0.0, 0.0, 1.0], scale="none") == [0.5, -0.5, -0.5, 0.5]


def test_group_scale_divides_by_the_samples_deviation():
    found = advantages([3.0, 1.0], scale="group")  # mean 2, deviation sqrt(2)
    assert found == pytest.approx([1 / math.sqrt(2), -1 / math.sqrt(2)], rel=1e-3)


def test_batch_scale_divides_by_one_deviation_for_all_groups():
    spread = standard_deviation([[1.0, 0.0], [4.0, 0.0]])  # (0.5 + 8) / 2
    assert spread == pytest.approx(math.sqrt(4.25))
    assert advantages([1.0, 0.0], scale="batch", batch_std=spread)[0] == pytest.approx(
        0.5 / spread, rel=1e-3
    )


def test_leave_one_out_compares_with_the_mean_of_the_others():
    found = advantages([3.0, 0.0, 0.0], scale="none", leave_one_out=True)
    assert found == pytest.approx([3.0, -1.5, -1.5])


@pytest.mark.parametrize(
    "rewards", [[0.1 + 0.2, 0.3], [1.0], [None, None], [None, 1.0], [2.0, 2.0]]
)
def test_equal_or_missing_rewards_teach_nothing(rewards):
    assert is_dead(rewards)
    assert advantages(rewards) == [0.0] * len(rewards)


def test_a_missing_reward_is_in_no_mean():
    assert advantages([1.0, None, 0.0], scale="none") == [0.5, 0.0, -0.5]


def clipped(ratio, advantage, low=0.2, high=0.28):
    """As the paper writes it, for one token."""
    return -min(ratio * advantage, max(1 - low, min(1 + high, ratio)) * advantage)


def test_clip_is_wider_upwards():
    ratios = [0.5, 0.9, 1.0, 1.1, 1.25, 1.5]
    old = torch.full((6,), -2.0)
    new = old + torch.tensor(ratios).log()
    for advantage in (1.0, -1.0):
        found = token_losses(new, old, torch.full((6,), advantage), Objective())
        assert found.tolist() == pytest.approx([clipped(r, advantage) for r in ratios], rel=1e-5)


def test_beyond_the_clip_there_is_no_gradient():
    new = torch.tensor([-1.0, -1.0, -3.0], requires_grad=True)  # ratios e, e, 1/e
    token_losses(
        new, torch.full((3,), -2.0), torch.tensor([1.0, -1.0, -1.0]), Objective()
    ).sum().backward()
    assert new.grad.tolist() == [0.0, pytest.approx(math.e), 0.0]


def test_k3_is_zero_only_for_equal_policies_and_has_their_kl_as_mean():
    p, q = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.2, 0.3, 0.5]).log()
    each = k3(p, q)  # at each of three tokens
    assert (each >= 0).all() and each[1] == 0
    assert float((p.exp() * each).sum()) == pytest.approx(
        float((p.exp() * (p - q)).sum()), rel=1e-5
    )


def test_an_exploding_ratio_stays_finite():
    new = torch.tensor([0.0], requires_grad=True)
    loss = token_losses(
        new,
        torch.tensor([-1e4]),
        torch.tensor([-1.0]),
        Objective(kl_coef=1.0),
        torch.tensor([-1e4]),
    )
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(new.grad).all()


def test_counts_of_the_three_losses():
    sizes = [2, 4]
    assert Objective(loss="dapo").count(sizes) == 6
    assert Objective(loss="dr-grpo", max_tokens=10).count(sizes) == 20
    assert Objective(loss="grpo").count(sizes) == 2
    assert [Objective(loss="grpo").weight(n) for n in sizes] == [0.5, 0.25]
    assert Objective(loss="dapo").weight(4) == Objective(loss="dr-grpo").weight(4) == 1


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("holes", [None, [3, 5]])
def test_head_is_a_softmax_over_what_can_be_drawn(temperature, holes):
    torch.manual_seed(0)
    n, width, vocab, n_ids = 600, 8, 32, 29  # more rows than a chunk
    hidden = torch.randn(n, width, requires_grad=True)
    weight = torch.randn(vocab, width, requires_grad=True)
    targets = torch.randint(6, n_ids, (n,))
    slopes = torch.randn(n)
    logits = (hidden @ weight.T)[:, :n_ids]
    if holes:
        logits = logits.index_fill(1, torch.tensor(holes), -torch.inf)
    logprobs = (logits / temperature).log_softmax(-1)
    chosen = logprobs.gather(1, targets[:, None])[:, 0]
    wanted = (chosen * slopes).sum()
    entropy = -(logprobs.exp() * logprobs.clamp_min(-1e9)).sum(-1)
    grads = torch.autograd.grad(wanted, (hidden, weight))

    drawable = Drawable(n_ids, torch.tensor(holes) if holes else None, temperature)
    loss, found = policy_head(hidden, weight, targets, lambda lp, rows: lp * slopes[rows], drawable)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(found.logprobs, chosen, atol=1e-5)
    assert torch.allclose(found.entropy, entropy, atol=1e-5)
    for mine, theirs in zip(torch.autograd.grad(loss, (hidden, weight)), grads):
        assert torch.allclose(mine, theirs, atol=1e-4)


def test_head_without_a_rule_only_measures():
    hidden, weight = torch.randn(5, 4), torch.randn(7, 4)
    loss, found = policy_head(hidden, weight, torch.arange(5), None)
    wanted = (hidden @ weight.T).log_softmax(-1)[torch.arange(5), torch.arange(5)]
    assert loss == 0 and torch.allclose(found.logprobs, wanted, atol=1e-5)
