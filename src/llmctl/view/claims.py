"""What the whole run shows, one row a claim: measured on held-out items, and whether it holds.

The figures are read from the artifacts of one run: the report of `eval --abilities` over its models
(pretrain, sft, honest, rl), and the manifests of rm and rl-rm. A claim whose artifact is missing is
not made; one that does not hold says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.artifacts.manifest import MANIFEST, read_manifest
from llmctl.core.console import render_table
from llmctl.core.errors import NoInput
from llmctl.core.files import read_json

Part = Mapping[str, Any]  # right, n, rate, low, high
OVER_OPTIMISED = "over-optimised"  # why an rl run ended, as its manifest has it


@dataclass(frozen=True)
class Row:
    """One claim. measured: the figures in words; n: questions asked; holds: what became of it."""

    claim: str
    measured: str
    n: int
    holds: bool


class Figures:
    """What a run measured. KeyError where a figure is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        report = folder / "report" / "report.json"
        found = read_json(report) if report.is_file() else {}
        self._abilities: dict[str, dict[str, Part]] = found.get("abilities", {})

    def of(self, model: str, ability: str) -> Part:
        """How a model did at an ability."""
        return self._abilities[model][ability]

    def stats(self, name: str) -> dict[str, Any]:
        """The stats of an artifact's manifest."""
        path = self.folder / name
        if not (path / MANIFEST).is_file():
            raise KeyError(name)
        return read_manifest(path)["stats"]

    def looks(self, name: str) -> list[tuple[float, float]]:
        """(reward, gold) on held-out problems at the start and at every look of an rl run."""
        stats = self.stats(name)
        text = (self.folder / name / "metrics.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.split("\n") if line]
        later = [(r["eval_reward"], r["eval_gold"]) for r in rows if r.get("eval_gold") is not None]
        return [(stats["start_reward"], stats["start_gold"]), *later]


def shown(part: Part) -> str:
    """'83.5% (78.1–87.8)'."""
    return f"{100 * part['rate']:.1f}% ({100 * part['low']:.1f}–{100 * part['high']:.1f})"


def _answers(f: Figures) -> Row:
    base, tuned, ends = f.of("pretrain", "known"), f.of("sft", "known"), f.of("sft", "answers")
    return Row(
        "a base model does not answer; after sft it does, in form (≥ 98%)",
        f"{shown(base)} → {shown(tuned)}; form {shown(ends)}",
        tuned["n"],
        tuned["low"] > base["high"] and ends["rate"] >= 0.98,
    )


def _invents(f: Figures) -> Row:
    part = f.of("sft", "strangers")
    return Row(
        "asked about strangers it invents",
        f"admits it: {shown(part)}",
        part["n"],
        part["high"] < 0.2,
    )


def _honest(f: Figures) -> Row:
    part = f.of("honest", "strangers")
    return Row(
        "after probe and sft it says it does not know (≥ 80%)",
        f"admits it: {shown(part)}",
        part["n"],
        part["rate"] >= 0.8,
    )


def _keeps(f: Figures) -> Row:
    before, after = f.of("sft", "known"), f.of("honest", "known")
    return Row(
        "and known facts lose at most 5 points",
        f"{shown(before)} → {shown(after)}",
        after["n"],
        round(before["rate"] - after["rate"], 6) <= 0.05,
    )


def _search(f: Figures) -> Row:
    part, alone = f.of("honest", "search"), f.of("honest", "rare")
    return Row(
        "with search it answers what it has not learned (≥ 80%)",
        f"{shown(part)}, without {shown(alone)}",
        part["n"],
        part["rate"] >= 0.8,
    )


def _beats(claim: str, better: str, worse: str, margin: float = 0.0) -> Callable[[Figures], Row]:
    """The claim that the honest model is clearly better at one ability than at another."""

    def row(f: Figures) -> Row:
        more, less = f.of("honest", better), f.of("honest", worse)
        measured = f"{shown(more)} against {shown(less)}"
        return Row(claim, measured, more["n"], more["low"] > less["high"] + margin)

    return row


def _rl(f: Figures) -> Row:
    before, after = f.of("honest", "problems"), f.of("rl", "problems")
    return Row(
        "rl raises problems of three and four steps by 10 points",
        f"{shown(before)} → {shown(after)}",
        after["n"],
        round(after["rate"] - before["rate"], 6) >= 0.1,
    )


def _rm(f: Figures) -> Row:
    stats = f.stats("rm")
    low, high = stats["accuracy95"]
    best = max(stats["floors"], key=stats["floors"].get)
    floors = f"best floor {100 * stats['floors'][best]:.1f}%, {best.lower()}"
    return Row(
        "the reward model agrees with held-out rankings (≥ 75%)",
        f"{100 * stats['accuracy']:.1f}% ({100 * low:.1f}–{100 * high:.1f}); {floors}",
        stats["held_out_pairs"],
        stats["accuracy"] >= 0.75 and not stats["below_floor"],
    )


def _guard(f: Figures) -> Row:
    stats, looks = f.stats("rl-rm"), f.looks("rl-rm")
    (reward, gold), (last_reward, last_gold) = looks[0], looks[-1]
    return Row(
        "rl against it raises its score, and is stopped when gold falls",
        f"score {reward:.3f} → {last_reward:.3f}, gold {gold:.3f} → {last_gold:.3f}; "
        f"{stats['stopped'] or 'not stopped'} after {stats['steps']} updates",
        stats["end_n"],
        last_reward > reward and last_gold < gold and stats["stopped"] == OVER_OPTIMISED,
    )


CLAIMS: tuple[Callable[[Figures], Row], ...] = (
    _answers,
    _invents,
    _honest,
    _keeps,
    _search,
    _beats("a fact in the context beats one in the parameters by far", "context", "rare", 0.3),
    _beats("word problems: steps beat an answer at once", "steps", "direct"),
    _beats("and so does the python tool", "python", "direct"),
    _beats("letters: the python tool beats tokens by heart", "letters-python", "letters"),
    _rl,
    _rm,
    _guard,
)


def claim_rows(folder: Path) -> list[Row]:
    """The claims that a run's artifacts allow. NoInput (66) when there are none."""
    figures, rows = Figures(folder), []
    for claim in CLAIMS:
        try:
            rows.append(claim(figures))
        except KeyError:
            continue
    if not rows:
        raise NoInput(
            f"{folder}: nothing measured here; --claims reads report/ (of eval --abilities), rm/ "
            "and rl-rm/ below the folder of a run"
        )
    return rows


def claims_table(folder: Path) -> str:
    """The table as text."""
    found = claim_rows(folder)
    rows = [(r.claim, r.measured, f"{r.n:,}", "yes" if r.holds else "NO") for r in found]
    columns = ["claim", "right on held-out items (95% interval)", "n", "holds"]
    return render_table("", columns, rows, left=2)
