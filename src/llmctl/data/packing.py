"""Documents into rows of `seq_len` tokens: nothing lost, hardly any padding, documents kept apart.

A document longer than a row is split into pieces of a row's length; what is left over shares rows
with other pieces, each put where it leaves the least room (best fit, longest first). Full pieces
are rows of their own, so a corpus of long documents has no padding at all.

Best fit looks only at lengths, so how many rows there are and which lengths share one are the same
for every order of the corpus. Which piece of a length goes where is drawn anew for each epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_ROW = 1 << 22  # tokens; a longer row is a misread setting, not a model


@dataclass(frozen=True)
class Pieces:
    """Stretches of the token stream, each inside one document, at most a row long.

    starts (N,) int64: first token; lengths (N,) int32: tokens; closes (N,) bool: the last token of
    the piece is the last one of its document.
    """

    starts: np.ndarray
    lengths: np.ndarray
    closes: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


def split_documents(doc_starts: np.ndarray, n_tokens: int, seq_len: int) -> Pieces:
    """Cut documents (starts ascending, in tokens) into pieces of at most seq_len tokens.

    Tokens before the first start are a document too. Every token is in exactly one piece.
    """
    if not 1 <= seq_len <= MAX_ROW:
        raise ValueError(f"seq_len={seq_len:,} is outside 1..{MAX_ROW:,}")
    begins = np.unique(np.append(np.asarray(doc_starts, dtype=np.int64), 0))
    if n_tokens <= 0:
        return Pieces(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, bool))
    begins = begins[begins < n_tokens]
    ends = np.append(begins[1:], n_tokens)
    counts = -(-(ends - begins) // seq_len)
    document = np.repeat(np.arange(len(begins)), counts)
    within = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = begins[document] + within * seq_len
    stops = np.minimum(starts + seq_len, ends[document])
    return Pieces(starts, (stops - starts).astype(np.int32), stops == ends[document])


@dataclass(frozen=True)
class Rows:
    """Which slot of which row holds a piece of which length; the same for every epoch.

    lengths (N,) int32, longest first: slot i holds a piece this long. slots (N,) int64: slot
    numbers row by row. offsets (R + 1,) int64: row r is slots[offsets[r] : offsets[r + 1]].
    """

    lengths: np.ndarray
    slots: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def assign(self, pieces: Pieces, key: int) -> np.ndarray:
        """(N,) piece numbers in row order: pieces of equal length change places, drawn by `key`."""
        drawn = np.lexsort((hashed(len(pieces), key), -pieces.lengths))
        return drawn[self.slots]


def pack(lengths: np.ndarray, seq_len: int) -> Rows:
    """Best-fit decreasing over piece lengths (N,), each 1..seq_len."""
    ordered = -np.sort(-lengths.astype(np.int32))
    row_of = np.empty(len(ordered), dtype=np.int64)
    room = _Room(seq_len)
    values, counts = np.unique(-ordered, return_counts=True)
    slot = 0
    for length, left in zip((-values).tolist(), counts.tolist()):
        while left:
            rows, free = room.take(length, left)
            each = free // length  # so many pieces of this length go into every row taken
            placed = min(left, each * len(rows))
            row_of[slot : slot + placed] = np.repeat(rows, each)[:placed]
            whole, rest = divmod(placed, each)
            room.put(rows[:whole], free - each * length)
            room.put(rows[whole : whole + 1] if rest else rows[:0], free - rest * length)
            slot, left = slot + placed, left - placed
    slots = np.argsort(row_of, kind="stable")
    offsets = np.zeros(room.opened + 1, dtype=np.int64)
    np.cumsum(np.bincount(row_of, minlength=room.opened), out=offsets[1:])
    return Rows(ordered, slots, offsets)


class _Room:
    """Rows by the tokens still free in them."""

    def __init__(self, seq_len: int) -> None:
        self.seq_len = seq_len
        self.opened = 0
        self._rows: dict[int, list[np.ndarray]] = {}
        self._filled = np.zeros(seq_len + 1, dtype=bool)  # free sizes that some row has

    def take(self, length: int, wanted: int) -> tuple[np.ndarray, int]:
        """Rows of the least sufficient free size, at most as many as `wanted` pieces need."""
        step = int(np.argmax(self._filled[length:]))
        free = length + step
        if not self._filled[free]:
            free = self.seq_len
            fresh = -(-wanted // (free // length))
            self.opened += fresh
            return np.arange(self.opened - fresh, self.opened), free
        need = -(-wanted // (free // length))
        rows = self._rows[free].pop()
        if len(rows) > need:
            self._rows[free].append(rows[need:])
            rows = rows[:need]
        self._filled[free] = bool(self._rows[free])
        return rows, free

    def put(self, rows: np.ndarray, free: int) -> None:
        if len(rows) and free:
            self._rows.setdefault(free, []).append(rows)
            self._filled[free] = True


def hashed(n: int, key: int) -> np.ndarray:
    """(n,) uint64: SplitMix64 of 0..n-1 under `key`. Plain integers: the same everywhere, always.

    Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", the mixing function.
    """
    with np.errstate(over="ignore"):
        z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(key & 0xFFFFFFFFFFFFFFFF)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def permutation(n: int, key: int) -> np.ndarray:
    """(n,) int64: an order of 0..n-1 drawn by `key`, the same on every machine and version."""
    return np.argsort(hashed(n, key), kind="stable")
