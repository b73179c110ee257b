"""What may be printed: text in which nothing can steer a terminal.

A model, a web page, a tool's output or a file name can hold escape sequences that set the title,
fill the clipboard, move the cursor or overwrite what stands there, and invisible characters that
make a line read otherwise than it is. All of them are shown instead of obeyed. Every character is
judged alone, so text may come in pieces of any size: the pieces of the result joined are the
result of the pieces joined.
"""

from __future__ import annotations

NEWLINE, TAB = 0x0A, 0x09  # the only two control characters that pass

# escapes and other controls (C0, DEL, C1): written as Python writes them
_TABLE = {c: f"\\x{c:02x}" for c in [*range(0x20), *range(0x7F, 0xA0)] if c not in (NEWLINE, TAB)}

_UNSEEN = [
    *range(0x200E, 0x2010),  # left-to-right and right-to-left marks
    0x061C,  # Arabic letter mark
    *range(0x202A, 0x202F),  # embeddings and overrides of direction
    *range(0x2066, 0x206A),  # isolates
    *range(0x206A, 0x2070),  # deprecated format characters
    0x2028,  # line and paragraph separators, which some terminals break a line at
    0x2029,
    *range(0xFFF9, 0xFFFC),  # interlinear annotation
    *range(0xE0000, 0xE0080),  # tags: ASCII that nobody sees
    *range(0xE0100, 0xE01F0),  # variation selectors 17 to 256: bytes that nobody sees
]
_TABLE |= {c: f"<U+{c:04X}>" for c in _UNSEEN}
_TABLE |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # half characters, which UTF-8 cannot hold


def printable(text: str) -> str:
    """Text with terminal control characters made visible: nothing printed can steer a terminal."""
    return text.translate(_TABLE)


def one_line(text: str, width: int = 0) -> str:
    """Printable text on one line, runs of space as one; cut to `width` characters with an …."""
    line = printable(" ".join(text.split()))
    return line if not width or len(line) <= width else line[: max(width - 1, 0)] + "…"
