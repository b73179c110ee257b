"""Replies are right or wrong by values; what is odd is wrong or unscored, and never slow."""

import os
import resource
import signal
import threading
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.data.problems import Problem
from llmctl.reward.judges import VerifierJudge, finite, is_model
from llmctl.reward.numbers import number_of, stated_answer
from llmctl.reward.verifiers import code_of, normalised, verifier


def problem(answer, name="math", **meta):
    return Problem([{"role": "user", "content": "?"}], answer, name, meta=meta)


def grade(name, answer, reply, **meta):
    return verifier(name).grade(problem(answer, name, **meta), reply)


@pytest.mark.parametrize(
    "reply, number",
    [
        ("17 + 25 = 42. 42 - 8 = 34. The answer is 34.", 34),
        ("#### 1,234", 1234),
        ("so \\boxed{\\frac{3}{4}}", Fraction(3, 4)),
        ("\\boxed{-\\dfrac{1}{2}}", Fraction(-1, 2)),
        ("\\boxed{42\\text{ apples}}", 42),
        ("The answer is \\boxed{12}. Bye", 12),
        ("The answer is $1,200 a year.", 1200),
        ("Answer: -$5", -5),
        ("**Answer:** 18", 18),
        ("answer: **7**", 7),
        ("The answer is:\n\n3/4.", Fraction(3, 4)),
        ("The answer is 0.50", Fraction(1, 2)),
        ("the answer is 2.5e-1", Fraction(1, 4)),
        ("The answer is ٤٢.", 42),
        ("The answer is \u22127", -7),
        ("The answer is 1\u202f234.", 1234),
        ("10 - 3 is what is left", 3),
        ("x = -3", -3),
        ("She pays 12 pounds.", 12),
        ("\\boxed{1} and then \\boxed{2}", 2),
        ("The answer is 3. No, the answer is 4.", 4),
        ("50%", 50),
    ],
)
def test_the_number_a_reply_gives(reply, number):
    assert number_of(reply) == number


@pytest.mark.parametrize(
    "reply",
    [
        "The answer is 9**9**9**9",
        "The answer is 42 or 43",
        "The answer is 3 + 4",
        "The answer is 1e4000",
        "The answer is 1.5.2",
        "The answer is 3/4/5",
        "The answer is forty.",
        "The answer is",
        "The answer is " + "9" * 101,
        "1/0",
        "v1.2.3",
        "",
        "(" * 100_000,
    ],
)
def test_what_gives_no_number(reply):
    assert number_of(reply) is None


@pytest.mark.parametrize("text", ["7" * 10**6, "1," * 500_000, "\\boxed{" * 100_000, "-" * 10**6])
def test_a_megabyte_takes_no_time(text):
    started = time.process_time()
    for name in ("math", "exact", "format"):
        grade(name, "1", text)
        grade(name, text[:5000] or "1", "The answer is 1")
    assert time.process_time() - started < 2


@given(st.text(max_size=200), st.text(max_size=20))
def test_no_text_breaks_a_verifier(reply, answer):
    for name in ("math", "exact", "format"):
        assert grade(name, answer, reply) in (0.0, 1.0, None)
        assert grade(name, answer, f"The answer is {reply}") in (0.0, 1.0, None)


@given(st.integers(-(10**12), 10**12), st.integers(1, 999))
def test_exact_rationals(over, under):
    reply = f"The answer is {over}/{under}."
    assert number_of(reply) == Fraction(over, under)
    assert grade("math", f"{over:,}", f"It is {over}") == 1.0


def test_math_compares_values_not_texts():
    assert grade("math", "1,200", "The answer is 1200.0 pounds.") == 1.0
    assert grade("math", "0.5", "\\boxed{1/2}") == 1.0
    assert grade("math", "0.3333", "\\boxed{1/3}") == 0.0
    assert grade("math", "x^2", "The answer is $x ^ 2$.") == 1.0


def test_exact_forgives_form_and_nothing_else():
    assert grade("exact", "The River Ash", "river ash!") == 1.0
    assert grade("exact", "Leeds", "The answer is Leeds.") == 1.0
    assert grade("exact", "Leeds", "Bradford", aliases=["Bradford"]) == 1.0
    assert grade("exact", "Leeds", "Bradford", aliases="Bradford") == 1.0  # one, not its letters
    assert grade("exact", "Leeds", "B", aliases="Bradford") == 0.0
    assert grade("exact", "Leeds", "Leeds", aliases=3) == 1.0
    assert grade("exact", "Leeds", "Leeds or Bradford") == 0.0
    assert grade("exact", "Leeds", "") == 0.0
    assert grade("exact", "...", "anything") is None  # nothing to compare with
    assert normalised("  The ｆull-width １２ ") == "full width 12"


