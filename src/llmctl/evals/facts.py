"""Which facts of the synthetic world a model completes, by how often it has seen them.

A fact's exposure is counted after filtering: pages that state it, were kept, and went into the
training split. The prompt is a phrasing from the pages, cut right before the value; the completion
is greedy and right when it begins with the value or an alias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.evals.intervals import wilson
from llmctl.synth.facts import EXPOSURES

# name of a row -> exposures it takes in; some pages are lost, and gaps keep the classes apart
BUCKETS = {"never": (0, 0), "once": (1, 1)} | {
    f"{times} times": (times // 2, times * 4 // 3) for times in EXPOSURES if times > 1
}
COLUMNS = ["seen in training", "facts", "mean exposure", "right", "accuracy", "95% interval"]


@dataclass(frozen=True)
class Row:
    """One exposure class: facts asked, answered right, and how sure the share is."""

    seen: str
    facts: int
    mean_exposure: float
    right: int

    @property
    def accuracy(self) -> float:
        """Share answered right, 0..1; 0 without facts."""
        return self.right / self.facts if self.facts else 0.0

    def cells(self) -> tuple[Any, ...]:
        """The row as COLUMNS has it."""
        low, high = wilson(self.right, self.facts)
        interval = f"{low:.1%} – {high:.1%}"
        mean = f"{self.mean_exposure:.1f}"
        return self.seen, self.facts, mean, self.right, f"{self.accuracy:.1%}", interval


def read_facts(web: Path) -> list[dict[str, Any]]:
    """The rows of a web artifact's facts.parquet."""
    import pyarrow.parquet as pq

    return pq.read_table(web / "facts.parquet").to_pylist()


def is_right(completion: str, answers: Sequence[str]) -> bool:
    """Whether a completion begins with one of the answers as a whole word."""
    said = completion.lstrip().lower()
    for answer in answers:
        wanted = answer.strip().lower()
        if wanted and said.startswith(wanted) and not said[len(wanted) :][:1].isalnum():
            return True
    return False


def facts_by_exposure(
    facts: Sequence[Mapping[str, Any]],
    exposures: Mapping[str, int],
    complete: Callable[[list[str]], list[str]],
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Ask for every fact that falls into a bucket. Returns the rows and each answer given.

    complete: prompts -> greedy completions, in order.
    """
    asked = []
    for fact in facts:
        seen = exposures.get(fact["fact_id"], 0)
        bucket = next((b for b, (low, high) in BUCKETS.items() if low <= seen <= high), None)
        if bucket is not None and fact["prompts"]:
            asked.append((bucket, seen, fact))
    completions = complete([fact["prompts"][0] for _, _, fact in asked])
    answers = [
        {
            "fact_id": fact["fact_id"],
            "seen": seen,
            "bucket": bucket,
            "prompt": fact["prompts"][0],
            "value": fact["value"],
            "completion": said,
            "right": is_right(said, [fact["value"], *(fact["aliases"] or [])]),
        }
        for (bucket, seen, fact), said in zip(asked, completions)
    ]
    rows = []
    for bucket in BUCKETS:
        mine = [a for a in answers if a["bucket"] == bucket]
        mean = sum(a["seen"] for a in mine) / len(mine) if mine else 0.0
        rows.append(Row(bucket, len(mine), mean, sum(a["right"] for a in mine)))
    return rows, answers
