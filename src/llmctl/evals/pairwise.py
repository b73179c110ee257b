"""How often scores agree with people: accuracy over pairs, with its uncertainty and its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from llmctl.evals.intervals import wilson

RESAMPLES = 1000
DRAWN = 1 << 20  # groups drawn at once, of all resamples
HISTOGRAM_ROWS, BAR = 12, 24
# length of the better response over that of the worse; upper ends
LENGTHS = (
    ("under half as long", 0.5),
    ("shorter", 0.9),
    ("about as long", 1.1),
    ("longer", 2.0),
    ("over twice as long", float("inf")),
)


@dataclass(frozen=True)
class Outcome:
    """One pair that was judged. right: 1, 0, or 0.5 for equal scores; ratio: better's length over
    the worse's; group: which pairs share a prompt or tree."""

    right: float
    ratio: float
    group: str


@dataclass(frozen=True)
class Agreement:
    """The share of pairs judged as people did. low, high: Wilson's 95% interval over pairs. sums,
    counts (groups,): what is right in each group of pairs, and how many it has."""

    pairs: int
    groups: int
    right: float
    low: float
    high: float
    sums: np.ndarray = field(repr=False, compare=False)
    counts: np.ndarray = field(repr=False, compare=False)
    seed: int = 0

    @cached_property
    def wide(self) -> tuple[float, float]:
        """95% of resamples of whole groups, which pairs that share a prompt make wider. Drawn
        where it is asked for, a part of the resamples at once: groups may be many."""
        n = self.groups
        if not n:
            return 0.0, 1.0
        rng, at_once = np.random.default_rng(self.seed), max(1, DRAWN // n)
        shares = []
        for start in range(0, RESAMPLES, at_once):
            drawn = rng.integers(n, size=(min(at_once, RESAMPLES - start), n))
            shares.append(self.sums[drawn].sum(1) / self.counts[drawn].sum(1))
        low, high = np.quantile(np.concatenate(shares), (0.025, 0.975))
        return float(low), float(high)

    @property
    def accuracy(self) -> float:
        """right / pairs."""
        return self.right / self.pairs if self.pairs else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "accuracy": round(self.accuracy, 4),
            "pairs": self.pairs,
            "groups": self.groups,
            "right": self.right,
            "wilson95": [round(self.low, 4), round(self.high, 4)],
            "bootstrap95": [round(x, 4) for x in self.wide],
        }

    def cells(self) -> list[str]:
        """accuracy, interval over pairs, interval over groups, as text."""
        return [f"{self.accuracy:.1%}", _span(self.low, self.high), _span(*self.wide)]


def _span(low: float, high: float) -> str:
    return f"{low:.1%} – {high:.1%}"


def judged(better: float, worse: float) -> float:
    """1 when the better side scores higher, 0.5 when both score the same."""
    return 0.5 if better == worse else float(better > worse)


def agreement(outcomes: Sequence[Outcome], seed: int = 0) -> Agreement:
    """Accuracy over pairs and both of its intervals."""
    n, right = len(outcomes), sum((o.right for o in outcomes), 0.0)
    low, high = wilson(right, n)
    numbers: dict[str, int] = {}
    of = np.array([numbers.setdefault(o.group, len(numbers)) for o in outcomes], dtype=np.int64)
    sums = np.bincount(of, [o.right for o in outcomes], minlength=len(numbers))
    counts = np.bincount(of, minlength=len(numbers))
    return Agreement(n, len(numbers), right, low, high, sums, counts, seed)


def by_length(outcomes: Sequence[Outcome]) -> list[tuple[str, Agreement]]:
    """Agreement where the better response is so much longer or shorter than the worse one."""
    found, before = [], 0.0
    for name, end in LENGTHS:
        inside = [o for o in outcomes if before <= o.ratio < end]
        found.append((name, agreement(inside)))
        before = end
    return found


def histogram(better: Sequence[float], worse: Sequence[float]) -> str:
    """Scores of preferred and of other responses, in text."""
    every = np.array([*better, *worse], dtype=np.float64)
    low, high = float(every.min()), float(every.max())
    edges = np.linspace(low, high if high > low else low + 1, HISTOGRAM_ROWS + 1)
    counts = [np.histogram(side, edges)[0] for side in (better, worse)]
    most = max(1, int(max(c.max() for c in counts)))
    lines = [f"{'score':>16}  {'preferred':<{BAR}}  other"]
    for i in range(HISTOGRAM_ROWS):
        bars = [_bar(int(c[i]), most) for c in counts]
        lines.append(f"{edges[i]:+7.2f} {edges[i + 1]:+8.2f}  {bars[0]:<{BAR}}  {bars[1]}")
    return "\n".join(lines)


def _bar(n: int, most: int) -> str:
    length = round((BAR - 7) * n / most)
    return f"{'█' * max(length, int(n > 0))} {n:,}" if n else ""


def verdict(model: Agreement, floors: dict[str, Agreement]) -> str:
    """One sentence on whether the model is better than the rules that need no model."""
    name, best = max(floors.items(), key=lambda item: item[1].accuracy)
    gap = model.accuracy - best.accuracy
    if gap <= 0:
        return (
            f"below a floor: {model.accuracy:.1%} against {best.accuracy:.1%} by '{name}'; this "
            "model has learned nothing that the rule does not know"
        )
    if model.low <= best.accuracy:
        return (
            f"{gap:.1%} above the best floor ('{name}', {best.accuracy:.1%}), which lies within "
            f"the model's interval: not shown to be better on {model.pairs:,} pairs"
        )
    return f"{gap:.1%} above the best floor ('{name}', {best.accuracy:.1%})"
