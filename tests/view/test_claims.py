"""The table at the end of a run: figures of its artifacts, and claims that fail say so."""

import json

import pytest

from llmctl.core.errors import NoInput
from llmctl.evals.intervals import wilson
from llmctl.train.rl_watch import OVER_OPTIMISED
from llmctl.view import claims
from llmctl.view.claims import claim_rows, claims_table


def part(right, n=200):
    low, high = wilson(right, n)
    return {"right": right, "n": n, "rate": right / n, "low": low, "high": high}


def write(folder, **models):
    (folder / "report").mkdir(parents=True, exist_ok=True)
    report = {"abilities": {m: {a: part(r) for a, r in of.items()} for m, of in models.items()}}
    (folder / "report" / "report.json").write_text(json.dumps(report))


def holds(folder):
    return {row.claim: row.holds for row in claim_rows(folder)}


@pytest.mark.parametrize(("after", "expected"), [(120, True), (119, False)])
def test_rl_has_to_gain_ten_points(tmp_path, after, expected):
    write(tmp_path, honest={"problems": 100}, rl={"problems": after})
    [found] = holds(tmp_path).values()
    assert found is expected
    assert ("NO" in claims_table(tmp_path)) is not expected


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(100, 90, True), (100, 89, False), (50, 80, True)]
)
def test_known_facts_may_lose_five_points(tmp_path, before, after, expected):
    write(tmp_path, sft={"known": before}, honest={"known": after})
    [found] = holds(tmp_path).values()
    assert found is expected


def test_intervals_decide_where_two_figures_are_compared(tmp_path):
    write(tmp_path, honest={"steps": 110, "direct": 100})
    assert list(holds(tmp_path).values()) == [False]  # ten of 200 more: not clearly
    write(tmp_path, honest={"steps": 150, "direct": 100})
    assert list(holds(tmp_path).values()) == [True]


def test_claims_without_figures_are_not_made(tmp_path):
    write(tmp_path, honest={"strangers": 170})
    assert list(holds(tmp_path).values()) == [True]
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoInput, match="nothing measured"):
        claim_rows(tmp_path / "empty")


@pytest.mark.parametrize(("rare", "expected"), [(30, True), (150, False)])
def test_the_context_has_to_win_by_far(tmp_path, rare, expected):
    write(tmp_path, honest={"context": 160, "rare": rare})
    assert list(holds(tmp_path).values()) == [expected]


@pytest.mark.parametrize(
    ("stopped", "last", "gold", "expected"),
    [
        (OVER_OPTIMISED, 0.9, 0.1, True),
        (None, 0.9, 0.1, False),
        (OVER_OPTIMISED, 0.4, 0.1, False),
        ("kl-budget", 0.9, 0.8, False),
        ("kl-budget", 0.9, 0.1, False),
        (OVER_OPTIMISED, 0.9, 0.8, False),
    ],
)
def test_the_guard_has_to_stop_a_run_whose_reward_rose_while_gold_fell(
    tmp_path, monkeypatch, stopped, last, gold, expected
):
    # the manifest's end is the model that was kept: the start, where gold was best
    stats = {"start_reward": 0.5, "start_gold": 0.6, "end_reward": 0.5, "end_gold": 0.6}
    stats |= {"stopped": stopped, "steps": 16, "end_n": 200}
    (tmp_path / "rl-rm").mkdir()
    looks = [{"step": 1}, {"eval_reward": 0.7, "eval_gold": 0.5}]
    looks.append({"eval_reward": last, "eval_gold": gold})
    text = "".join(json.dumps(look) + "\n" for look in looks)
    (tmp_path / "rl-rm" / "metrics.jsonl").write_text(text)
    found = {"rl-rm": stats}
    monkeypatch.setattr(claims.Figures, "stats", lambda self, name: found[name])
    [row] = claim_rows(tmp_path)
    assert row.holds is expected and f"0.500 → {last:.3f}" in row.measured
