"""What a task file holds, whatever its format: items scored by likelihood, or asked openly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["choice", "schema", "completion", "open"]
KINDS = {
    "choice": "multiple choice by likelihood",
    "schema": "one ending, several contexts, by likelihood",
    "completion": "the ending word for word",
    "open": "answered in the model's own words",
}


@dataclass(frozen=True)
class Choice:
    """Scored by the likelihood of continuations.

    choice: one context, several continuations; schema: several contexts, one continuation;
    completion: one of each. gold: index of the right one.
    """

    where: str  # "file.jsonl:12"
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int

    def pairs(self) -> list[tuple[str, str]]:
        """(context, continuation) of each option."""
        return [(c, k) for c in self.contexts for k in self.continuations]


@dataclass(frozen=True)
class Open:
    """A question with the answers that count. worked: an answer with its reasoning, for shots;
    verifier: who grades the reply ("match" or a name of reward.verifiers)."""

    where: str
    question: str
    answers: tuple[str, ...]
    verifier: str = "match"
    worked: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


Item = Choice | Open


@dataclass(frozen=True)
class Task:
    """The items of one kind in one file.

    delimiter: what stands between context and continuation. chance: the share a guess gets right,
    0..1. skipped: reason -> (rows, the first one's place).
    """

    name: str
    kind: Kind
    path: Path
    items: tuple[Item, ...]
    chance: float
    delimiter: str = " "
    core_shots: int = 0
    skipped: Mapping[str, tuple[int, str]] = field(default_factory=dict)
