"""The shards of a split: filled in the order of the input, resumed behind the last whole one.

Beside each finished shard lies, in state/, the position where the next one of its split begins:
(unit, row, ids of that row already written), what was counted up to there, and the damage that was
skipped before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llmctl.core.files import read_json, write_json
from llmctl.data.bins import BinWriter, Shard
from llmctl.data.documents import Unit
from llmctl.data.rows import BAD, EMPTY, REPLACED
from llmctl.tokenizer.bpe import Tokenizer

SPLITS = ("train", "val")
STATE = "state"


@dataclass(frozen=True)
class EncodePlan:
    """All that decides the bins, and how to make them. val_below: see `split_threshold`."""

    folder: Path
    units: Sequence[Unit]
    text_column: str
    val_below: int
    seed: int
    shard_tokens: int
    dtype: str
    encoder: str
    workers: int = 1
    max_bad: float = 0.0
    skip_damaged: bool = False


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a unit. rows (N, 4) int64: split, ids, UTF-8 bytes, mark; ids 0 when the
    row is left out. ids: theirs in a row, each document begun by the document id."""

    rows: np.ndarray
    ids: np.ndarray
    problem: str = ""
    damage: str = ""


@dataclass
class Counts:
    """What went into a split so far. bytes: UTF-8 bytes of the text."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    empty: int = 0
    replaced: int = 0
    bad: int = 0

    def add(self, rows: np.ndarray) -> None:
        """Count rows (N, 4) of a block."""
        kept = rows[:, 1] > 0
        self.documents += int(kept.sum())
        self.tokens += int(rows[:, 1].sum())
        self.bytes += int(rows[kept, 2].sum())
        self.empty += int((rows[:, 3] == EMPTY).sum())
        self.replaced += int((rows[:, 3] == REPLACED).sum())
        self.bad += int((rows[:, 3] == BAD).sum())


@dataclass
class SplitWriter:
    """The shards of one split, filled in order. A document is cut only where it alone is longer
    than a shard; a shard ends before the document that does not fit."""

    plan: EncodePlan
    split: str
    tokenizer: Tokenizer
    counts: Counts = field(default_factory=Counts)
    damaged: dict[int, str] = field(default_factory=dict)  # unit: what; both splits share it
    position: tuple[int, int, int] = (0, 0, 0)  # unit, row, tokens of it already written
    shard: int = 0
    _writer: BinWriter | None = None

    def resume(self) -> None:
        """Go on behind the shards that are complete; drop what lies beyond them."""
        folder, finished = self.plan.folder, False
        while not finished and (state := self._state(self.shard)).is_file():
            path = self._path(self.shard)
            facts = read_json(state)
            if not path.is_file() or Shard.open(path).tokenizer_hash != self.tokenizer.hash:
                break
            self.counts = Counts(**facts["counts"])
            self.position = tuple(facts["next"])
            self.damaged.update({int(unit): what for unit, what in facts["damaged"].items()})
            self.shard += 1
        for path in folder.glob(f"{self.split}-*"):
            if int(path.stem.split("-")[1]) >= self.shard:
                path.unlink()

    def _path(self, shard: int) -> Path:
        return self.plan.folder / f"{self.split}-{shard:05d}.bin"

    def _state(self, shard: int) -> Path:
        return self.plan.folder / STATE / f"{self.split}-{shard:05d}.json"

    def first_row(self, unit: int) -> int:
        """The first row of a unit that is still wanted."""
        at, row, _ = self.position
        return row if unit == at else 0 if unit > at else 1 << 62

    def add(self, unit: int, first: int, block: Block) -> None:
        """Append this split's documents of a block whose rows begin at row `first` of the unit."""
        mine = block.rows[:, 0] == SPLITS.index(self.split)
        ids = block.ids[np.repeat(mine, block.rows[:, 1])]
        numbers = first + np.flatnonzero(mine)
        fresh = numbers >= self.first_row(unit)  # what a resumed run has already has no ids here
        rows, numbers = block.rows[mine][fresh], numbers[fresh]
        ends = np.cumsum(rows[:, 1])
        begins = ends - rows[:, 1]
        done = counted = at = 0  # ids written, rows counted, rows written whole
        if len(rows) and (unit, int(numbers[0])) == self.position[:2] and self.position[2]:
            done, counted = self.position[2], 1  # its beginning is in the shard before
        while at < len(rows):
            shard = self._open()
            room = self.plan.shard_tokens - shard.n_tokens
            fits = max(at, int(np.searchsorted(ends, done + room, side="right")))
            stop, started = (int(ends[fits - 1]), fits) if fits > at else (done, at)
            if fits == at and not shard.n_tokens:  # longer than a whole shard
                stop, started = done + room, at + 1
            inside = (begins >= done) & (begins < stop) & (rows[:, 1] > 0)
            shard.append(ids[done:stop], begins[inside] - done)
            self.counts.add(rows[counted:started])
            done, at, counted = stop, fits, max(counted, started)
            if at < len(rows):
                self.close((unit, int(numbers[at]), done - int(begins[at])))

    def _open(self) -> BinWriter:
        if self._writer is None:
            self._writer = BinWriter(
                self._path(self.shard),
                dtype=self.plan.dtype,
                vocab_size=self.tokenizer.vocab_size,
                eot_id=self.tokenizer.eot_id,
                tokenizer_hash=self.tokenizer.hash,
            )
        return self._writer

    def close(self, next_position: tuple[int, int, int]) -> None:
        """Publish the shard; its state comes first, so a shard is never without one."""
        writer, self._writer = self._open(), None
        self.position = next_position
        facts = {
            "next": list(next_position),
            "counts": vars(self.counts),
            "damaged": self.damaged,
        }
        write_json(self._state(self.shard), facts)
        writer.finish()
        self.shard += 1

    def abandon(self) -> None:
        """Drop the unfinished shard."""
        if self._writer is not None:
            self._writer.abandon()
