"""A judge gives many answers their rewards at once: by verifiers, or by a reward model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from llmctl.core.errors import UsageError
from llmctl.core.hardware import cpu_count
from llmctl.data.problems import Problem
from llmctl.reward.verifiers import NAMES, Verifier, verifiers

AUTO = "auto"  # each problem names its verifier
SLOW = {"python-tests"}  # wait for other processes, so that threads help
MAX_WORKERS = 16

Answers = Sequence[tuple[Problem, str]]


class Judge(Protocol):
    """verdicts: rewards are right or wrong, so that a share of right answers has a meaning."""

    name: str
    verdicts: bool

    def grade_all(self, answers: Answers) -> list[float | None]: ...


def finite(value: Any) -> float | None:
    """A reward as a number; None for whatever is none: NaN, infinities, text, nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float(value) if isinstance(value, bool) else None
    return float(value) if math.isfinite(value) else None


class VerifierJudge:
    """By verifiers: one for all problems, or with "auto" the one that each names."""

    verdicts = True

    def __init__(
        self, name: str, problems: Sequence[Problem], *, format_weight: float = 0.0
    ) -> None:
        """problems: all that will be graded, so that what they need is checked before any work.

        format_weight: added to the reward of answers that state their result explicitly.
        """
        self.name, self.auto = name, name == AUTO
        named = {p.verifier for p in problems} if self.auto else {name}
        self._verifiers = verifiers(named | ({"format"} if format_weight else set()))
        self.format_weight = format_weight
        slow = bool(SLOW & named)
        self._pool = ThreadPoolExecutor(min(MAX_WORKERS, cpu_count())) if slow else None

    def _of(self, problem: Problem) -> Verifier:
        return self._verifiers[problem.verifier if self.auto else self.name]

    def grade_all(self, answers: Answers) -> list[float | None]:
        """A reward for each (problem, reply); None: no verdict."""
        run = map if self._pool is None else self._pool.map
        return list(run(self._grade, answers))

    def _grade(self, answer: tuple[Problem, str]) -> float | None:
        problem, reply = answer
        value = finite(self._of(problem).grade(problem, reply))
        if value is None or not self.format_weight:
            return value
        marked = self._verifiers["format"].grade(problem, reply) or 0.0
        return value + self.format_weight * marked


class ModelJudge:
    """By a reward model: the score it gives to the conversation that ends with the reply."""

    verdicts = False

    def __init__(self, folder: Path, name: str = "", **options: Any) -> None:
        """options: of Scorer.open. Mismatch (78) when the folder holds no reward model."""
        from llmctl.reward.scorer import Scorer

        self.name = name or str(folder)
        self.scorer = Scorer.open(folder, **options)

    def grade_all(self, answers: Answers) -> list[float | None]:
        """A score for each (problem, reply); None where the model gave no finite number."""
        conversations = [[*p.prompt, {"role": "assistant", "content": r}] for p, r in answers]
        return [finite(score) for score in self.scorer.score(conversations)]


def is_model(reward: str) -> bool:
    """Whether a reward is a reward model's folder. UsageError (2) for a word that is neither."""
    if reward in (*NAMES, AUTO):
        return False
    if not Path(reward).is_dir():
        raise UsageError(
            f"reward={reward!r} is neither a verifier ({', '.join((AUTO, *NAMES))}) nor the folder "
            "of a reward model; check the path"
        )
    return True