def test_an_answer_that_is_an_article_is_compared():
    assert grade("exact", "A", "a.") == grade("exact", "A", "The answer is A.") == 1.0
    assert grade("exact", "A", "B") == grade("exact", "A", "an") == grade("exact", "B", "A") == 0.0


@pytest.mark.parametrize(
    ("text", "same", "other"),
    [
        ("-5", "(\u22125)", "5"),
        ("3.5", "3.5.", "3 5"),
        ("3.5", "$3.5", "35"),
        (".5", "= .5", "5"),
        ("5", "+5", "-5"),
        ("GPT-4", "GPT 4", "4"),
        ("1914-1918", "1914\u20131918", "1914"),
        ("12.5.2020", "12/5/2020", "12 5.2020"),
    ],
)
def test_a_number_keeps_its_minus_and_its_point(text, same, other):
    assert normalised(text) == normalised(same) != normalised(other)


def computing_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_regex_is_searched_and_a_runaway_pattern_is_unscored():
    assert grade("regex", r"\b4\d\b", "it is 42") == 1.0
    assert grade("regex", r"\b4\d\b", "it is 52") == 0.0
    assert grade("regex", "(", "x") is None
    one = verifier("regex")
    used = computing_of_children()
    assert one.grade(problem("(a+)+$", "regex"), "a" * 60 + "b") is None
    assert 0.5 < computing_of_children() - used < 3  # a second, of which the kernel counts ticks
    assert one.grade(problem("b", "regex"), "ab") == 1.0  # a new worker goes on


def test_a_pattern_is_judged_by_computing_not_by_the_clock():
    one = verifier("regex")
    assert one.grade(problem("b", "regex"), "ab") == 1.0
    worker = one.patterns._child.pid
    os.kill(worker, signal.SIGSTOP)  # the machine is busy
    threading.Timer(1.5, os.kill, (worker, signal.SIGCONT)).start()
    assert one.grade(problem("b", "regex"), "ab") == 1.0


def test_format_wants_the_answer_to_be_findable():
    assert grade("format", "", "The answer is 4.") == grade("format", "", "#### 4") == 1.0
    assert grade("format", "", "It may be 4.") == grade("format", "", "") == 0.0
    assert stated_answer("nothing") is None


def test_code_is_the_last_block():
    assert code_of("```python\nx = 1\n```\nbetter:\n```\nx = 2\n```") == "x = 2\n"
    assert code_of("x = 3") == "x = 3"


CHEATS = [
    "import sys\nsys.exit(0)",
    "import os\nos._exit(0)",
    "raise SystemExit(0)",
    "class Any:\n    def __eq__(self, other): return True\ndef f(x): return Any()",
    "print('PASSED', 1.0)\ndef f(x): return None",
    "def f(x): return True",  # is not 1
    "assert True",
]


def test_cheats_of_the_code_grader_fail(walls):
    one = verifier("python-tests")
    asked = problem("assert f(0) == 1\nassert f(1) == 2", "python-tests")
    assert one.grade(asked, "```python\ndef f(x):\n    return x + 1\n```") == 1.0
    for code in CHEATS:
        assert one.grade(asked, f"```python\n{code}\n```") == 0.0, code


def test_code_that_the_clock_has_ended_is_unscored_unless_it_is_wrong_already(walls, monkeypatch):
    from llmctl import sandbox

    late = sandbox.Failure("TimeoutError: stopped after 60 s", "time")
    answers = {"late": [1, late], "wrong": [2, late], "slow": [1, sandbox.Failure("…", "cpu")]}
    monkeypatch.setattr(sandbox, "run_cases", lambda code, *_, **__: answers[code.strip()])
    asked = problem("assert f(0) == 1\nassert f(1) == 2", "python-tests")
    found = {code: verifier("python-tests").grade(asked, code) for code in answers}
    assert found == {"late": None, "wrong": 0.0, "slow": 0.0}


def test_rewards_that_are_no_numbers_are_none():
    odd = [None, float("nan"), float("inf"), "1", [1], {}, 1 + 0j]
    assert [finite(value) for value in odd] == [None] * len(odd)
    assert [finite(v) for v in (True, 0, 0.5)] == [1.0, 0.0, 0.5]


def test_a_judge_takes_each_problems_own_verifier():
    mixed = [problem("42"), problem("Leeds", "exact")]
    judge = VerifierJudge("auto", mixed, format_weight=0.25)
    answers = list(zip(mixed, ["The answer is 42.", "leeds"]))
    assert judge.grade_all(answers) == [1.25, 1.0]
    with pytest.raises(UsageError, match="did you mean 'math'"):
        VerifierJudge("auto", [problem("1", "meth")])
    with pytest.raises(UsageError, match="neither a verifier"):
        is_model("maths")
