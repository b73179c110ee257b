"""Blocks of a page's visible text, by their place in its bytes: what people label as main text.

No parser is used, so that no parser's version moves a label: tags are found by a regular
expression, and a block is the text between two tags that do not belong inside a line. Offsets count
bytes of the page as it was fetched; digests tell when a page is another one.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

_HIDDEN = frozenset(
    "script style noscript template svg head title select textarea iframe object audio video "
    "canvas math".split()
)
_INLINE = frozenset(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark nobr q "
    "rp rt ruby s samp small span strike strong sub sup time tt u var wbr".split()
)
_BLANK = " \t\r\n\f\v"
_TAG = re.compile(
    r"<!--.*?(?:-->|$)|<!\[CDATA\[.*?\]\]>|<[!?][^>]*>"
    r"|<(/?)([a-zA-Z][\w:-]*)((?:=\s*\"[^\"]*\"|=\s*'[^']*'|[^>])*+)>",
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """Visible text between two tags that break a line. start, end: bytes of the page."""

    start: int
    end: int
    text: str  # entities resolved, blanks folded

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of the text's SHA-256."""
        return hashlib.sha256(self.text.encode("utf-8", "replace")).hexdigest()[:8]


def blocks(page: bytes, charset: str = "utf-8") -> list[Block]:
    """The blocks of a page in order. charset: of its text; it must hold ASCII as ASCII."""
    source = page.decode("latin-1")  # a character a byte
    found: list[Block] = []
    parts: list[tuple[int, int]] = []
    for start, end, breaks in _pieces(source):
        if end > start:
            parts.append((start, end))
        if breaks and parts:
            found += _block(source, parts, charset)
            parts = []
    return found


def _pieces(source: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether a block ends there) of every stretch of text outside tags."""
    at = 0
    while tag := _TAG.search(source, at):
        name = (tag[2] or "").lower()
        hides = name in _HIDDEN and not tag[1]
        yield at, tag.start(), bool(name) and name not in _INLINE and not hides
        at = tag.end()
        if hides and not tag[3].endswith("/"):
            at = _after(source, name, at)
    yield at, len(source), True


def _after(source: str, name: str, at: int) -> int:
    """Where visible text goes on after the beginning of a hidden element."""
    close = re.compile(rf"</{name}\s*>", re.IGNORECASE).search(source, at)
    if name == "head":  # may be left open
        body = re.compile(r"<body\b", re.IGNORECASE).search(source, at)
        if body and (not close or body.start() < close.start()):
            return body.start()
        return close.end() if close else at
    return close.end() if close else len(source)


def _block(source: str, parts: list[tuple[int, int]], charset: str) -> Iterator[Block]:
    """The parts as one block, unless they are blank."""
    raw = "".join(source[start:end] for start, end in parts)
    text = html.unescape(raw.encode("latin-1").decode(charset, "replace"))
    full = [(a, b) for a, b in parts if source[a:b].strip(_BLANK)]
    if not full or not (text := " ".join(text.split())):
        return
    (first, first_end), (last, last_end) = full[0], full[-1]
    start = first_end - len(source[first:first_end].lstrip(_BLANK))
    end = last + len(source[last:last_end].rstrip(_BLANK))
    yield Block(start, end, text)
