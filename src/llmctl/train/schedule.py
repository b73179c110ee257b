"""The learning rate over a run: warmup, stable, decay (WSD, Hu et al. 2024, arXiv:2404.06395).

The stable phase does not know where the run ends, so a finished run can be trained on from the
point where its decay began, and the result is the same as if the longer run had been meant at once.
"""

from __future__ import annotations


def multiplier(step: int, *, steps: int, warmup: int, decay: int, floor: float = 0.0) -> float:
    """Share of the peak learning rate for the update number `step` (0-based) of `steps`.

    Linear warmup over `warmup` steps, 1 until the last `decay` steps, then down to `floor` along
    1 - sqrt (Hägele et al. 2024, arXiv:2405.18392, section 4: better than linear at equal length).
    The first update is not at zero, and neither is the last.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    into = step - (steps - decay)
    if into < 0 or decay == 0:
        return 1.0
    return floor + (1 - floor) * (1 - ((into + 1) / (decay + 1)) ** 0.5)
