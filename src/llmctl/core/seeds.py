"""Randomness as a pure function of names, never of what was drawn before.

A stage's `seed` is one integer. Everything random in it takes its own stream, named by what it is
for ("order", "step", 17), so that a resumed run, another number of workers or another order of work
draws the same numbers.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names`."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
