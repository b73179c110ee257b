"""How sure a proportion is."""

from __future__ import annotations

import math

Z95 = 1.959964  # two-sided 95% quantile of the normal distribution


def wilson(right: float, n: int) -> tuple[float, float]:
    """95% score interval of the proportion right/n, as fractions (Wilson 1927). (0, 1) for n = 0.

    Unlike the plain normal interval it stays inside 0..1 and is not empty at 0 or n right.
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = right / n, Z95 * Z95
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
