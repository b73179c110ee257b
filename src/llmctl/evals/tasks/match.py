"""Is a reply right, and is it a refusal? Plain text rules, the same for every measure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmctl.reward.verifiers import ARTICLES, normalised

LONGEST = 4096  # characters of a reply that are looked at
_REFUSALS = re.compile(
    r"\bi (?:(?:really|honestly|simply|sadly) )?"
    r"(?:(?:do|did|can|could|would)(?: ?not| ?n t| t|nt) (?:actually |really )?"
    r"(?:know|say|tell|answer|be sure|have (?:any |enough |reliable )?(?:information|knowledge))"
    r"|(?:am|m) (?:not (?:sure|certain|aware|able)|unsure|unable)"
    r"|(?:have|ve) (?:no (?:idea|information|knowledge|reliable)|never heard)"
    r"|cannot (?:say|tell|answer|be sure)|would rather not (?:guess|say))\b"
    r"|\b(?:not known|unknown) to me\b"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def exact(reply: str, answers: Sequence[str]) -> bool:
    """Whether the reply is one of the answers and nothing else, normalised."""
    said = normalised(reply[:LONGEST])
    return any(said == wanted for answer in answers if (wanted := normalised(answer)))


def contains(reply: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in the reply as whole words, normalised.

    An answer that is an article, such as A of four choices, has to be all of the reply.
    """
    said = f" {normalised(reply[:LONGEST])} "
    inside = (w for answer in answers if (w := normalised(answer)) and w not in ARTICLES)
    return any(f" {wanted} " in said for wanted in inside) or exact(reply, answers)


def is_refusal(reply: str) -> bool:
    """Whether the reply says that it does not know: "I don't know", "I am not sure" and the like.

    The first two sentences decide: an answer with a doubt at its end is an answer.
    """
    start = " ".join(_SENTENCE.split(reply.strip()[:LONGEST])[:2])
    return bool(_REFUSALS.search(normalised(start)))  # its apostrophes are blanks: "don t"


def is_right(reply: str, answers: Sequence[str]) -> bool:
    """Whether a reply gives one of the answers and is no refusal."""
    return contains(reply, answers) and not is_refusal(reply)


def first_sentence(text: str) -> str:
    """The first sentence of a text, or its first line where that ends sooner."""
    lines = text.strip().split("\n", 1)
    return _SENTENCE.split(lines[0])[0]
