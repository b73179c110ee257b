"""Words and sentence counts exactly as datatrove's English tokenizer gives them, without its cost.

datatrove runs spaCy's blank pipeline over the whole text in each filter. That tokenizer treats
every stretch between white space on its own (tests/web/test_words.py holds this against whole
texts), and pages repeat the same few thousand stretches, so each is tokenized once and
remembered.
"""

import re
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

from datatrove.utils.text import PUNCTUATION_SET

MAX_CACHED = 400_000  # stretches; about 150 MB
LONGEST_CACHED = 40  # characters
_PLAIN = re.compile(r"([A-Za-z]*[a-z]{2})([,.]?)")
Ends = tuple[tuple[int, bool], tuple[int, bool]]


class Words:
    """The tokenizer of one language, with its memory. Not for two threads at once."""

    def __init__(self, language: str = "en") -> None:
        from datatrove.utils.word_tokenizers import load_word_tokenizer

        self.tokenizer = load_word_tokenizer(language)
        self._words: dict[str, tuple[str, ...]] = {}
        self._ends: dict[str, Ends] = {}
        self._nlp: Any = self.tokenizer.tokenizer  # type: ignore[attr-defined]
        self._spacy = self._nlp.tokenizer
        self._rules: dict[str, Any] = self._spacy.rules if language == "en" else {}
        self._punct = set(self._nlp.get_pipe("sentencizer").punct_chars)
        self._last: tuple[str, list[str]] = ("", [])

    def split(self, text: str) -> list[str]:
        """The words of a text: datatrove's split_into_words."""
        if text == self._last[0]:
            return self._last[1]
        stretches = text.split()
        known = self._words
        if len(known) > MAX_CACHED:
            known.clear()
        self._learn({s for s in stretches if s not in known})
        words = list(chain.from_iterable(map(known.__getitem__, stretches)))
        self._last = (text, words)
        return words

    def _learn(self, missing: set[str]) -> None:
        if missing:
            with self._nlp.memory_zone():  # spaCy's own tables would grow for ever
                for stretch in missing:
                    plain = self._plain(stretch)
                    self._words[stretch] = plain or tuple(t.text for t in self._tokens(stretch))

    def _plain(self, stretch: str) -> tuple[str, ...]:
        """The words of a stretch of bare letters, perhaps with a comma or full stop; else nothing.

        No prefix, suffix or infix rule applies inside such letters, so spaCy need not be asked.
        """
        match = _PLAIN.fullmatch(stretch) if self._rules else None
        if not match or stretch in self._rules or match[1] in self._rules:
            return ()
        return (match[1], match[2]) if match[2] else (stretch,)

    def _tokens(self, stretch: str) -> Any:
        # datatrove does the same: this name of a lexical attribute breaks spaCy's lookup
        return self._spacy(stretch.replace("IS_ALPHA", "") if "IS_ALPHA" in stretch else stretch)

    def sentences(self, line: str, enough: int) -> int:
        """How many sentences a line has, counted up to `enough`: datatrove's split_into_sentences.

        A sentence ends at the first token behind a full stop (question mark, …) that is no
        punctuation itself.
        """
        stretches = line.split()
        if not stretches:
            return 0
        if " ".join(stretches) != line:  # other white space becomes tokens of its own
            return len(self.tokenizer.span_tokenize(line))
        known, count, seen = self._ends, 1, False
        for stretch in stretches:
            breaks, seen = (known.get(stretch) or self._learn_ends(stretch))[seen]
            count += breaks
            if count >= enough:
                break
        return count

    def _learn_ends(self, stretch: str) -> Ends:
        """What a stretch does to the count: for no stop pending before it, and for one pending."""
        with self._nlp.memory_zone():
            tokens = [(t.text in self._punct, t.is_punct) for t in self._tokens(stretch)]
        ends = (_count_breaks(tokens, False), _count_breaks(tokens, True))
        if len(self._ends) > MAX_CACHED:
            self._ends.clear()
        self._ends[stretch] = ends
        return ends


def _count_breaks(tokens: list[tuple[bool, bool]], seen: bool) -> tuple[int, bool]:
    """(sentences begun, whether a stop is pending at the end), given one pending at the start."""
    breaks = 0
    for stops, punct in tokens:
        if seen and not punct and not stops:
            breaks, seen = breaks + 1, False
        elif stops:
            seen = True
    return breaks, seen


class WordFacts:
    """Per word: is it more than punctuation, and has it a letter; remembered like the words."""

    def __init__(self) -> None:
        self._facts: dict[str, tuple[bool, bool]] = {}

    def of(self, words: Sequence[str]) -> list[tuple[bool, bool]]:
        """(has a character outside datatrove's punctuation, has a letter) for each word."""
        known = self._facts
        if len(known) > MAX_CACHED:
            known.clear()
        return [known.get(w) or self._learn(w) for w in words]

    def _learn(self, word: str) -> tuple[bool, bool]:
        facts = (any(c not in PUNCTUATION_SET for c in word), any(c.isalpha() for c in word))
        if len(word) <= LONGEST_CACHED:
            self._facts[word] = facts
        return facts


@cache
def words_for(language: str) -> Words:
    """One tokenizer a process and language."""
    return Words(language)


@cache
def word_facts() -> WordFacts:
    return WordFacts()
