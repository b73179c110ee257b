"""What a request may ask of sampling; no torch here, since settings are checked by it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llmctl.core.errors import UsageError

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


def sampling_of(config: Any, **more: Any) -> SamplingParams:
    """The sampling half of a stage's settings. In its `stop`, \\n stands for a newline."""
    names = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    stop = tuple(text.replace("\\n", "\n").replace("\\t", "\t") for text in config.stop)
    return SamplingParams(**{name: getattr(config, name) for name in names}, stop=stop, **more)
