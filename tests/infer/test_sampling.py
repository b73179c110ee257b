"""The cuts keep what they say; draws follow the probabilities and nothing but their seed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.infer import sampling
from llmctl.infer.sampling import SamplingParams, candidates, draw, penalise, uniform

LOGITS = torch.tensor([[0.5, 0.2, 0.1, 0.15, 0.05]]).log()  # probabilities of five ids


def kept(**cut):
    probs, ids = candidates(LOGITS, SamplingParams(**cut))
    ids = ids.expand(probs.shape)
    return {int(i): round(float(p), 3) for p, i in zip(probs[0], ids[0]) if p > 0}


def test_without_cuts_everything_is_kept():
    assert kept() == {0: 1.0, 1: 0.4, 2: 0.2, 3: 0.3, 4: 0.1}


def test_cuts_by_hand():
    assert set(kept(top_k=2)) == {0, 1}
    assert set(kept(top_k=99)) == {0, 1, 2, 3, 4}
    assert set(kept(top_p=0.5)) == {0}  # 0.5 is reached
    assert set(kept(top_p=0.51)) == {0, 1}
    assert set(kept(top_p=1e-9)) == {0}
    assert set(kept(min_p=0.25)) == {0, 1, 3}
    assert set(kept(min_p=1.0)) == {0}
    assert set(kept(top_k=3, top_p=0.8)) == {0, 1}  # of 0.85 that top-k left, 0.68 is wanted
    assert set(kept(temperature=0.5, min_p=0.25)) == {0}  # squared: 1, 0.16, 0.04 …


def test_temperature_is_the_power_of_the_odds():
    assert kept(temperature=2.0)[1] == round(math.sqrt(0.4), 3)
    assert kept(temperature=1e-6) == {0: 1.0}


def test_temperature_zero_is_the_most_likely():
    params = SamplingParams(temperature=0.0, top_k=3, top_p=0.1)
    assert draw(LOGITS, params, [0.999]).tolist() == [0]


def test_draws_follow_the_probabilities():
    n = 20_000
    numbers = [uniform(7, 0, i) for i in range(n)]
    ids = draw(LOGITS.expand(n, -1), SamplingParams(), numbers)
    for id, p in enumerate((0.5, 0.2, 0.1, 0.15, 0.05)):
        share = (ids == id).float().mean().item()
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("number", [0.0, math.nextafter(1.0, 0.0)])
def test_the_ends_of_the_interval_draw_what_is_left(number):
    for params in (SamplingParams(min_p=0.25), SamplingParams(top_p=0.6), SamplingParams(top_k=2)):
        assert draw(LOGITS, params, [number]).item() in kept(min_p=0.25)


def test_uniform_is_a_function_of_its_arguments():
    assert uniform(1, 2, 3) == uniform(1, 2, 3)
    values = {uniform(*key) for key in ((1, 2, 3), (1, 3, 2), (2, 1, 3), (2**64 - 1, 0, 0))}
    assert len(values) == 4 and all(0 <= v < 1 for v in values)
    sample = [uniform(0, row, 0) for row in range(10_000)]
    assert abs(sum(sample) / len(sample) - 0.5) < 0.015


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    top_p=st.floats(0.01, 1.0),
    top_k=st.integers(0, 70),
    temperature=st.floats(0.05, 3.0),
)
def test_top_p_is_the_smallest_set_with_its_mass(seed, top_p, top_k, temperature):
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(1, 64, generator=g)
    probs, _ = candidates(logits, SamplingParams(top_p=top_p, top_k=top_k, temperature=temperature))
    k = min(top_k or 64, 64)
    exact = (logits[0].double() / temperature).softmax(-1).sort(descending=True).values[:k]
    exact /= exact.sum()
    n = int((probs > 0).sum())
    assert exact[: n - 1].sum() < top_p + 1e-5
    assert n == k or exact[:n].sum() > top_p - 1e-5


def test_a_short_list_of_candidates_changes_nothing(monkeypatch):
    logits = 4 * torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
    for top_p in (0.3, 0.9, 0.999):
        params = SamplingParams(top_p=top_p)
        whole = draw(logits, params, [0.1, 0.5, 0.99])
        monkeypatch.setattr(sampling, "HEAD", 20)
        assert torch.equal(draw(logits, params, [0.1, 0.5, 0.99]), whole)
        monkeypatch.undo()


def test_the_penalty_lowers_what_was_seen():
    logits = torch.tensor([[2.0, -1.0, 3.0]])
    assert penalise(logits, [[0, 1, 1]], 2.0).tolist() == [[1.0, -2.0, 3.0]]
    assert logits.tolist() == [[2.0, -1.0, 3.0]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": 1e9},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": -0.1},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": 10**12},
        {"seed": 2**70},
        {"seed": -1},
        {"stop": ("",)},
        {"repetition_penalty": 0.0},
        {"probs": -1},
    ],
)
def test_nonsense_is_a_usage_error(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SamplingParams(**wrong)
