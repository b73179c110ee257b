"""Floors that a reward model must beat: rules that know no language model.

WordPreferences is a linear model: TF-IDF of words and word pairs of a response, with weights fitted
so that the better of two responses scores higher. It is what topic and phrasing alone give.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"\w+|[^\w\s]")
FEWEST = 2  # responses a term must be in
MOST_TERMS = 200_000
MOST_WORDS = 2000  # of one response
L2 = 1e-3
ROUNDS = 300


def terms_of(text: str) -> Counter[str]:
    """Words, punctuation marks, and pairs of neighbours, in lower case."""
    words = _WORD.findall(text.lower())[:MOST_WORDS]
    return Counter(words) + Counter(f"{a} {b}" for a, b in zip(words, words[1:]))


class WordPreferences:
    """A linear score of a text's TF-IDF terms, fitted to pairs of texts."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        """pairs: (better, worse). Deterministic; a second for a thousand pairs of 100 words."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        counts = {text: terms_of(text) for text in texts}
        seen = Counter(term for c in counts.values() for term in c)
        kept = sorted((t for t, n in seen.items() if n >= FEWEST), key=lambda t: (-seen[t], t))
        self.number = {term: i for i, term in enumerate(kept[:MOST_TERMS])}
        n = max(1, len(texts))
        self.idf = np.array([1 + np.log((1 + n) / (1 + seen[t])) for t in self.number])
        self.weights = np.zeros(len(self.number))
        vectors = {text: self._vector(counts[text]) for text in texts}
        self._fit([(vectors[a], vectors[b]) for a, b in pairs])

    def _vector(self, counts: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
        """(terms, values) of unit length; term frequency enters as 1 + log."""
        known = [(self.number[t], n) for t, n in counts.items() if t in self.number]
        terms = np.array([t for t, _ in known], dtype=np.int64)
        values = (1 + np.log([n for _, n in known])) * self.idf[terms] if known else np.empty(0)
        return terms, values / max(float(np.linalg.norm(values)), 1e-12)

    def _fit(self, pairs: Sequence[tuple[tuple[np.ndarray, np.ndarray], ...]]) -> None:
        """Logistic regression on differences, by Nesterov's accelerated gradient."""
        if not pairs or not len(self.weights):
            return
        rows, columns, values = [], [], []
        for row, (better, worse) in enumerate(pairs):
            for sign, (terms, parts) in ((1.0, better), (-1.0, worse)):
                rows.append(np.full(len(terms), row))
                columns.append(terms)
                values.append(sign * parts)
        of, column, value = (np.concatenate(x) for x in (rows, columns, values))
        n, size = len(pairs), len(self.weights)
        step = 1 / (0.25 * 4 + L2)  # a difference of unit vectors is at most 2 long
        point = self.weights
        for turn in range(ROUNDS):
            wins = np.bincount(of, value * point[column], minlength=n)
            pull = 1 / (1 + np.exp(np.clip(wins, -500, 500)))  # how wrong each pair still is
            gradient = L2 * point - np.bincount(column, value * pull[of], minlength=size) / n
            after = point - step * gradient
            point = after + turn / (turn + 3) * (after - self.weights)
            self.weights = after

    def score(self, text: str) -> float:
        """Higher is better."""
        terms, values = self._vector(terms_of(text))
        return float(values @ self.weights[terms]) if len(terms) else 0.0
