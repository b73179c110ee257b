"""What a reward model learns from: rankings read, put into ids, and parted from the held-out ones.

A prompt (an OASST tree) is on one side only: what is held out is asked nowhere in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.artifacts.lineage import find_upstream
from llmctl.artifacts.store import Artifact
from llmctl.core import console
from llmctl.core.errors import BadInput
from llmctl.core.seeds import derive
from llmctl.data.preferences import Ranking, read_preferences
from llmctl.reward.encode import Encoded, Encoder

READ_COLUMNS = ["data", "form", "rows", "rankings", "pairs", "left out"]


@dataclass(frozen=True)
class Entry:
    """A ranking and its ids; the texts of `encoded.responses` are the ranking's `numbers`."""

    ranking: Ranking
    encoded: Encoded

    def text(self, i: int) -> str:
        """What the i-th response that is scored says."""
        return self.ranking.text(self.encoded.numbers[i])


@dataclass(frozen=True)
class Parted:
    """Entries to train on and to judge by; `how` says what parted them."""

    train: list[Entry]
    held_out: list[Entry]
    how: str


def paths_of(given: Sequence[str], model: Artifact) -> list[Path]:
    """What --data names, else the web that the model was made from."""
    return [Path(g) for g in given] or [find_upstream(model, "web", "name rankings with --data")]


def read_all(paths: Sequence[Path], max_bad: float) -> list[Ranking]:
    """The rankings of all sources, with a table of what was found and what was left out."""
    found = [(path, read_preferences(path, max_bad=max_bad)) for path in paths]
    rows = []
    for path, p in found:
        left_out = sum(s.count for s in p.skipped.values())
        rows.append((str(path), p.format, p.n_rows, len(p.rows), p.n_pairs, left_out))
    console.table("Preferences", READ_COLUMNS, rows, left=2)
    for path, preferences in found:
        for line in preferences.describe_skipped():
            console.info(f"  left out of {path.name}: {line}")
    return [ranking for _, p in found for ranking in p.rows]


def encode_all(rankings: Sequence[Ranking], encoder: Encoder) -> list[Entry]:
    """Rankings that fit, as entries. BadInput (65) when none does."""
    encoded = encoder.encode(rankings)
    entries = [Entry(r, e) for r, e in zip(rankings, encoded) if e is not None]
    for what, n in sorted(encoder.counts.items()):
        console.warn(f"{n:,} {what} (seq_len={encoder.seq_len:,})")
    if not entries:
        raise BadInput(f"no ranking fits seq_len={encoder.seq_len:,} tokens; raise it")
    return entries


def part(entries: Sequence[Entry], fraction: float, seed: int) -> Parted:
    """By the data's own split where it has one, else `fraction` of the prompts (or trees)."""
    if any(e.ranking.split == "test" for e in entries):
        held = {id(e) for e in entries if e.ranking.split == "test"}
        how = "the data's own split"
    else:
        groups = _shuffled(entries, seed)
        n = min(len(groups) - 1, max(1, round(fraction * len(groups)))) if fraction else 0
        chosen = set(groups[:n])
        held = {id(e) for e in entries if e.ranking.group in chosen}
        how = f"{fraction:.0%} of the prompts" if n else "nothing held out"
    return _parted(entries, held, how)


def fold_parts(entries: Sequence[Entry], folds: int, seed: int) -> list[Parted]:
    """`folds` ways to hold out, each prompt (or tree) once. BadInput (65) for fewer prompts."""
    groups = _shuffled(entries, seed)
    if len(groups) < folds:
        raise BadInput(f"{len(groups)} prompts cannot be parted into folds={folds}; lower it")
    fold_of = {group: i % folds for i, group in enumerate(groups)}
    parts = []
    for fold in range(folds):
        held = {id(e) for e in entries if fold_of[e.ranking.group] == fold}
        parts.append(_parted(entries, held, f"fold {fold + 1} of {folds}"))
    return parts


def _shuffled(entries: Sequence[Entry], seed: int) -> list[str]:
    """The groups in an order that depends on their names and the seed alone."""
    groups = {e.ranking.group for e in entries}
    return sorted(groups, key=lambda group: (derive(seed, "held out", group), group))


def _parted(entries: Sequence[Entry], held: set[int], how: str) -> Parted:
    """Without training entries whose very prompt is held out in another group."""
    held_out = [e for e in entries if id(e) in held]
    asked = {e.ranking.prompt_key for e in held_out}
    rest = [e for e in entries if id(e) not in held]
    train = [e for e in rest if e.ranking.prompt_key not in asked]
    if len(train) < len(rest):
        n = len(rest) - len(train)
        console.info(f"{n:,} rankings not trained on: their prompts are held out ({how})")
    if not train:
        raise BadInput(f"no ranking left to train on: {len(held_out):,} held out ({how})")
    return Parted(train, held_out, how)
