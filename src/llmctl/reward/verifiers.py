"""Verifiers: is a reply right? 1.0, 0.0, or None where no verdict could be had.

A verdict is made here, by comparing values; nothing of a reply is ever evaluated in this process.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Protocol

from llmctl.core.errors import UsageError, did_you_mean
from llmctl.data.problems import Problem, aliases_of
from llmctl.reward.numbers import number_of, plain_digits, single_number, stated_answer
from llmctl.reward.patterns import PatternSearch

MAX_REPLY = 100_000  # characters; the rest of a longer reply is not looked at
ARTICLES = ("a", "an", "the")
_ARTICLES = re.compile(rf"\b(?:{'|'.join(ARTICLES)})\b")
_NUMBER = re.compile(  # its minus, and its point
    r"(?<![\w.)\]}])(-)?(?:\d+(?:(\.)\d+)?|(\.)\d+)(?![\d.]*\d)"
)
_CODE = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


class Verifier(Protocol):
    """Grades replies to problems. None: unscored, so that it counts neither for nor against."""

    name: str

    def grade(self, problem: Problem, reply: str) -> float | None: ...


class Math:
    """The number that the reply gives, exactly equal as a fraction to the problem's answer.

    An answer that is no number is compared as text with what the reply states.
    """

    name = "math"

    def grade(self, problem: Problem, reply: str) -> float | None:
        reply = reply[-MAX_REPLY:]
        wanted = single_number(problem.answer)
        if wanted is not None:
            return float(number_of(reply) == wanted)
        stated = stated_answer(reply)
        if stated is None or not normalised(problem.answer):
            return 0.0
        return float(_formula(stated) == _formula(problem.answer))


class Exact:
    """The whole reply, or the answer it states, equals the answer or one of its aliases.

    Case, punctuation, articles and spacing do not count.
    """

    name = "exact"

    def grade(self, problem: Problem, reply: str) -> float | None:
        aliases = aliases_of(problem.meta.get("aliases"))
        wanted = {normalised(a) for a in (problem.answer, *aliases)} - {""}
        if not wanted:
            return None
        said = [reply[-MAX_REPLY:], stated_answer(reply)]
        return float(any(normalised(text) in wanted for text in said if text))


class Regex:
    """The problem's answer is a regular expression that must occur in the reply."""

    name = "regex"

    def __init__(self) -> None:
        self.patterns = PatternSearch()

    def grade(self, problem: Problem, reply: str) -> float | None:
        found = self.patterns.search(problem.answer, reply)
        return None if found is None else float(found)


class Format:
    """The reply states its answer in a form that can be found again: \\boxed, #### or in words."""

    name = "format"

    def grade(self, problem: Problem, reply: str) -> float | None:
        return float(bool(stated_answer(reply)))


class PythonTests:
    """The reply's code passes all of the problem's tests: all or nothing.

    Code runs in the sandbox and returns plain values; they are compared here, as == does but that
    True is not 1. None when no test has a form that can be judged, or the clock ended the run with
    no test failed. Refused (77) when this machine has no isolation.
    """

    name = "python-tests"

    def __init__(self) -> None:
        from llmctl.core.errors import Refused
        from llmctl.sandbox import available

        if reason := available():
            raise Refused(
                f"reward python-tests runs code that a model wrote, and this machine has no "
                f"isolation for it ({reason}); use another reward"
            )

    def grade(self, problem: Problem, reply: str) -> float | None:
        from llmctl.reward.python_tests import grade_tests

        tests = problem.meta.get("tests") or problem.answer.split("\n")
        tests = [test for test in tests if test.strip()]
        setup = str(problem.meta.get("setup") or "")
        grade = grade_tests(code_of(reply), tests, setup, exact=False)
        return 0.0 if grade.failures else None if grade.share is None else 1.0


def code_of(reply: str) -> str:
    """The last fenced block of a reply, or all of it when there is none."""
    found = _CODE.findall(reply[-MAX_REPLY:])
    return found[-1] if found else reply[-MAX_REPLY:]


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and surplus spaces; digits of any script as 0-9.

    As SQuAD and TriviaQA score answers, but that a number keeps its minus and its point, and a text
    of articles alone ("A", of four choices) keeps them.
    """
    text = plain_digits(unicodedata.normalize("NFKC", text[:MAX_REPLY]).casefold())
    kept = {m.start(part) for m in _NUMBER.finditer(text) for part in (1, 2, 3)}
    text = "".join(
        " " if unicodedata.category(c)[0] in "PSCZ" and i not in kept else c
        for i, c in enumerate(text)
    )
    return " ".join(_ARTICLES.sub(" ", text).split() or text.split())


def _formula(text: str) -> str:
    """A mathematical text for comparison: no spaces, dollars or final full stop."""
    return re.sub(r"[\s$]|\\[,;!]", "", text.strip().rstrip(".")).casefold()


_VERIFIERS: dict[str, type] = {v.name: v for v in (Math, Exact, Regex, Format, PythonTests)}
NAMES = tuple(_VERIFIERS)


def verifier(name: str) -> Verifier:
    """The verifier of that name. UsageError (2) when there is none; Refused (77): PythonTests."""
    if name not in _VERIFIERS:
        raise UsageError(f"no verifier {name!r}{did_you_mean(name, list(NAMES))}")
    return _VERIFIERS[name]()  # type: ignore[no-any-return]


def verifiers(names: Iterable[str]) -> dict[str, Verifier]:
    """One verifier for each name."""
    return {name: verifier(name) for name in sorted(set(names))}
