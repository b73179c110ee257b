"""Batches of packed rows: a pure function of (seed, tokens, position).

Position p counts rows since the start of training. Which row it is depends on the seed and the
tokens' fingerprint alone, not on ranks, micro-batches or what was read before: the loader's whole
state is one integer, at any world size. Each epoch packs and orders the rows anew.

Axes: B rows of a micro-batch, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from llmctl.core.errors import BadInput, UsageError
from llmctl.core.seeds import derive
from llmctl.data.packing import Pieces, Rows, pack, permutation, split_documents

IGNORE = -100  # a target that is not trained on (padding)


class Bins(Protocol):
    """What is needed of a split of token bins."""

    @property
    def n_tokens(self) -> int: ...

    @property
    def doc_starts(self) -> np.ndarray: ...

    def read(self, start: int, stop: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Batch:
    """Rows of packed tokens.

    ids (B, T) int64; targets (B, T) int64, IGNORE on padding; segments (B, T) int32, the number of
    each token's document within its row, -1 on padding; None when every row is one document.
    bounds (n,) int32: where documents (and padding) begin in the flattened batch, and then B * T up
    to one size for all batches of a run; where attention takes documents one by one it needs them.
    """

    ids: Tensor
    targets: Tensor
    segments: Tensor | None
    bounds: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device, copied while the host goes on."""
        if device.type == "cpu":
            return self

        def moved(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.pin_memory().to(device, non_blocking=True)

        ids, targets = moved(self.ids), moved(self.targets)
        assert ids is not None and targets is not None
        return Batch(ids, targets, moved(self.segments), moved(self.bounds))


def lay_out(
    rows: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]],
    seq_len: int,
    *,
    pad_id: int,
    most_pieces: int,
) -> Batch:
    """A batch of rows, each of pieces side by side: (ids, targets), two arrays of one length.

    most_pieces: that any row of the run has, so that bounds have one size.
    """
    ids = np.full((len(rows), seq_len), pad_id, dtype=np.int64)
    targets = np.full_like(ids, IGNORE)
    segments = np.full_like(ids, -1, dtype=np.int32)
    bounds: list[int] = []
    for row, pieces in enumerate(rows):
        at = 0
        for number, (tokens, following) in enumerate(pieces):
            part = slice(at, at + len(tokens))
            ids[row, part], targets[row, part], segments[row, part] = tokens, following, number
            bounds.append(row * seq_len + at)
            at += len(tokens)
        if at < seq_len:
            bounds.append(row * seq_len + at)
    size = len(rows) * (most_pieces + 1) + 1  # a row's padding is one more piece
    padded = np.full(size, ids.size, dtype=np.int32)
    padded[: len(bounds)] = bounds
    return Batch(*(torch.from_numpy(a) for a in (ids, targets, segments, padded)))


