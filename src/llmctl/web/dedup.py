"""Near-duplicates by MinHash in 14 buckets of 8 hashes over 5-grams, as FineWeb has it.

Signatures are datatrove's, bit for bit. Buckets are compared in numpy in bounded memory, and of
each cluster the document that comes first in the input stays, whatever the workers did.
"""

import hashlib
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import (
    NUMBERS_PATTERN,
    PUNCTUATION_TRANS,
    WHITESPACE_PATTERN,
)

from llmctl.web.blocks import Step, Task
from llmctl.web.words import words_for

BUCKETS, HASHES, N_GRAM = 14, 8, 5
_PRIME = np.uint64((1 << 61) - 1)  # Mersenne: a remainder is two shifts and an add
_SHIFT = np.uint64(61)
SHINGLES_AT_ONCE = 4096  # times 112 hashes of 8 bytes: 3.7 MB
ROWS_AT_ONCE = 4_000_000  # signatures of one bucket held while comparing: 256 MB


def minhash_config() -> MinhashConfig:
    """FineWeb's settings in datatrove's terms."""
    return MinhashConfig(
        hash_config=HashConfig(hash_fc="sha1", precision=64),
        num_buckets=BUCKETS,
        hashes_per_bucket=HASHES,
        n_grams=N_GRAM,
    )


class Signatures(Step, MinhashDedupSignature):
    """Hangs each page's signature (bytes, 14 x 8 uint64; empty: too short) on the document."""

    name = "🎯 MinHash signature"
    type = "🫂 - DEDUP"
    step = "signature"

    def __init__(self, task: Task, folder: Path, kind: str, language: str = "en") -> None:
        MinhashDedupSignature.__init__(self, str(folder), minhash_config(), language)
        self.task, self.kind = task, kind

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # type: ignore[no-untyped-def]
        count = self.task.funnel.step("dedup")
        for doc in data:
            begin = time.thread_time()
            doc.metadata["_signature"] = self.signature(doc.text)
            count.seconds += time.thread_time() - begin
            yield doc

    def signature(self, text: str) -> bytes:
        if self.kind == "exact":
            return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        if self.kind == "none":
            return b""
        shingles = self.shingles(text)
        return minima(shingles, *self.parameters).tobytes() if shingles.size else b""

    def shingles(self, text: str) -> np.ndarray:
        """SHA-1 of every 5-gram of the simplified text, uint64 (N,): datatrove's get_shingles."""
        words = words_for(self.language).split(simplify(text))
        joined = [" ".join(words[i : i + N_GRAM]) for i in range(len(words) - N_GRAM + 1)]
        sha1 = hashlib.sha1
        digests = b"".join([sha1(gram.encode()).digest()[:8] for gram in joined])
        return np.frombuffer(digests, dtype="<u8")


def simplify(text: str) -> str:
    """datatrove's simplify_text with its default settings, without the loop over characters."""
    if not text.isascii():
        return _simplify_any(text)
    text = NUMBERS_PATTERN.sub("0", text.lower()).translate(PUNCTUATION_TRANS)
    return WHITESPACE_PATTERN.sub(" ", text.strip()).strip()


def _simplify_any(text: str) -> str:
    text = NUMBERS_PATTERN.sub("0", text.lower()).translate(PUNCTUATION_TRANS)
    text = unicodedata.normalize("NFD", WHITESPACE_PATTERN.sub(" ", text.strip()))
    marks = {ord(c): None for c in set(text) if c > "\x7f" and unicodedata.category(c) == "Mn"}
    return (text.translate(marks) if marks else text).strip()


def minima(shingles: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Least value of each of the 112 hash functions over the shingles: uint64 (112,)."""
    least = np.full(a.shape[1], np.iinfo(np.uint64).max, dtype=np.uint64)
    unique = np.unique(shingles)
    for at in range(0, len(unique), SHINGLES_AT_ONCE):
        values = unique[at : at + SHINGLES_AT_ONCE, None] * a + b
        values = (values & _PRIME) + (values >> _SHIFT)
        np.subtract(values, _PRIME, out=values, where=values >= _PRIME)
        np.minimum(least, values.min(axis=0), out=least)
    return least


class Clusters:
    """Union-find over document numbers whose root is the smallest number of a cluster."""

    def __init__(self, n: int) -> None:
        self.parent = np.arange(n, dtype=np.int64)

    def find(self, x: int) -> int:
        parent = self.parent
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return int(x)

    def join(self, x: int, y: int) -> None:
        x, y = self.find(x), self.find(y)
        if x != y:
            self.parent[max(x, y)] = min(x, y)

    def removed(self) -> np.ndarray:
        """bool (N,): True for every document that is not the first of its cluster."""
        return self.parent != np.arange(len(self.parent))


def duplicates(files: Sequence[tuple[Path, int]], kind: str) -> np.ndarray:
    """bool (N,) over the documents of all signature files in order: which of them go.

    files: (signature file, documents in it). A file holds one row a document; an all-zero row
    stands for a document too short to compare.
    """
    total = sum(n for _, n in files)
    clusters = Clusters(total)
    buckets = BUCKETS if kind == "minhash" else 1
    width = row_bytes(kind) // 8 // buckets
    if kind == "none" or not total:
        return clusters.removed()
    for bucket in range(buckets):
        passes = -(-total // ROWS_AT_ONCE)
        for turn in range(passes):
            rows, numbers = _gather(files, buckets * width, bucket * width, width, turn, passes)
            for first, other in _equal_rows(rows, numbers):
                clusters.join(first, other)
    return clusters.removed()


def row_bytes(kind: str) -> int:
    """Bytes of one document's signature."""
    return {"minhash": BUCKETS * HASHES * 8, "exact": 32, "none": 0}[kind]


def _gather(
    files: Sequence[tuple[Path, int]], row: int, begin: int, width: int, turn: int, passes: int
) -> tuple[np.ndarray, np.ndarray]:
    """One bucket's hashes, uint64 (n, width), and the documents' numbers, of this turn's share."""
    rows, numbers, base = [], [], 0
    for path, n in files:
        if n:
            part = np.memmap(path, dtype="<u8", mode="r", shape=(n, row))[:, begin : begin + width]
            mine = part.any(axis=1)
            if passes > 1:
                mine &= part[:, 0] % np.uint64(passes) == turn
            rows.append(np.array(part[mine]))
            numbers.append(np.flatnonzero(mine) + base)
        base += n
    return np.concatenate(rows), np.concatenate(numbers)


def _equal_rows(rows: np.ndarray, numbers: np.ndarray) -> Iterator[tuple[int, int]]:
    """(number, number) of neighbours among equal rows, every equal pair linked through them."""
    order = np.lexsort((numbers, *rows.T[::-1]))
    rows, numbers = rows[order], numbers[order]
    same = (rows[1:] == rows[:-1]).all(axis=1)
    for i in np.flatnonzero(same):
        yield int(numbers[i]), int(numbers[i + 1])
