"""Warmup, stable, decay: values that can be checked in the head."""

import pytest

from llmctl.train.schedule import multiplier


def values(steps, **options):
    return [multiplier(s, steps=steps, **options) for s in range(steps)]


def test_warmup_rises_in_equal_steps_and_never_starts_at_zero():
    assert values(5, warmup=3, decay=0) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_decay_follows_one_minus_the_root():
    found = values(7, warmup=0, decay=3)  # roots of 1/4, 2/4, 3/4
    assert found[:4] == [1.0] * 4
    assert found[4] == pytest.approx(0.5)
    assert found[5] == pytest.approx(1 - 0.5**0.5)
    assert 0 < found[6] < found[5]


def test_the_floor_is_a_share_of_the_peak():
    assert values(4, warmup=0, decay=4, floor=1.0) == [1.0] * 4
    assert multiplier(3, steps=4, warmup=0, decay=3, floor=0.1) > 0.1


def test_the_stable_phase_does_not_know_the_horizon():
    short, long = values(100, warmup=5, decay=20), values(1000, warmup=5, decay=200)
    assert short[:80] == long[:80]
