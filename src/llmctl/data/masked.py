"""Sequences of which only a part is trained on, such as conversations, packed into rows.

Several sequences share a row, attention never crosses from one to the next, and nothing is ever cut
in the middle of what is trained on. Which row stands where is a pure function of (seed, sequences,
position), as in data/batches.py: the loader's state is one integer, at any world size.

A mixture has weights: in each epoch a source of weight w is passed w times (0.5: every other of its
sequences, the rest in the next epoch). Axes: B rows of a micro-batch, T tokens of a row.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from llmctl.core.errors import BadInput, UsageError
from llmctl.core.seeds import derive
from llmctl.data.batches import IGNORE, Batch, lay_out
from llmctl.data.packing import Pieces, pack, permutation

PLACES = 64  # places come in multiples of it: few shapes, so that kernels made for one are reused
EPOCHS_HELD = 2  # packed epochs kept in memory: the one at work, and the next at its edge


class Masked(Protocol):
    """Ids, and which of them are trained on; tokenizer.chat.Rendered is one."""

    @property
    def ids(self) -> list[int]: ...

    @property
    def mask(self) -> list[bool]: ...


def fitting_length(mask: Sequence[bool], seq_len: int) -> int:
    """How many tokens of a sequence fit a row: all, or up to the last end of a trained stretch
    that fits (an assistant's turn, whole); 0 when there is none, or nothing trained on."""
    flags = np.asarray(mask, dtype=bool)
    if len(flags) <= seq_len:
        return len(flags) if flags.any() else 0
    ends = np.flatnonzero(flags[:seq_len] & ~flags[1 : seq_len + 1])
    return int(ends[-1]) + 1 if len(ends) else 0


@dataclass(frozen=True)
class MaskedSequences:
    """Sequences end to end.

    ids (N,) int32; trained (N,) bool; offsets (S + 1,) int64: sequence s is offsets[s] to [s + 1].
    """

    ids: np.ndarray
    trained: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, sequences: Iterable[Masked]) -> MaskedSequences:
        """From any number of them."""
        kept = list(sequences)
        offsets = np.zeros(len(kept) + 1, dtype=np.int64)
        np.cumsum([len(s.ids) for s in kept], out=offsets[1:])
        ids = [np.array(s.ids, np.int32) for s in kept]
        trained = [np.array(s.mask, bool) for s in kept]
        if not kept:
            return cls(np.empty(0, np.int32), np.empty(0, bool), offsets)
        return cls(np.concatenate(ids), np.concatenate(trained), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence."""
        return np.diff(self.offsets)

    @property
    def hash(self) -> str:
        """sha256 (hex) of ids, masks and lengths."""
        digest = hashlib.sha256()
        for array, kind in ((self.ids, "<i4"), (self.trained, "u1"), (self.offsets, "<i8")):
            digest.update(np.ascontiguousarray(array, kind).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class MaskedBatch(Batch):
    """A Batch that also knows where its targets are, so that a loss computes nothing elsewhere.

    places (n,) int64: positions of trained targets in the flattened batch, in order, then some
    position without one up to a round n.
    """

    places: Tensor | None = None

    def to(self, device: torch.device) -> MaskedBatch:
        """The same batch on another device."""
        moved = super().to(device)
        if moved is self or self.places is None:
            return self
        places = self.places.pin_memory().to(device, non_blocking=True)
        return MaskedBatch(moved.ids, moved.targets, moved.segments, moved.bounds, places)


@dataclass(frozen=True)
class _Epoch:
    """One epoch's rows: row r holds the sequences members[offsets[r] : offsets[r + 1]]."""

    members: np.ndarray
    offsets: np.ndarray
    order: np.ndarray  # which row stands at which place

    def row(self, index: int) -> np.ndarray:
        row = self.order[index]
        return self.members[self.offsets[row] : self.offsets[row + 1]]


class MaskedRows:
    """The rows of a mixture of sources in their order since the start of training."""

    def __init__(
        self,
        sources: Sequence[MaskedSequences],
        *,
        seq_len: int,
        vocab_size: int,
        pad_id: int,
        weights: Sequence[float] | None = None,
        seed: int | None = None,
    ) -> None:
        """Every sequence at most seq_len tokens long. seed None: each source once, in the order of
        packing, for validation. BadInput (65) for an id the model has no row for."""
        self.sources = list(sources)
        self.weights = [1.0] * len(self.sources) if weights is None else [float(w) for w in weights]
        self.seq_len, self.pad_id, self.seed = seq_len, pad_id, seed
        sizes = [len(s) for s in self.sources]
        self._first = np.cumsum([0, *sizes])  # number of each source's first sequence
        self.ids = np.concatenate([s.ids for s in self.sources] or [np.empty(0, np.int32)])
        self.trained = np.concatenate([s.trained for s in self.sources] or [np.empty(0, bool)])
        lengths = np.concatenate([s.lengths for s in self.sources] or [np.empty(0, np.int64)])
        self.lengths = lengths.astype(np.int32)
        self.starts = np.cumsum(lengths) - lengths
        if not sum(sizes):
            raise BadInput("no sequence to train on is left; give more data, or a longer seq_len")
        if int(self.lengths.max()) > seq_len:
            raise ValueError(f"a sequence of {int(self.lengths.max()):,} tokens, rows of {seq_len}")
        if (highest := int(self.ids.max(initial=0))) >= vocab_size:
            raise BadInput(f"token id {highest:,}, but the model has {vocab_size:,} ids")
        self._same = all(w.is_integer() for w in self.weights)  # every epoch has the same lengths
        self._epochs: dict[int, _Epoch] = {}
        self._begins = [0]  # position of each epoch's first row, as far as it is known
        self.most_pieces = max(1, min(seq_len // max(1, int(self.lengths.min())), len(lengths)))

    def __len__(self) -> int:
        """Rows of the first epoch."""
        return self.begin(1)

    @property
    def n_tokens(self) -> int:
        """Tokens of the first epoch, padding left out."""
        return int(self.lengths[self._epoch(0).members].sum())

    @property
    def n_targets(self) -> int:
        """Tokens of the first epoch that are trained on."""
        each = np.add.reduceat(self.trained.astype(np.int64), self.starts)
        return int(each[self._epoch(0).members].sum())

    @property
    def padding(self) -> float:
        """Share of the first epoch's positions that hold no token."""
        return 1 - self.n_tokens / (len(self) * self.seq_len)

    def begin(self, epoch: int) -> int:
        """Position of an epoch's first row."""
        while len(self._begins) <= epoch:
            last = len(self._begins) - 1
            rows = self._begins[1] if self._same and last else len(self._epoch(last).order)
            self._begins.append(self._begins[-1] + rows)
        return self._begins[epoch]

    def rows_of(self, epochs: float) -> int:
        """Rows of so many epochs from the start."""
        whole = int(epochs)
        rest = round((epochs - whole) * (self.begin(whole + 1) - self.begin(whole)))
        return self.begin(whole) + rest

    def epoch_at(self, position: int) -> float:
        """Epochs done before this row."""
        epoch, index = self._find(position)
        return epoch + index / (self.begin(epoch + 1) - self.begin(epoch))

    def members(self, position: int) -> np.ndarray:
        """Numbers of the sequences in the row at this position since the start of training."""
        epoch, index = self._find(position)
        return self._epoch(epoch).row(index)

    def tokens_at(self, positions: Iterable[int]) -> int:
        """Tokens in these rows, padding left out."""
        return sum(int(self.lengths[self.members(p)].sum()) for p in positions)

    def _find(self, position: int) -> tuple[int, int]:
        while self._begins[-1] <= position:
            self.begin(len(self._begins))
        epoch = bisect_right(self._begins, position) - 1
        return epoch, position - self._begins[epoch]

    def _epoch(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            while len(self._epochs) >= EPOCHS_HELD:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[epoch] = self._packed(epoch)
        return self._epochs[epoch]

    def _packed(self, epoch: int) -> _Epoch:
        """Choose the epoch's sequences, pack them, put the rows in an order."""
        numbers = np.concatenate([self._drawn(s, epoch) for s in range(len(self.sources))])
        if not len(numbers):  # weights far below one: an epoch may be empty, a row may not
            numbers = np.array([int(np.argmin(self.lengths))])
        pieces = Pieces(self.starts[numbers], self.lengths[numbers], np.ones(len(numbers), bool))
        rows = pack(pieces.lengths, self.seq_len)
        order = np.arange(len(rows))
        key = 0
        if self.seed is not None:
            key = derive(self.seed, "pieces", epoch)
            order = permutation(len(rows), derive(self.seed, "rows", epoch))
        return _Epoch(numbers[rows.assign(pieces, key)], rows.offsets, order)

    def _drawn(self, source: int, epoch: int) -> np.ndarray:
        """A source's sequences in an epoch: the next stretch of its passes, each in a new order."""
        n, weight = len(self.sources[source]), self.weights[source]
        if self.seed is None or not n:
            return np.arange(n) + self._first[source]
        start, stop = int(epoch * weight * n), int((epoch + 1) * weight * n)
        parts = []
        for turn in range(start // n, -(-stop // n)):
            order = permutation(n, derive(self.seed, "pass", source, turn))
            parts.append(order[max(start - turn * n, 0) : stop - turn * n])
        found = np.concatenate(parts) if parts else np.empty(0, np.int64)
        return found + self._first[source]

    def read(self, positions: Iterable[int]) -> MaskedBatch:
        """The rows at these positions as one batch. A token is a target of the one before it where
        it is trained on; the first of a sequence never is."""
        rows = [[self._sequence(s) for s in self.members(p)] for p in positions]
        batch = lay_out(rows, self.seq_len, pad_id=self.pad_id, most_pieces=self.most_pieces)
        places = np.flatnonzero(batch.targets.numpy() != IGNORE)
        nothing = len(rows[0][0][0]) - 1  # the last token of a sequence never has a target
        places = np.append(places, np.full(-len(places) % PLACES, nothing))
        laid = batch.ids, batch.targets, batch.segments, batch.bounds
        return MaskedBatch(*laid, torch.from_numpy(places))

    def _sequence(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a sequence, and the target of each."""
        part = slice(int(self.starts[number]), int(self.starts[number] + self.lengths[number]))
        ids, trained = self.ids[part], self.trained[part]
        return ids, np.append(np.where(trained[1:], ids[1:], IGNORE), IGNORE)


class MaskedBatches:
    """A rank's share of each step's rows, in micro-batches."""

    def __init__(
        self, rows: MaskedRows, *, rows_per_step: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if rows_per_step % world_size:
            raise UsageError(
                f"{rows_per_step:,} rows a step cannot be shared by {world_size} ranks; choose "
                f"batch_tokens as a multiple of {world_size} x seq_len={rows.seq_len:,}"
            )
        self.rows, self.rows_per_step = rows, rows_per_step
        self.share = rows_per_step // world_size
        self.first = rank * self.share

    def positions(self, step: int) -> range:
        """Rows of a step, over all ranks."""
        return range(step * self.rows_per_step, (step + 1) * self.rows_per_step)

    def take(self, step: int, micro_batch: int) -> Iterator[MaskedBatch]:
        """This rank's rows of a step, `micro_batch` rows at a time."""
        mine = self.positions(step)[self.first : self.first + self.share]
        for at in range(0, len(mine), micro_batch):
            yield self.rows.read(mine[at : at + micro_batch])

    def tokens(self, step: int) -> int:
        """Tokens of a step, padding left out."""
        return self.rows.tokens_at(self.positions(step))

    def metrics(self, step: int) -> dict[str, Any]:
        """How far through the data the run is."""
        return {"epoch": round(self.rows.epoch_at(self.positions(step + 1)[0]), 4)}

    def describe(self, step: int) -> dict[str, Any]:
        """Which sequences the whole step's rows hold, for a person who looks for a bad batch."""
        held = [self.rows.members(p).tolist() for p in self.positions(step)]
        return {"step": step, "first_row": self.positions(step)[0], "sequences": held}


def without_targets(batch: MaskedBatch, row: int) -> MaskedBatch:
    """The batch with no target from this row on: rows that only fill a shape."""
    targets = batch.targets.clone()
    targets[row:] = IGNORE
    return replace(batch, targets=targets)
