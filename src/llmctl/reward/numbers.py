"""The number an answer gives, as an exact fraction: found by patterns, never by evaluation.

A reply states its answer as \\boxed{...}, "#### 42" or "The answer is 42"; of several the last one
counts. With none of them it is the last number of the reply. All patterns are bounded, so time is
linear in what is looked at, which is the reply's end.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

TAIL = 4096  # characters of a reply that are looked at; an answer stands at the end
LONGEST = 200  # characters of a stated answer
MOST_DIGITS = 100  # of one number
MOST_EXPONENT = 400

_SPACES = "\u00a0\u2009\u202f"  # that stand between thousands
_DIGITS = rf"(?:\d{{1,3}}(?:[,{_SPACES}]\d{{3}}){{1,24}}(?![\d,])|\d{{1,{MOST_DIGITS}}})"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d{{1,{MOST_DIGITS}}})?|\.\d{{1,{MOST_DIGITS}}})"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>(?<![\w)\]}}])[+-])?(?P<whole>{_DECIMAL})"
    rf"(?:[eE](?P<exponent>[+-]?\d{{1,4}})(?!\w)|/(?P<under>{_DECIMAL}))?(?![\d.]*\d)"
)
_UNITS_BEFORE = re.compile(r"^[\s$€£¥*_:=~]*(?:\\\(|\\\[)?[\s$€£¥]*(?:about |exactly )?")
_GOES_ON = re.compile(
    r"^\s{0,9}(?:[-+*/^×÷=(!]|or\b|and\s{0,9}[-+]?\d|to\s{0,9}[-+]?\d|,\s{0,9}\d|\.\d)"
)
_MARKS = re.compile(
    r"(?:####|\banswer\s{0,4}(?:is|:|=)|\banswer\s{0,4}\*\*\s{0,4}:?)", re.IGNORECASE
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]{1,100})\}\s*\{([^{}]{1,100})\}")
_LATEX = re.compile(
    r"\\(?:text|mathrm|mbox)\s*\{([^{}]{0,100})\}|\\[,;:! ]|\\(?:left|right)\b|\\%|\\\$"
)


def plain_digits(text: str) -> str:
    """Decimal digits of every script as 0-9, and the real minus as -."""
    if text.isascii():
        return text
    out = []
    for char in text:
        if not char.isascii() and (value := unicodedata.decimal(char, None)) is not None:
            char = str(value)
        out.append("-" if char in "\u2212\ufe63\uff0d" else char)
    return "".join(out)


def stated_answer(reply: str) -> str | None:
    """The text of the last explicitly stated answer; None when there is no mark of one."""
    text = reply[-TAIL:]
    boxed = text.rfind("\\boxed{")
    at = max((mark.end() for mark in _MARKS.finditer(text)), default=-1)
    if boxed > at:  # also when the mark says: the answer is \boxed{...}
        return _inside(text, boxed + len("\\boxed"))
    if at < 0:
        return None
    if boxed >= 0 and "\\boxed{" in text[at : at + LONGEST]:
        return _inside(text, text.index("\\boxed{", at) + len("\\boxed"))
    return text[at : at + LONGEST].lstrip(" :\n\t").split("\n", 1)[0].strip()


def _inside(text: str, at: int) -> str:
    """What stands between the brace at `at` and its partner; all up to LONGEST without one."""
    depth = 0
    for i in range(at, min(len(text), at + LONGEST)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[at + 1 : i].strip()
    return text[at + 1 : at + LONGEST].strip()


def number_of(reply: str) -> Fraction | None:
    """The number a reply gives; None when it gives none, or something else than one number."""
    stated = stated_answer(reply)
    if stated is not None:
        return single_number(stated)
    found = None
    for match in _NUMBER.finditer(plain_digits(reply[-TAIL:])):
        found = match
    return _value(found) if found is not None else None


def single_number(text: str) -> Fraction | None:
    """The number a stated answer begins with, units around it allowed: '$1,200 a year' is 1200.

    None for a formula ('3 + 4', '9**9'), a choice ('3 or 4') or no number.
    """
    text = plain_digits(text[:LONGEST])
    text = re.sub(r"^\s*\*\*([^*]{1,100})\*\*", r"\1", text)  # bold
    text = _LATEX.sub(lambda m: f" {m[1]}" if m[1] else "%" if "%" in m[0] else " ", text)
    sign = 1
    if fraction := _FRACTION.match(text.lstrip(" $-+")):
        if text.lstrip(" $+").startswith("-"):
            sign = -1
        over, under = (single_number(fraction[i]) for i in (1, 2))
        return sign * over / under if over is not None and under else None
    start = _UNITS_BEFORE.match(text)
    assert start is not None
    # a currency may stand between sign and number
    rest = re.sub(r"^([+-])\s*[$€£¥]\s*", r"\1", text[start.end() :])
    match = _NUMBER.match(rest)
    if match is None or _GOES_ON.match(rest[match.end() :]):
        return None
    return _value(match)


def _value(match: re.Match[str]) -> Fraction | None:
    value = _decimal(match["whole"])
    if match["exponent"]:
        exponent = int(match["exponent"])
        if abs(exponent) > MOST_EXPONENT:
            return None
        value *= Fraction(10) ** exponent
    if match["under"]:
        under = _decimal(match["under"])
        if not under:
            return None
        value /= under
    return -value if match["sign"] == "-" else value


def _decimal(text: str) -> Fraction:
    for mark in "," + _SPACES:
        text = text.replace(mark, "")
    return Fraction(text if text[0] != "." else f"0{text}")
