"""What is printed steers no terminal, and what people write stays as it is."""

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmctl.core.terminal import one_line, printable

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)

KNOWN = {
    "title": "\x1b]0;owned\x07",
    "title by ST": "\x1b]2;owned\x1b\\",
    "clipboard": "\x1b]52;c;cm0gLXJmIH4=\x07",
    "link": "\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\",
    "clear": "\x1b[2J\x1b[H",
    "8-bit CSI": "\x9b31m",
    "8-bit OSC": "\x9d0;x\x9c",
    "overwrite": "safe\rrm -rf",
    "backspace": "ab\b\bcd",
    "bell": "\a",
    "DEL": "\x7f",
    "NUL": "\0",
    "shift out": "\x0e\x0f",
    "bidi override": "a\u202eb\u202c",
    "isolates": "\u2066x\u2069",
    "tags": "\U000e0041\U000e007f",
    "line separators": "a\u2028b\u2029c\x85d",
    "selectors": "a\U000e0100",
    "half a character": "a\ud83d",
}


def is_harmless(text: str) -> bool:
    seen = all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in text)
    return seen and not set(text) & set("\u202a\u202e\u2066\u2069\u2028\u2029\U000e0041")


@pytest.mark.parametrize("text", KNOWN.values(), ids=KNOWN)
def test_known_sequences_are_shown_not_obeyed(text):
    shown = printable(text)
    assert is_harmless(shown) and shown != text
    assert len(shown) >= len(text)  # nothing vanishes


def test_they_are_shown_readably():
    assert printable("\x1b[2J") == "\\x1b[2J"
    assert printable("\u202e") == "<U+202E>"


@pytest.mark.parametrize(
    "text", ["tab\tand\nnewline", "naïve 漢字 عربى עברית", "👩‍👩‍👧 e\u0301 \u2764\ufe0f"]
)
def test_ordinary_text_of_any_script_passes(text):
    assert printable(text) == text


@CALM
@given(st.text(st.characters(), max_size=60), st.data())
def test_pieces_make_the_same_as_the_whole(text, data):
    cut = data.draw(st.integers(0, len(text)))
    assert printable(text[:cut]) + printable(text[cut:]) == printable(text)
    assert is_harmless(printable(text))
    assert printable(printable(text)) == printable(text)


def test_one_line_is_one_line_and_not_too_long():
    assert one_line("  a\n\tb \x1b ") == "a b \\x1b"
    assert one_line("abcdef", 4) == "abc…"
