"""Worked arithmetic and spelling as prose.

Pages of digits do not survive quality filters, so most numbers are words and each page keeps its
figures few.
"""

from __future__ import annotations

from random import Random

from llmctl.synth.grammar import Context, expand, in_words, plural
from llmctl.synth.lexicon import lexicon

Used = set[tuple[str, int]]


def _pick(rng: Random, name: str) -> str:
    words = lexicon()[name]
    return words[int(rng.random() * len(words))]


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]


def _addition(rng: Random, context: Context) -> str:
    a, b = rng.randint(11, 89), rng.randint(11, 89)
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    w = in_words
    things = plural(_pick(rng, "thing"))
    text = rng.choice(
        (
            f"{context['q.f']} has {w(a)} {things} and gets {w(b)} more. How many is that?",
            f"There are {w(a)} {things} on the shelf and {w(b)} in the box.",
            f"What are {w(a)} and {w(b)}?",
            f"Somebody buys {w(a)} {things} on {_pick(rng, 'weekday')} and {w(b)} on the next day.",
        )
    )
    parts = [f"{_cap(w(a // 10 * 10))} and {w(b // 10 * 10)} make {w(tens)}."]
    if ones and a % 10 and b % 10:
        parts.append(f"{_cap(w(a % 10))} and {w(b % 10)} make {w(ones)}.")
    end = f"{_cap(w(tens))} and {w(ones)} make {w(tens + ones)}" if ones else "There are no ones"
    return f"{text} {' '.join(parts)} {end}, so {a} plus {b} is {a + b}."


def _subtraction(rng: Random, context: Context) -> str:
    a = rng.randint(41, 98)
    b = rng.randint(11, a - 9)
    w = in_words
    fruit = _pick(rng, "fruit")
    text = rng.choice(
        (
            f"A basket holds {w(a)} {fruit}, and {w(b)} of them are sold. How many are left?",
            f"{context['r.f']} had {w(a)} pounds and spent {w(b)}.",
            f"Take {w(b)} away from {w(a)}.",
            f"Of {w(a)} {plural(_pick(rng, 'bird'))} on the wire, {w(b)} flew off.",
        )
    )
    rest = a - b // 10 * 10
    steps = f"{_cap(w(a))} less {w(b // 10 * 10)} leaves {w(rest)}."
    if b % 10:
        steps += f" {_cap(w(rest))} less {w(b % 10)} leaves {w(a - b)}."
    return f"{text} {steps} So {a} minus {b} is {a - b}."


def _multiplication(rng: Random, context: Context) -> str:
    a, b = rng.randint(12, 49), rng.randint(3, 9)
    w = in_words
    text = rng.choice(
        (
            f"One {_pick(rng, 'thing')} costs {w(a)} pence. What do {w(b)} of them cost?",
            f"There are {w(b)} rows with {w(a)} {_pick(rng, 'vegetable')} in each.",
            f"What is {w(b)} times {w(a)}?",
            f"A {_pick(rng, 'vehicle')} carries {w(a)} people and goes {w(b)} times a day.",
        )
    )
    tens, ones = a // 10 * 10, a % 10
    steps = f"{_cap(w(b))} times {w(tens)} is {w(b * tens)}."
    if ones:
        steps += f" {_cap(w(b))} times {w(ones)} is {w(b * ones)}."
        steps += f" {_cap(w(b * tens))} and {w(b * ones)} make {w(a * b)}."
    return f"{text} {steps} So {b} times {a} is {a * b}."


def _division(rng: Random, context: Context) -> str:
    b, q = rng.randint(3, 9), rng.randint(4, 19)
    w = in_words
    fruit = _pick(rng, "fruit")
    text = rng.choice(
        (
            f"{_cap(w(b * q))} {fruit} are shared among {w(b)} children.",
            f"{_cap(w(b * q))} {_pick(rng, 'goods')} go into {w(b)} boxes, the same in each.",
            f"How often does {w(b)} go into {w(b * q)}?",
        )
    )
    if q > 10:
        steps = (
            f"{_cap(w(b))} times ten is {w(10 * b)}, and {w(b * q - 10 * b)} are left over. "
            f"{_cap(w(b))} times {w(q - 10)} is {w(b * (q - 10))}. "
            f"Ten and {w(q - 10)} make {w(q)}."
        )
    else:
        steps = f"{_cap(w(b))} times {w(q)} is {w(b * q)}, so each gets {w(q)}."
    return f"{text} {steps} So {b * q} divided by {b} is {q}."


def _comparison(rng: Random, context: Context) -> str:
    a, b = rng.sample(range(12, 99), 2)
    w = in_words
    more, less = max(a, b), min(a, b)
    return (
        f"Which is more, {w(a)} or {w(b)}? {_cap(w(more))} is more than {w(less)}, "
        f"and the difference is {w(more - less)}."
    )


_SUMS = (_addition, _addition, _subtraction, _subtraction, _multiplication, _division, _comparison)


def sums_paragraphs(rng: Random, context: Context, used: Used) -> list[str]:
    """The body of an arithmetic page: worked sums with talk between them."""
    paragraphs = []
    for at in range(4 + int(rng.random() * 3)):
        parts = [rng.choice(_SUMS)(rng, context)]
        if at:
            parts.insert(0, expand("sums.link", rng, context, used))
        if rng.random() < 0.5:
            parts.append(expand("sums.check", rng, context, used))
        paragraphs.append(" ".join(parts))
    return [*paragraphs, expand("sums.close", rng, context, used)]


def spelled(word: str) -> str:
    """'bread' -> 'b r e a d'."""
    return " ".join(word)


def _spelling(rng: Random, form: int) -> str:
    names = ("color", "beast", "bird", "tree", "room", "trade", "dish", "pet", "tool")
    word = _pick(rng, rng.choice(names)).replace(" ", "")
    n, first, last = in_words(len(word)), word[0], word[-1]
    letter = rng.choice(word)
    count = word.count(letter)
    times = ("once", "twice", "three times", "four times")[min(count, 4) - 1]
    forms = [
        f"The word {word} is spelled {spelled(word)}. It has {n} letters.",
        f"How many letters has the word {word}? We say them one by one, {spelled(word)}, "
        f"and count {n}.",
        f"The word {word} begins with the letter {first} and ends with the letter {last}.",
        f'The letter "{letter}" comes {times} in the word {word}, for it is spelled '
        f"{spelled(word)}.",
        f"Backwards the word {word} is {spelled(word[::-1])}, which nobody can say, "
        f"and it has {n} letters both ways.",
        f"Spell {word}, please. It is {spelled(word)}, with the letter {first} at the front "
        f"and the letter {last} at the end.",
    ]
    return forms[form % len(forms)]


def spelling_paragraphs(rng: Random, context: Context, used: Used) -> list[str]:
    """The body of a spelling page."""
    paragraphs = []
    forms = rng.sample(range(6), 6)
    for at in range(3 + int(rng.random() * 2)):
        parts = [_spelling(rng, forms[at]), expand("spell.link", rng, context, used)]
        parts.append(_spelling(rng, forms[-1 - at]))
        paragraphs.append(" ".join(parts))
    return [*paragraphs, expand("spell.close", rng, context, used)]
