"""Which subjects are for training an assistant and which only for asking it."""

from __future__ import annotations

KINDS_IN_TURN = 6  # make_subjects deals people, villages and firms in rounds of six


def split_of(number: int) -> str:
    """Every second subject is held out from conversations and tested only; of each kind half."""
    return "train" if (number + number // KINDS_IN_TURN) % 2 == 0 else "test"
