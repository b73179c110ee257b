"""A rendered conversation cut at its control tokens, encoded between them, with its mask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import Rendered
from llmctl.tokenizer.template import Painted

Outcome = tuple[Painted, str] | str  # a rendering with its breaker, or why there is none


@dataclass(frozen=True)
class Piece:
    """A control token or the text between two. start, end: in the text it was cut from."""

    start: int
    end: int
    text: str = ""  # without breakers
    id: int | None = None
    inside: tuple[tuple[int, int], ...] = ()  # trained stretches of the text


class Splitter:
    """Cuts texts as transformers does, with its tokenizer's rules for spaces beside tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        added = [t for t in tokenizer.parts.get("added_tokens") or []]
        self._ids = {t["content"]: t["id"] for t in added if t["id"] in tokenizer.special_ids}
        self.specials = sorted(self._ids, key=len, reverse=True)
        left = {t["content"] for t in added if t.get("lstrip")}
        right = {t["content"] for t in added if t.get("rstrip")}
        patterns = [
            (r"\s*" if s in left else "") + re.escape(s) + (r"\s*" if s in right else "")
            for s in self.specials
        ]
        self._pattern = re.compile("|".join(patterns) or r"(?!)")

    def tokens(self, text: str) -> list[tuple[int, int, int]]:
        """(start, end, id) of each control token in a text, the spaces it swallows included."""
        found = []
        for match in self._pattern.finditer(text):
            i = self._ids.get(match[0])
            i = self._ids[match[0].strip()] if i is None else i
            found.append((match.start(), match.end(), i))
        return found

    def split(
        self,
        text: str,
        breaker: str,
        spans: Sequence[tuple[int, int]] = (),
        tokens: Sequence[tuple[int, int, int]] | None = None,
    ) -> list[Piece]:
        """The pieces of a rendering; spans: [start, end) that are trained on."""
        pieces: list[Piece] = []
        at = 0
        for start, end, i in self.tokens(text) if tokens is None else tokens:
            self._text_piece(text, at, start, breaker, spans, pieces)
            inside = any(a <= start and end <= b for a, b in spans)
            pieces.append(Piece(start, end, "", i, ((0, 1),) if inside else ()))
            at = end
        self._text_piece(text, at, len(text), breaker, spans, pieces)
        return pieces

    def _text_piece(
        self,
        text: str,
        start: int,
        end: int,
        breaker: str,
        spans: Sequence[tuple[int, int]],
        pieces: list[Piece],
    ) -> None:
        if start == end:
            return
        part = text[start:end]
        inside = []
        for a, b in spans:
            a, b = max(a, start) - start, min(b, end) - start
            if a < b:  # in characters of the text without breakers
                a, b = a - part.count(breaker, 0, a), b - part.count(breaker, 0, b)
                inside.append((a, b))
        pieces.append(Piece(start, end, part.replace(breaker, ""), None, tuple(inside)))

    @cached_property
    def _within(self) -> Tokenizer:
        """The encoder of texts that do not begin the rendering.

        Some vocabularies put a space before the first word only (Metaspace's scheme "first").
        """
        rule = json.dumps(self.tokenizer.parts.get("pre_tokenizer"))
        later = rule.replace('"prepend_scheme": "first"', '"prepend_scheme": "never"')
        if later == rule:
            return self.tokenizer
        parts = {**self.tokenizer.parts, "pre_tokenizer": json.loads(later)}
        return Tokenizer(json.dumps(parts).encode(), {}, self.tokenizer.source)

    def _texts(self, pieces: Sequence[Piece]) -> Iterator[list[int]]:
        """The ids of each text."""
        first = iter(self.tokenizer.encode_batch([p.text for p in pieces if not p.start]))
        later = iter(self._within.encode_batch([p.text for p in pieces if p.start]))
        return (next(later if piece.start else first) for piece in pieces)

    def _places(self, pieces: Sequence[Piece]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        """The ids of each text and where they stand in it."""
        first = iter(self.tokenizer.encode_offsets([p.text for p in pieces if not p.start]))
        later = iter(self._within.encode_offsets([p.text for p in pieces if p.start]))
        return (next(later if piece.start else first) for piece in pieces)

    def encoded(self, pieces: Sequence[Piece]) -> list[int]:
        """The ids of pieces."""
        texts = self._texts([p for p in pieces if p.id is None])
        return [i for p in pieces for i in ([p.id] if p.id is not None else next(texts))]

    def rendered(
        self,
        outcomes: Sequence[Outcome],
        turns: Sequence[int],
        stops: frozenset[int],
        bos: int | None,
    ) -> list[Rendered | str]:
        """Ids and mask of each rendering, or why there is none. turns: of the assistant, each."""
        cut: list[list[Piece] | str] = []
        for outcome, n in zip(outcomes, turns):
            cut.append(outcome if isinstance(outcome, str) else self._cut(*outcome, n, stops))
        texts = [p for pieces in cut if not isinstance(pieces, str) for p in pieces if p.id is None]
        plain = self._texts([p for p in texts if not _partly(p)])
        places = self._places([p for p in texts if _partly(p)])
        done: list[Rendered | str] = []
        for pieces in cut:
            if isinstance(pieces, str):
                done.append(pieces)
                continue
            made = Rendered()
            for piece in pieces:
                if piece.id is not None:
                    made.add([piece.id], bool(piece.inside))
                elif not _partly(piece):
                    made.add(next(plain), bool(piece.inside))
                else:
                    ids, stretches = next(places)
                    made.ids.extend(ids)
                    made.mask.extend(_inside(stretches, piece.inside))
            done.append(_checked(made, bos))
        return done

    def _cut(
        self, painted: Painted, breaker: str, turns: int, stops: frozenset[int]
    ) -> list[Piece] | str:
        """The pieces of a rendering, each assistant turn trained on up to its end token."""
        tokens = self.tokens(painted.text)
        ends = [(a, b) for a, b, i in tokens if i in stops]
        if len(painted.spans) != turns:
            return f"{len(painted.spans)} of {turns} assistant turns found in the template's output"
        spans = []
        for start, end, loose in painted.spans:
            within = [b for a, b in ends if start <= a and b <= end]
            after = next(((a, b) for a, b in ends if a >= end), None)
            if within and not loose:
                end = within[-1]  # what follows, such as a newline, comes from the template
            elif after and (loose or not painted.text[end : after[0]].strip()):
                end = after[1]
            if start >= end:
                return "an assistant turn that is not in the template's output"
            spans.append((start, end))
        return self.split(painted.text, breaker, spans, tokens)


def _partly(piece: Piece) -> bool:
    """Whether a text's mask differs within it."""
    return bool(piece.inside) and piece.inside != ((0, len(piece.text)),)


def _inside(places: Sequence[tuple[int, int]], stretches: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each place touches one of the stretches."""
    if len(stretches) == 1:
        ((first, last),) = stretches
        return [start < last and end > first for start, end in places]
    return [any(start < b and end > a for a, b in stretches) for start, end in places]


def _checked(made: Rendered, bos: int | None) -> Rendered | str:
    if bos is not None and made.ids[:2] == [bos, bos]:
        return "the template begins with two beginning-of-text tokens"
    return made
