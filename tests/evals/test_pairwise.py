"""Agreement with people, and the rules a reward model must beat."""

import tracemalloc

import numpy as np
import pytest

from llmctl.evals import pairwise
from llmctl.evals.floors import WordPreferences, terms_of
from llmctl.evals.intervals import wilson
from llmctl.evals.pairwise import Outcome, agreement, by_length, histogram, judged, verdict


def outcomes(right, wrong, group="{}"):
    every = [1.0] * right + [0.0] * wrong
    return [Outcome(x, 1.0, group.format(i)) for i, x in enumerate(every)]


def test_equal_scores_are_half_right():
    assert [judged(2, 1), judged(1, 2), judged(1, 1)] == [1.0, 0.0, 0.5]


def test_accuracy_with_wilson_s_interval():
    found = agreement(outcomes(60, 40))
    assert (found.accuracy, found.low, found.high) == (0.6, *wilson(60, 100))
    assert found.wide[0] == pytest.approx(0.5, abs=0.03) and found.wide[1] == pytest.approx(
        0.7, abs=0.03
    )
    assert agreement([]).accuracy == 0.0 and agreement([]).low == 0.0


def test_pairs_of_one_prompt_count_together():
    """Ten prompts of ten equal pairs say less than a hundred prompts."""
    together = [Outcome(float(i < 6), 1.0, str(i)) for i in range(10) for _ in range(10)]
    found = agreement(together)
    assert found.groups == 10 and found.pairs == 100
    assert found.wide[1] - found.wide[0] > 2 * (found.high - found.low)


def test_resamples_are_drawn_in_parts_and_where_they_are_asked_for(monkeypatch):
    pairs = [Outcome(float(i % 3 > 0), 1.0, str(i // 2)) for i in range(90)]
    drawn = np.random.default_rng(0).integers(45, size=(pairwise.RESAMPLES, 45))
    sums = np.array([pairs[2 * i].right + pairs[2 * i + 1].right for i in range(45)])
    wanted = np.quantile(sums[drawn].sum(1) / 90, (0.025, 0.975))
    for cells in (1, 45 * 7, 1 << 20):
        monkeypatch.setattr(pairwise, "DRAWN", cells)
        assert agreement(pairs).wide == tuple(wanted)
    many = outcomes(6000, 6000)  # 96 MB of numbers, were they drawn at once
    tracemalloc.start()
    found = agreement(many)
    cheap = tracemalloc.get_traced_memory()[1]
    assert found.accuracy == 0.5 and found.wide[1] > 0.5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert cheap < 8 << 20 and peak < 48 << 20


def test_buckets_hold_every_pair_once():
    pairs = [Outcome(1.0, ratio, str(ratio)) for ratio in (0.1, 0.5, 0.9, 1.0, 1.1, 2.0, 50.0)]
    assert [a.pairs for _, a in by_length(pairs)] == [1, 1, 2, 1, 2]


def test_the_verdict_says_when_a_rule_does_as_well():
    floors = {
        "prefer the longer": agreement(outcomes(55, 45)),
        "words": agreement(outcomes(62, 38)),
    }
    assert "below a floor: 60.0% against 62.0% by 'words'" in verdict(
        agreement(outcomes(60, 40)), floors
    )
    assert "not shown to be better" in verdict(agreement(outcomes(65, 35)), floors)
    assert verdict(agreement(outcomes(90, 10)), floors).startswith("28.0% above the best floor")


def test_a_histogram_counts_both_sides():
    text = histogram([1.0, 0.9, 0.8], [-1.0])
    assert text.count("\n") == 12 and "3" in text.split("\n")[-1]
    assert histogram([0.0], [0.0])  # all the same is no division by zero


def test_words_are_learned_from_pairs():
    pairs = [(f"thank you {i}", f"go away {i}") for i in range(20)]
    model = WordPreferences(pairs)
    assert model.score("Thank you, friend") > 0 > model.score("go AWAY!")
    assert model.score("") == 0.0 == model.score("zzz")
    assert WordPreferences(pairs).weights.tolist() == model.weights.tolist()
    assert WordPreferences([]).score("x") == 0.0
    assert terms_of("No, no.")["no"] == 2 and terms_of("No, no.")[", no"] == 1


def test_the_floors_on_real_pairs(shared):
    """Prefer the longer is right on 44.6% of HH's harmless pairs; longer is worse there."""
    from llmctl.data.preferences import read_preferences

    path = shared / "data" / "post" / "preferences" / "hh_harmless_base_test.jsonl"
    rows = read_preferences(path).rows
    right = sum(judged(len(r.text(a)), len(r.text(b))) for r in rows for a, b in r.pairs)
    assert right / len(rows) == pytest.approx(0.447, abs=0.003)
