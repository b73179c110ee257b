"""Search for a model: BM25 (Robertson and Zaragoza, 2009) over passages of a few sentences.

Documents are cut into passages short enough for the context of a small model. The index is made in
memory when the tool is opened: 5 MB of text in about two seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadInput, NoInput

SENTENCES, WORDS = 3, 60  # of a passage, at most
K1, B = 1.2, 0.75
NAME = 0.5  # of a capitalised word's score is added: it is whom a question is about
# the end of a sentence: its mark and closing quotes, a space, then a capital, a digit or an
# opening quote
_END = re.compile(r"([.!?…][\"'”’)\]]*)\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÞА-Я])")
_ABBREVIATED = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|No|vs|etc|[A-Z])\.$")
_WORD = re.compile(r"\w+")
# words of questions that say nothing about what is asked for
_EMPTY = frozenset(
    "a an and are as at be by did do does for from has have how in is it its of on or that the "
    "their there they this to was were what when where which who whom whose why will with".split()
)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, lines apart."""
    for line in text.split("\n"):
        before = ""
        for piece in _END.sub(r"\1\n", line.strip()).split("\n"):
            piece = f"{before} {piece}".strip()
            if _ABBREVIATED.search(piece):
                before = piece
                continue
            before = ""
            if piece:
                yield piece
        if before:
            yield before


def passages(text: str, most: int = SENTENCES, words: int = WORDS) -> Iterator[str]:
    """A text cut into passages: up to `most` sentences of one line, up to `words` words. A longer
    sentence is cut at words."""
    for line in text.split("\n"):
        held: list[str] = []
        size = 0
        for sentence in sentences(line):
            parts = sentence.split()
            while len(parts) > words:
                yield from [" ".join(held)] if held else []
                held, size = [], 0
                yield " ".join(parts[:words])
                parts = parts[words:]
            if held and (len(held) == most or size + len(parts) > words):
                yield " ".join(held)
                held, size = [], 0
            if parts:
                held.append(" ".join(parts))
                size += len(parts)
        if held:
            yield " ".join(held)


def terms(text: str) -> list[str]:
    """The words that count, in lower case; plurals and possessives lose their s."""
    found = [word for word in _WORD.findall(text.lower()) if word not in _EMPTY]
    return [w[:-1] if len(w) > 3 and w.endswith("s") and w[-2] != "s" else w for w in found]


class Index:
    """Passages that can be asked. Safe for use from several threads once made."""

    def __init__(
        self, texts: Iterable[str], *, sentences: int = SENTENCES, words: int = WORDS
    ) -> None:
        import bm25s

        seen: dict[str, None] = {}  # a passage that stands on many pages is found once
        for text in texts:
            seen.update(dict.fromkeys(passages(text, sentences, words)))
        self.passages = list(seen)
        if not self.passages:
            raise BadInput("the documents hold no text to search in; name others")
        self.vocabulary: dict[str, int] = {}
        number = self.vocabulary.setdefault
        ids = [[number(t, len(self.vocabulary)) for t in terms(p)] for p in self.passages]
        self.vocabulary.setdefault("", len(self.vocabulary))
        self.index = bm25s.BM25(k1=K1, b=B)
        self.index.index((ids, self.vocabulary), show_progress=False)

    def find(self, query: str, n: int = 3) -> list[str]:
        """The best passages, best first; none that shares no word with the query."""
        import numpy as np

        asked = self._ids(query)
        if not asked or n < 1:
            return []
        scores: Any = self.index.get_scores_from_ids(asked)
        if names := self._ids(" ".join(w for w in query.split() if w[:1].isupper())):
            scores = scores + NAME * self.index.get_scores_from_ids(names)
        # among equals the first: the order does not depend on the machine
        n = min(n, len(scores))
        least = np.partition(scores, len(scores) - n)[len(scores) - n]
        near = np.flatnonzero((scores >= least) & (scores > 0))
        order = near[np.lexsort((near, -scores[near]))]
        return [self.passages[i] for i in order[:n]]

    def _ids(self, text: str) -> list[int]:
        return [self.vocabulary[term] for term in terms(text) if term in self.vocabulary]


def read_texts(path: Path) -> Iterator[str]:
    """The texts of a documents artifact, or of parquet, JSONL or text files at a path."""
    from llmctl.data.documents import find_sources, plan_units
    from llmctl.data.rows import read_unit

    if not path.exists():
        raise NoInput(f"{path}: no such documents; check the path")
    for unit in plan_units(find_sources([path]), "text"):
        for rows in read_unit(unit, "text"):
            yield from rows.texts.to_pylist()
