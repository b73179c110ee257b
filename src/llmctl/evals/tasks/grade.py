"""Replies to open items graded: by alias, or by a verifier of the reward room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmctl.core.errors import UsageError, did_you_mean
from llmctl.data.problems import Problem
from llmctl.evals.tasks import match
from llmctl.evals.tasks.kinds import Open
from llmctl.reward.verifiers import NAMES, Verifier, verifier

MATCH = "match"


@dataclass(frozen=True)
class Grade:
    """right: None where the verifier could not say. exact: the reply is the answer alone."""

    right: float | None
    exact: bool
    refused: bool


class Grader:
    """Grades replies; verifiers are opened when an item first needs one."""

    def __init__(self) -> None:
        self._verifiers: dict[str, Verifier] = {}

    def check(self, items: Sequence[Open], where: str) -> None:
        """Open the verifiers that items need, before a model is asked. UsageError (2) names one
        that there is not."""
        for name in sorted({item.verifier for item in items} - {MATCH}):
            if name not in NAMES:
                raise UsageError(f"{where}: no verifier {name!r}{did_you_mean(name, list(NAMES))}")
            self._verifiers[name] = verifier(name)

    def grade(self, item: Open, reply: str) -> Grade:
        """How a reply does."""
        refused = match.is_refusal(reply)
        exact = match.exact(reply, item.answers)
        if item.verifier == MATCH and match.is_refusal(item.answers[0]):
            return Grade(float(refused), exact, refused)  # right is to say that one does not know
        if item.verifier == MATCH:
            return Grade(float(match.is_right(reply, item.answers)), exact, refused)
        meta = {**item.meta, "aliases": list(item.answers[1:])}
        problem = Problem(
            [{"role": "user", "content": item.question}],
            item.answers[0],
            item.verifier,
            where=item.where,
            meta=meta,
        )
        return Grade(self._verifiers[item.verifier].grade(problem, reply), exact, refused)