class PackedRows:
    """The rows of one split in their order within an epoch, read from memory-mapped bins.

    The target of a token is the next one of its document; that of a document's last token is
    `eot_id`, so that a model learns where documents end.
    """

    def __init__(
        self, bins: Bins, *, seq_len: int, eot_id: int, vocab_size: int, seed: int | None = None
    ) -> None:
        """seed None: one epoch in corpus order, for validation."""
        self.bins, self.seq_len = bins, seq_len
        self.eot_id, self.vocab_size, self.seed = eot_id, vocab_size, seed
        self.pieces: Pieces = split_documents(bins.doc_starts, bins.n_tokens, seq_len)
        self.rows: Rows = pack(self.pieces.lengths, seq_len)
        self.most_pieces = int(np.diff(self.rows.offsets).max(initial=1))  # in one row
        self.alone = len(self.rows) == len(self.pieces) and bins.n_tokens == seq_len * len(self)
        self._epoch: int | None = None

    def __len__(self) -> int:
        """Rows in an epoch."""
        return len(self.rows)

    @property
    def padding(self) -> float:
        """Share of all row positions that hold no token."""
        return 1 - self.bins.n_tokens / max(1, len(self) * self.seq_len)

    def _open_epoch(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        pieces_key = 0 if self.seed is None else derive(self.seed, "pieces", epoch)
        self._members = self.rows.assign(self.pieces, pieces_key)
        rows_key = None if self.seed is None else derive(self.seed, "rows", epoch)
        plain = np.arange(len(self))
        self._order = plain if rows_key is None else permutation(len(self), rows_key)
        self._epoch = epoch

    def members(self, position: int) -> np.ndarray:
        """Numbers of the pieces in the row at this position since the start of training."""
        epoch, index = divmod(position, len(self))
        self._open_epoch(epoch)
        row = self._order[index]
        return self._members[self.rows.offsets[row] : self.rows.offsets[row + 1]]

    def read(self, positions: Any) -> Batch:
        """The rows at these positions as one batch."""
        positions = list(positions)
        rows = [[self._piece(piece) for piece in self.members(p)] for p in positions]
        batch = lay_out(rows, self.seq_len, pad_id=self.eot_id, most_pieces=self.most_pieces)
        self._check(batch.ids.numpy(), batch.targets.numpy(), positions)
        return replace(batch, segments=None, bounds=None) if self.alone else batch

    def _piece(self, piece: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a piece, and the target of each."""
        start, length = int(self.pieces.starts[piece]), int(self.pieces.lengths[piece])
        if not self.pieces.closes[piece]:
            tokens = self.bins.read(start, start + length + 1)
            return tokens[:-1], tokens[1:]
        tokens = self.bins.read(start, start + length)
        return tokens, np.append(tokens[1:], self.eot_id)

    def _check(self, ids: np.ndarray, targets: np.ndarray, positions: list[int]) -> None:
        """An id the model has no row for would read beyond its embedding (a device assert)."""
        highest = max(int(ids.max(initial=0)), int(targets.max(initial=0)))
        if highest < self.vocab_size:
            return
        row = int(np.argmax(np.maximum(ids, targets).max(axis=1) == highest))
        starts = self.pieces.starts[self.members(positions[row])].tolist()
        raise BadInput(
            f"token id {highest:,} in the document stretch starting at token {starts[0]:,} of the "
            f"split, but the model has {self.vocab_size:,} ids; were the bins made with another "
            f"tokenizer? run tokenize again"
        )


class PackedBatches:
    """A rank's share of each step's rows, in micro-batches."""

    def __init__(self, rows: PackedRows, *, rows_per_step: int, rank: int = 0, world_size: int = 1):
        if not len(rows):
            raise BadInput("the train split holds no token; tokenize more documents")
        if rows_per_step % world_size:
            raise UsageError(
                f"{rows_per_step:,} rows a step cannot be shared by {world_size} ranks; choose "
                f"batch_tokens as a multiple of {world_size} x seq_len={rows.seq_len:,}"
            )
        self.rows, self.rows_per_step = rows, rows_per_step
        self.share = rows_per_step // world_size
        self.first = rank * self.share

    def take(self, step: int, micro_batch: int) -> Iterator[Batch]:
        """This rank's rows of a step, `micro_batch` rows at a time."""
        start = step * self.rows_per_step + self.first
        for at in range(start, start + self.share, micro_batch):
            yield self.rows.read(range(at, min(at + micro_batch, start + self.share)))

    def describe(self, step: int) -> dict[str, Any]:
        """Where the whole step's rows come from, for a person who looks for a bad batch."""
        positions = range(step * self.rows_per_step, (step + 1) * self.rows_per_step)
        starts = [self.rows.pieces.starts[self.rows.members(p)].tolist() for p in positions]
        return {"step": step, "first_row": positions[0], "token_offsets": starts}

    def epochs(self, step: int) -> float:
        """How often the corpus has been seen after so many steps."""
        return step * self.rows_per_step / len(self.rows)
