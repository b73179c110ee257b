"""What a reward model is worth on rankings it has not seen, beside rules that know no model."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.core import console
from llmctl.core.files import atomic_write, write_json
from llmctl.evals.floors import WordPreferences
from llmctl.evals.pairwise import (
    Agreement,
    Outcome,
    agreement,
    by_length,
    histogram,
    judged,
    verdict,
)
from llmctl.train.rm_data import Entry

LONGER, WORDS = "prefer the longer", "Bradley-Terry on words (TF-IDF)"
COLUMNS = ["judge", "accuracy", "95%, pairs", "95%, prompts"]


@dataclass
class Judgement:
    """Held-out rankings with the model's scores and what the floors make of the same pairs."""

    how: str
    entries: list[Entry] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    words: list[list[float]] = field(default_factory=list)

    def add(
        self, train: Sequence[Entry], held_out: Sequence[Entry], scores: Sequence[Sequence[float]]
    ) -> None:
        """More held-out rankings, scored by a model trained on `train`; so is the words' floor."""
        pairs = [(e.text(a), e.text(b)) for e in train for a, b in e.encoded.pairs]
        floor = WordPreferences(pairs)
        self.entries += held_out
        self.scores += [list(s) for s in scores]
        self.words += [
            [floor.score(e.text(i)) for i in range(len(s))] for e, s in zip(held_out, scores)
        ]

    def outcomes(self, scores: Sequence[Sequence[float]]) -> list[Outcome]:
        """Every pair, judged by these scores."""
        found = []
        for entry, values in zip(self.entries, scores):
            lengths = [max(1, len(entry.text(i))) for i in range(len(values))]
            for a, b in entry.encoded.pairs:
                ratio = lengths[a] / lengths[b]
                found.append(Outcome(judged(values[a], values[b]), ratio, entry.ranking.group))
        return found

    def _lengths(self) -> list[list[float]]:
        return [
            [float(len(e.text(i))) for i in range(len(s))]
            for e, s in zip(self.entries, self.scores)
        ]

    def sides(self) -> tuple[list[float], list[float]]:
        """Scores of responses that are preferred to another, and of those that another beats."""
        better, worse = [], []
        for entry, values in zip(self.entries, self.scores):
            better += [values[i] for i in sorted({a for a, _ in entry.encoded.pairs})]
            worse += [values[i] for i in sorted({b for _, b in entry.encoded.pairs})]
        return better, worse

    def loss(self) -> float:
        """Mean over rankings of their mean -log sigmoid(better - worse), nats."""
        every = []
        for entry, values in zip(self.entries, self.scores):
            gaps = [values[a] - values[b] for a, b in entry.encoded.pairs]
            every.append(statistics.fmean(_softplus(-gap) for gap in gaps))
        return statistics.fmean(every) if every else 0.0

    def report(self) -> dict[str, Any]:
        """Everything measured, for report.json; also prints the tables."""
        outcomes = self.outcomes(self.scores)
        model = agreement(outcomes)
        floors = {
            LONGER: agreement(self.outcomes(self._lengths())),
            WORDS: agreement(self.outcomes(self.words)),
        }
        buckets = by_length(outcomes)
        every = [x for values in self.scores for x in values]
        said = verdict(model, floors)
        self.text = _tables(self.how, model, floors, buckets, histogram(*self.sides()), said)
        console.info(self.text)
        return {
            "held_out": self.how,
            "rankings": len(self.entries),
            "loss": round(self.loss(), 4),
            "model": model.as_dict(),
            "floors": {name: floor.as_dict() for name, floor in floors.items()},
            "verdict": said,
            "below_floor": model.accuracy <= max(f.accuracy for f in floors.values()),
            "by_length": {name: found.as_dict() for name, found in buckets},
            "score_mean": round(statistics.fmean(every), 4),
            "score_std": round(statistics.pstdev(every), 4),
        }

    def write(self, folder: Path, report: dict[str, Any]) -> None:
        """report.json, report.txt, and held_out.jsonl with every score."""
        write_json(folder / "report.json", report)
        with atomic_write(folder / "report.txt") as file:
            file.write(self.text.encode() + b"\n")
        with atomic_write(folder / "held_out.jsonl") as file:
            for entry, values in zip(self.entries, self.scores):
                row = {
                    "where": entry.ranking.where,
                    "prompt": entry.ranking.prompt,
                    "responses": [entry.text(i) for i in range(len(values))],
                    "scores": [round(x, 5) for x in values],
                    "pairs": entry.encoded.pairs,
                }
                file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _tables(
    how: str,
    model: Agreement,
    floors: dict[str, Agreement],
    buckets: Sequence[tuple[str, Agreement]],
    bars: str,
    said: str,
) -> str:
    rows = [[name, *a.cells()] for name, a in (("this model", model), *floors.items())]
    of = f"{model.pairs:,} held-out pairs of {model.groups:,} prompts ({how})"
    title = f"\nAgreement with people on {of}"
    lengths = [[name, a.pairs, *a.cells()[:2]] for name, a in buckets if a.pairs]
    parts = [
        console.render_table(title, COLUMNS, rows),
        console.render_table(
            "\nby length of the preferred response against the other",
            ["preferred is", "pairs", *COLUMNS[1:3]],
            lengths,
        ),
        f"\nscores\n{bars}",
        f"\n{said}",
    ]
    return "\n".join(parts)
