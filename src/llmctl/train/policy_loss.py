"""Losses of group-relative policy gradients as (sum, count), and what they are made of.

Everything here is pure. The choices, and where each comes from:

- scale of advantages: reward minus the group's mean, divided by the group's standard deviation
  ("group": GRPO, arXiv:2402.03300), by the batch's ("batch"), or not at all ("none": Dr. GRPO,
  arXiv:2503.20783, since dividing favours questions that are nearly always or never solved);
  leave-one-out compares with the mean of the others (RLOO, arXiv:2402.14740).
- loss: "dapo" weighs every token of the batch alike (arXiv:2503.14476); "dr-grpo" divides by a
  constant, the longest answer allowed; "grpo" takes the mean of each answer first, so that tokens
  of long answers count less.
- clip_low, clip_high: the ratio to the sampling policy may fall to 1 - low and rise to 1 + high;
  a wider high side leaves unlikely tokens room to grow (DAPO's clip-higher).
- KL to the start model by k3 = e^d - 1 - d with d = log p_start - log p (Schulman 2020): unbiased,
  never negative, a gradient at every token.

Axes: S answers, M sampled tokens of a micro-batch, V vocabulary, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-4  # beside a standard deviation, which may be tiny
SAME = 1e-9  # rewards closer than this are equal
CHUNK = 256  # rows of logits at once
NEVER = -1e30  # a logit that is never drawn; finite, since 0 times infinity is no number
MOST_LOG_RATIO = 20.0  # beyond it e^d only overflows


@dataclass(frozen=True)
class Objective:
    """How an advantage and log-probabilities become a loss."""

    loss: str = "dapo"
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl_coef: float = 0.0
    max_tokens: int = 128  # of one answer; the constant of "dr-grpo"

    def weight(self, n_tokens: int) -> float:
        """What one token of an answer with so many counted tokens weighs in the loss sum."""
        return 1.0 / max(1, n_tokens) if self.loss == "grpo" else 1.0

    def count(self, sizes: Sequence[int]) -> float:
        """What the loss sum is divided by, from the counted tokens of each answer.

        Answers of dead groups are in no loss and in no count: a step's size does not shrink with
        their number (DAPO fills their places, the others divide by them too).
        """
        if self.loss == "dapo":
            return float(sum(sizes))
        return float(len(sizes) * (self.max_tokens if self.loss == "dr-grpo" else 1))


def advantages(
    rewards: Sequence[float | None],
    *,
    scale: str = "group",
    leave_one_out: bool = False,
    batch_std: float = 0.0,
) -> list[float]:
    """Of one group's answers; None (no reward could be given) gets 0 and is in no mean.

    Equal rewards give zeros exactly, whatever their rounding. batch_std: for scale="batch".
    """
    known = [r for r in rewards if r is not None]
    if is_dead(rewards):
        return [0.0] * len(rewards)
    n, mean = len(known), math.fsum(known) / len(known)
    spread = math.sqrt(math.fsum((r - mean) ** 2 for r in known) / (n - 1))
    divide = {"group": spread + EPSILON, "batch": batch_std + EPSILON, "none": 1.0}[scale]
    factor = (n / (n - 1) if leave_one_out else 1.0) / divide
    return [0.0 if r is None else (r - mean) * factor for r in rewards]


def is_dead(rewards: Sequence[float | None]) -> bool:
    """Whether a group has nothing to teach: fewer than two rewards, or all the same."""
    known = [r for r in rewards if r is not None]
    return len(known) < 2 or max(known) - min(known) <= SAME


def standard_deviation(groups: Sequence[Sequence[float | None]]) -> float:
    """Of all rewards of a batch around their groups' means, for scale="batch"."""
    squares, n = 0.0, 0
    for rewards in groups:
        known = [r for r in rewards if r is not None]
        if len(known) > 1:
            mean = math.fsum(known) / len(known)
            squares += math.fsum((r - mean) ** 2 for r in known)
            n += len(known) - 1
    return math.sqrt(squares / n) if n else 0.0


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) estimated at sampled tokens, (M,) each, by k3; never negative."""
    d = (reference - logprobs).clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)
    return d.exp() - 1 - d


def token_losses(
    logprobs: Tensor,
    old: Tensor,
    advantages: Tensor,
    objective: Objective,
    reference: Tensor | None = None,
) -> Tensor:
    """The loss of each sampled token, (M,): -min(ratio A, clipped ratio A) + kl_coef k3.

    logprobs, old, reference: log-probabilities under the trained policy, the one that sampled, and
    the start model; advantages (M,), its answer's. All fp32.
    """
    ratio = (logprobs - old).clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO).exp()
    clipped = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    if objective.kl_coef and reference is not None:
        loss = loss + objective.kl_coef * k3(logprobs, reference)
    return loss


@dataclass
class HeadOut:
    """What the head found of M sampled tokens, (M,) fp32 each, without gradient."""

    logprobs: Tensor  # under the policy that is sampled from: at its temperature
    entropy: Tensor  # nats, of the whole distribution


@dataclass(frozen=True)
class Drawable:
    """Which ids the sampler draws from, and at which temperature: the policy is nothing else.

    n_ids: the first so many; 0: all. holes: those among them that stand for nothing, (n,) int64.
    """

    n_ids: int = 0
    holes: Tensor | None = None
    temperature: float = 1.0


ALL = Drawable()

# (log-probabilities of the rows in a slice, the slice) -> their weighted losses
Rule = Callable[[Tensor, slice], Tensor]


def policy_head(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    rule: Rule | None,
    drawable: Drawable = ALL,
) -> tuple[Tensor, HeadOut]:
    """Loss sum over sampled tokens without ever holding all logits: (fp32 scalar, measures).

    hidden (M, D), the states that predicted the tokens; weight (V, D); targets (M,) int64, the
    tokens. rule makes losses of log-probabilities; each chunk's gradient is taken while its logits
    are at hand, as in model.loss_head. rule None: measure only.
    """
    measured = HeadOut(*(torch.empty(len(targets), device=hidden.device) for _ in range(2)))
    with torch.autocast(hidden.device.type, enabled=False):
        loss = _PolicyHead.apply(hidden, weight, targets, rule, drawable, measured)
    return loss, measured  # type: ignore[return-value]


class _PolicyHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        rule: Rule | None,
        drawable: Drawable,
        measured: HeadOut,
    ) -> Tensor:
        learns = rule is not None and any(ctx.needs_input_grad[:2])
        n_ids = drawable.n_ids or len(weight)
        matrix = weight[:n_ids].to(hidden.dtype)
        grad_hidden = grad_weight = None
        if learns:
            grad_hidden = torch.empty_like(hidden)
            grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, min(start + CHUNK, len(targets)))
            probs = _probabilities(hidden[rows] @ matrix.T, targets[rows], drawable, measured, rows)
            if rule is None:
                continue
            with torch.enable_grad():
                leaf = measured.logprobs[rows].detach().requires_grad_(learns)
                losses = rule(leaf, rows).sum()
            total += losses.detach()
            if grad_hidden is None or grad_weight is None:
                continue
            # d logprob / d logits = (one-hot - probabilities) / temperature
            slope = torch.autograd.grad(losses, leaf)[0] / drawable.temperature
            delta = probs.mul_(-slope[:, None])
            delta[torch.arange(len(delta), device=delta.device), targets[rows]] += slope
            delta = delta.to(hidden.dtype)
            torch.mm(delta, matrix, out=grad_hidden[rows])
            if delta.dtype == torch.float32:
                grad_weight[:n_ids].addmm_(delta.T, hidden[rows])
            else:
                grad_weight[:n_ids] += delta.T @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad.to(grad_hidden.dtype)
            grad_weight = (grad_weight * grad).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None, None


def _probabilities(
    logits: Tensor, targets: Tensor, drawable: Drawable, measured: HeadOut, rows: slice
) -> Tensor:
    """Probabilities (n, V), fp32, of one chunk; notes what is measured of it."""
    logits = logits.float()
    if drawable.holes is not None:
        logits.index_fill_(1, drawable.holes, NEVER)
    if drawable.temperature != 1.0:
        logits /= drawable.temperature
    probs = logits.softmax(-1)
    # the largest probability is exp(largest logit - log-sum-exp), and never tiny
    lse = logits.amax(-1) - probs.amax(-1).log()
    measured.logprobs[rows] = logits.gather(1, targets[:, None])[:, 0] - lse
    measured.entropy[rows] = lse - torch.linalg.vecdot(probs, logits)
    return probs
