"""Facts are counted in the class of their real exposure, and answers are matched as whole words."""

import pytest

from llmctl.evals.facts import facts_by_exposure, is_right
from llmctl.evals.intervals import wilson


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (" Harlow. She", True),
        ("harlow", True),
        (" Harlowton", False),
        (" the town of Harlow", False),
        (" Port Vell, where", True),
        ("", False),
    ],
)
def test_answer_must_begin_with_the_value_as_a_word(said, right):
    assert is_right(said, ["Harlow", "Port Vell"]) is right


def fact(name):
    return {"fact_id": name, "value": "red", "aliases": [], "prompts": [f"{name} is"]}


def test_rows_follow_real_exposure_and_leave_the_gaps_out():
    facts = [fact(n) for n in "abcdef"]
    exposures = {"b": 1, "c": 1, "d": 6, "e": 64, "f": 63}
    rows, answers = facts_by_exposure(
        facts, exposures, lambda prompts: [" red." if p[0] in "cef" else " blue" for p in prompts]
    )
    got = {r.seen: (r.facts, r.right) for r in rows}
    assert got["never"] == (1, 0) and got["once"] == (2, 1) and got["64 times"] == (2, 2)
    assert got["4 times"] == (0, 0)
    assert [a["fact_id"] for a in answers] == ["a", "b", "c", "e", "f"]


def test_wilson_interval_known_values():
    low, high = wilson(5, 10)
    assert low == pytest.approx(0.2366, abs=1e-4) and high == pytest.approx(0.7634, abs=1e-4)
    assert wilson(0, 200)[0] == 0.0 and wilson(0, 200)[1] == pytest.approx(0.0188, abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
