"""From logits to the next token: temperature, top-k, top-p, min-p; pure functions.

Axes: N rows, V vocabulary. The order is that of transformers and vLLM: repetition penalty,
temperature, then the cuts, each on what the one before it left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmctl.core.errors import UsageError

HEAD = 1024  # candidates tried first for top-p, before the whole vocabulary is sorted
MAX_TOKENS = 1 << 24
MASK64 = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How one request is answered. temperature 0 is exact greedy, whatever the cuts.

    stop: strings that end the text (not included in it). stop_ids: ids that end it, beside the
    model's own end-of-text ids unless ignore_eos. probs: so many most likely ids are reported with
    each step's probabilities. logprobs: report the log-probability of each chosen id. Both are of
    the model itself: before penalty, temperature and cuts.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: bool = False
    probs: int = 0

    def __post_init__(self) -> None:
        """UsageError (2) for what cannot be meant, naming value and range."""
        self._whole("max_tokens", 1, MAX_TOKENS)
        self._whole("top_k", 0, 1 << 24)
        self._whole("probs", 0, 1000)
        self._whole("seed", 0, MASK64)
        self._number("temperature", 0.0, 100.0)
        self._number("top_p", 0.0, 1.0, above=True)
        self._number("min_p", 0.0, 1.0)
        self._number("repetition_penalty", 0.01, 100.0)
        if any(not text for text in self.stop):
            raise UsageError("stop holds an empty string; it would end every text at once")

    def _whole(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UsageError(f"{name} must be a whole number from {least} to {most:,}; got {value}")

    def _number(self, name: str, least: float, most: float, above: bool = False) -> None:
        value = getattr(self, name)
        low = value > least if above else value >= least
        if not (isinstance(value, int | float) and math.isfinite(value) and low and value <= most):
            word = "above" if above else "from"
            raise UsageError(f"{name} must be {word} {least:g} to {most:g}; got {value}")


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
