"""Gopher's repetition rules (Rae et al. 2021, arXiv:2112.11446, table A1) at the cost of one pass.

The verdicts are datatrove's GopherRepetitionFilter's. Repeated n-grams are bounded by hashes of
all windows at once; only a page whose bound lies above a threshold is counted the slow, exact
way.
"""

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters import GopherRepetitionFilter
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate,
    find_duplicates,
    find_top_duplicate,
    get_n_grams,
)

from llmctl.web.blocks import Drop, Step, Task
from llmctl.web.words import words_for

_BASE = 0x9E3779B97F4A7C15 | 1  # odd, so that it has an inverse mod 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)
_powers = np.ones(1, dtype=np.uint64)
_inverses = np.ones(1, dtype=np.uint64)


class GopherRepetition(Step, GopherRepetitionFilter):
    """Drops pages that repeat their lines, paragraphs or n-grams."""

    name = "👯 Gopher Repetition"
    step = "gopher_repetition"

    def __init__(self, task: Task, language: str = "en") -> None:
        GopherRepetitionFilter.__init__(self, language=language)
        self.task = task

    def judge(self, doc: Document) -> Drop | None:
        text = doc.text
        if not text:
            return Drop("empty", 0, 1)
        return self._parts(text) or self._n_grams(text)

    def _parts(self, text: str) -> Drop | None:
        """Repeated paragraphs and lines, by number and by characters."""
        pieces = (
            (
                "para",
                self.paragraph_exp.split(text.strip()),
                self.dup_para_frac,
                self.dup_para_char_frac,
            ),
            ("line", self._line_splitter.split(text), self.dup_line_frac, self.dup_line_char_frac),
        )
        for unit, parts, most, most_chars in pieces:
            duplicates, chars = find_duplicates(parts)
            if most and duplicates / len(parts) > most:
                return Drop(f"dup_{unit}_frac", duplicates / len(parts), most)
            if most_chars and chars / len(text) > most_chars:
                return Drop(f"dup_{unit}_char_frac", chars / len(text), most_chars)
        return None

    def _n_grams(self, text: str) -> Drop | None:
        words = words_for(self.language).split(text)
        spaced = WindowHashes(words, " ")
        for n, most in self.top_n_grams:
            if len(words) < n or spaced.top_bound(n) / len(text) <= most:
                continue
            share = find_top_duplicate(get_n_grams(words, n)) / len(text)
            if share > most:
                return Drop(f"top_{n}_gram", share, most)
        joined = WindowHashes(words, "")
        for n, most in self.dup_n_grams:
            if len(words) < n or joined.duplicate_bound(n) / len(text) <= most:
                continue
            share = find_all_duplicate(words, n) / len(text)
            if share > most:
                return Drop(f"duplicated_{n}_n_grams", share, most)
        return None


class WindowHashes:
    """Hashes of every window of n words, joined by `joint`, for any n, out of one prefix sum.

    A polynomial over the characters mod 2**64. Equal strings have equal hashes, so counts by hash
    are never below counts by string: what is computed here is an upper bound.
    """

    def __init__(self, words: list[str], joint: str) -> None:
        text = joint.join(words)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        grow(len(codes))
        sums = np.zeros(len(codes) + 1, dtype=np.uint64)
        np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * _powers[: len(codes)], out=sums[1:])
        lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words)) + len(joint)
        self._begins = np.concatenate([[0], np.cumsum(lengths)])
        self._joint = len(joint)
        self._sums = sums

    def _windows(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(hash uint64, length int64 in characters) of each window of n words, in order."""
        begins = self._begins[: len(self._begins) - n]
        ends = self._begins[n:] - self._joint
        hashes = (self._sums[ends] - self._sums[begins]) * _inverses[begins]
        return hashes, ends - begins

    def top_bound(self, n: int) -> int:
        """At least the characters that the most frequent n-gram covers."""
        hashes, lengths = self._windows(n)
        _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        at_most = counts[inverse]
        return int(lengths[at_most == at_most.max()].max() * at_most.max())

    def duplicate_bound(self, n: int) -> int:
        """At least the characters of the n-grams that stood earlier in the text."""
        hashes, lengths = self._windows(n)
        _, first = np.unique(hashes, return_index=True)
        return int(lengths.sum() - lengths[first].sum())


def grow(n: int) -> None:
    """Make the tables of powers reach n characters."""
    global _powers, _inverses
    if len(_powers) >= n:
        return
    size = 1 << max(16, (n - 1).bit_length())
    _powers, _inverses = (
        np.concatenate([np.ones(1, np.uint64), np.cumprod(np.full(size, base, dtype=np.uint64))])
        for base in (_BASE, _INVERSE)
    )
