"""From logits to the next token: temperature, top-k, top-p, min-p; pure functions.

Axes: N rows, V vocabulary. The order is that of transformers and vLLM: repetition penalty,
temperature, then the cuts, each on what the one before it left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmctl.infer.params import MASK64, SamplingParams

__all__ = ["SamplingParams", "candidates", "draw", "penalise", "uniform"]
HEAD = 1024  # candidates tried first for top-p, before the whole vocabulary is sorted


def uniform(seed: int, stream: int, step: int) -> float:
    """A number in [0, 1) that depends on nothing but its three arguments.

    SplitMix64's finaliser over each in turn: the draw of a row is the same on any device, in any
    batch, whatever was drawn before.
    """
    state = 0
    for word in (seed, stream, step):
        state = (state + word + 0x9E3779B97F4A7C15) & MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK64
        state ^= state >> 31
    return (state >> 11) * 2.0**-53


def penalise(logits: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Divide positive logits of ids seen in a row by `penalty`, multiply negative ones by it
    (CTRL, arXiv:1909.05858, section 4.1). logits (N, V); a new tensor."""
    logits = logits.clone()
    for row, ids in enumerate(seen):
        index = torch.tensor(sorted(set(ids)), device=logits.device)
        values = logits[row, index]
        logits[row, index] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def candidates(logits: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """What may be drawn: probabilities (N, C), not normalised, 0 where cut; ids (N, C) or (C,).

    Without top-k and top-p C is V and ids run in order; with them the most likely stand first. At
    least one candidate always stays. temperature must not be 0.
    """
    vocab = logits.shape[-1]
    # subtracted before the division: a tiny temperature gives -inf then, not NaN
    scaled = (logits - logits.amax(-1, keepdim=True)).div_(params.temperature)
    k = min(params.top_k or vocab, vocab)
    if k < vocab:
        best, ids = scaled.topk(k)
        best = best.exp_()
        whole = best.sum(-1, keepdim=True)
    elif params.top_p < 1.0:
        whole = scaled.exp().sum(-1, keepdim=True)
        best, ids = _enough(scaled, params.top_p * whole)
    else:
        best, ids = scaled.exp_(), torch.arange(vocab, device=logits.device)
        whole = best  # not used
    if params.top_p < 1.0:
        in_front = best.cumsum(-1) - best
        best[in_front >= params.top_p * whole] = 0.0
    if params.min_p > 0.0:
        best[best < params.min_p] = 0.0  # the largest is 1, so each is relative to it
    return best, ids


def _enough(scaled: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """exp(scaled), sorted, down to at least `mass` (N, 1): few when they hold it, else all."""
    if scaled.shape[-1] > HEAD:
        best, ids = scaled.topk(HEAD)
        best = best.exp_()
        if bool((best.sum(-1, keepdim=True) >= mass).all()):
            return best, ids
    best, ids = scaled.sort(descending=True, stable=True)
    return best.exp_(), ids


def draw(logits: Tensor, params: SamplingParams, numbers: Sequence[float]) -> Tensor:
    """One id per row, (N,) int64, by inverting the cumulated probabilities at numbers[row]."""
    if params.temperature == 0.0:
        return logits.argmax(-1)
    probs, ids = candidates(logits, params)
    cumulated = probs.cumsum(-1, dtype=torch.float64)
    targets = torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, None]
    index = torch.searchsorted(cumulated, targets * cumulated[:, -1:], right=True)
    # rounding may run past the last candidate that is left
    last = torch.searchsorted(cumulated, cumulated[:, -1:].contiguous())
    return ids.expand(probs.shape).gather(1, torch.minimum(index, last))[:, 0]
