"""When a reward model is over-optimised, and how that is told from noise.

A policy trained against a proxy of what is wanted first improves by both, then only by the proxy:
gold falls as d (alpha - beta log d) with d = sqrt(KL from the start), while the proxy still rises
(Gao, Schulman, Hilton 2022, arXiv:2210.10760). So a held-out judge of another make, "gold", looks
at the same held-out prompts at every evaluation, and each evaluation is compared, prompt by prompt,
with the best one so far by gold:

    over-optimised = the proxy has risen and gold has fallen since then, both with one-sided 95%
    confidence (paired differences, z above 1.645), at `patience` evaluations in a row.

Pairing takes the prompts' own difficulty out; patience makes a false alarm rare (0.05 squared, and
both signs at once). Gao et al. also found that a KL penalty only moves a run along the same curve
of gold against KL, so that it acts like stopping early: hence a KL budget stops the run here,
instead of steering the penalty's weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.644854  # one-sided 95% quantile of the normal distribution
PATIENCE = 2

Scores = Sequence[float | None]


@dataclass(frozen=True)
class Look:
    """One evaluation: for each held-out prompt what proxy and gold gave; None: no number."""

    step: int
    proxy: Scores
    gold: Scores

    @property
    def mean_gold(self) -> float:
        """Over the prompts that have a score; NaN without any."""
        known = [g for g in self.gold if g is not None]
        return math.fsum(known) / len(known) if known else math.nan


def paired_z(now: Scores, before: Scores) -> float:
    """Mean of the differences in standard errors of it; 0 with fewer than two pairs.

    A difference that is the same everywhere is infinitely sure.
    """
    differences = [a - b for a, b in zip(now, before) if a is not None and b is not None]
    n = len(differences)
    if n < 2:
        return 0.0
    mean = math.fsum(differences) / n
    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    if variance <= 0:
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / math.sqrt(variance / n)


@dataclass(frozen=True)
class Verdict:
    """What all looks so far say. best: the look with the best gold; alarms: suspicious looks in a
    row, up to the last; proxy_z, gold_z: the last look against the best."""

    best: Look
    alarms: int
    proxy_z: float
    gold_z: float

    @property
    def over_optimised(self) -> bool:
        """Whether to stop."""
        return self.alarms >= PATIENCE


def judge_looks(looks: Sequence[Look]) -> Verdict:
    """The verdict after these looks, in order; at least one. A pure function of them."""
    best, alarms, proxy_z, gold_z = looks[0], 0, 0.0, 0.0
    for look in looks[1:]:
        proxy_z = paired_z(look.proxy, best.proxy)
        gold_z = paired_z(look.gold, best.gold)
        alarms = alarms + 1 if proxy_z > Z95 and gold_z < -Z95 else 0
        if look.mean_gold > best.mean_gold:
            best = look
    return Verdict(best, alarms, proxy_z, gold_z)
