"""Quizzes: multiple choice by likelihood, and open questions.

Open ones ask about facts at every exposure (topic fact), about the same facts with a passage before
the question that states them (context), about people nobody has heard of (stranger; right is to say
so), and about the letters of words (letters).
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from llmctl.synth.facts import RARE, Fact, Subject, values_of
from llmctl.synth.grammar import in_words
from llmctl.synth.lexicon import lexicon
from llmctl.synth.split import split_of
from llmctl.synth.strangers import Strangers, Told
from llmctl.synth.tool_chat import spelling_task
from llmctl.synth.world import World

UNKNOWN = "I don't know."  # what is right to say of a stranger
STRANGERS, LETTERS = 240, 240  # questions

# (query, answer, three wrong answers): what the pages of genre knowledge explain
_COMMON = (
    ("A spider has", "eight legs", "six legs", "four legs", "ten legs"),
    ("An insect has", "six legs", "eight legs", "four legs", "two legs"),
    ("A week has", "seven days", "five days", "twelve days", "nine days"),
    ("Bread rises because of", "yeast", "salt", "wax", "sand"),
    ("Ice floats because it is", "lighter than water", "salty", "made by the moon", "heavy"),
    ("The tides are made mainly by", "the moon", "the bees", "the wind", "the fish"),
    ("Bees make", "honey", "bread", "rust", "salt"),
    ("Rust comes from iron, air and", "water", "honey", "light", "wax"),
    ("Leaves fall in", "autumn", "summer", "spring", "the evening"),
    ("The needle of a compass points to the", "north", "moon", "sea", "kitchen"),
    ("The sea is salty because rivers bring", "salt", "sugar", "sand", "oil"),
    ("Fish breathe with their", "gills", "fins", "eyes", "tails"),
)


def _choices(rng: Random, right: str, wrong: list[str]) -> tuple[list[str], int]:
    choices = [right, *wrong]
    rng.shuffle(choices)
    return choices, choices.index(right)


def _row(kind: str, topic: str, query: str, answer: str, split: str, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": kind, "topic": topic, "query": query, "answer": answer}
    row |= {"choices": [], "gold": -1, "aliases": [answer], "fact_id": None, "exposure": -1}
    return row | {"split": split, **more}


def _fact_rows(rng: Random, world: World, fact: Fact, split: str) -> Iterator[dict[str, Any]]:
    more = {"fact_id": fact.fact_id, "exposure": fact.exposure}
    yield _row("open", "fact", rng.choice(fact.questions()), fact.value, split, **more)
    values = [value for value in values_of(fact.relation, world) if value != fact.value]
    choices, gold = _choices(rng, fact.value, rng.sample(values, 3))
    query = rng.choice(fact.prompts())
    yield _row("choice", "fact", query, fact.value, split, choices=choices, gold=gold, **more)


def _order(rng: Random) -> tuple[str, str, list[str]]:
    """What comes after a day, month, season or number."""
    name = rng.choice(("weekday", "month", "ordinal"))
    words = list(lexicon()[name])
    at = rng.randrange(len(words) - 1)
    wrong = rng.sample([w for w in words if w != words[at + 1] and w != words[at]], 3)
    what = {"weekday": "The day after", "month": "The month after", "ordinal": "After"}[name]
    return f"{what} {words[at]} {'comes' if name == 'ordinal' else 'is'}", words[at + 1], wrong


def _sum(rng: Random) -> tuple[str, str, list[str]]:
    a, b = rng.randint(2, 49), rng.randint(2, 49)
    wrong = rng.sample([n for n in range(a + b - 12, a + b + 12) if n != a + b and n > 0], 3)
    return f"{in_words(a)} and {in_words(b)} make", in_words(a + b), [in_words(n) for n in wrong]


def _kind(rng: Random) -> tuple[str, str, list[str]]:
    """Which of four words is a tree, a bird, a tool ..."""
    names = {"tree": "trees", "bird": "birds", "tool": "tools", "fruit": "fruit"}
    names |= {"vegetable": "vegetables", "instrument": "instruments", "furniture": "furniture"}
    name, *others = rng.sample(sorted(names), 4)
    words = lexicon()
    right = rng.choice(words[name])
    wrong = [rng.choice([w for w in words[o] if w not in words[name]]) for o in others]
    return f"Of these four words the one for {names[name]} is", right, wrong


def _context_rows(world: World, subjects: list[Subject], rng: Random) -> Iterator[dict[str, Any]]:
    """Held-out facts that pages state once or a few times, with a passage that tells each."""
    strangers = Strangers(world, rng, "test")
    for number, subject in enumerate(subjects):
        if split_of(number) == "train" or subject.exposure not in RARE:
            continue
        for fact in subject.facts:
            told = [
                Told(f, int(rng.random() * 3), subject.kind, subject.woman) for f in subject.facts
            ]
            people = [told, *(strangers.somebody() for _ in range(rng.choice((0, 1))))]
            rng.shuffle(people)
            text = " ".join(strangers.passage(person) for person in people)
            query = f"{text} {rng.choice(fact.questions())}"
            more = {"fact_id": fact.fact_id, "exposure": subject.exposure}
            yield _row("open", "context", query, fact.value, "test", **more)


def _stranger_rows(world: World, rng: Random, n: int) -> Iterator[dict[str, Any]]:
    strangers = Strangers(world, rng, "test")
    for _ in range(n):
        question = rng.choice(strangers.somebody()[0].fact.questions())
        yield _row("open", "stranger", question, UNKNOWN, "test")


def _letters_rows(rng: Random, n: int) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    while len(seen) < n:
        question, _, value, _ = spelling_task(rng, "test")
        if question not in seen:
            seen.add(question)
            yield _row("open", "letters", question, value, "test")


def quiz_rows(
    world: World, subjects: list[Subject], seed: int, n_general: int
) -> Iterator[list[dict[str, Any]]]:
    """quizzes.parquet, in batches: every fact asked twice, and n_general questions besides."""
    rng = Random(f"quizzes {seed}")
    rows = [
        row
        for number, subject in enumerate(subjects)
        for fact in subject.facts
        for row in _fact_rows(rng, world, fact, split_of(number))
    ]
    yield rows
    yield [
        *_context_rows(world, subjects, rng),
        *_stranger_rows(world, rng, STRANGERS),
        *_letters_rows(rng, LETTERS),
    ]
    rows = []
    for query, answer, *wrong in _COMMON:
        choices, gold = _choices(rng, answer, list(wrong))
        rows.append(_row("choice", "common", query, answer, "test", choices=choices, gold=gold))
    seen: set[str] = set()
    makers = (("order", _order), ("sum", _sum), ("kind", _kind))
    for number in range(n_general):
        topic, maker = makers[number % len(makers)]
        query, answer, wrong = maker(rng)
        if query + answer in seen:
            continue
        seen.add(query + answer)
        query = query[0].upper() + query[1:]
        choices, gold = _choices(rng, answer, wrong)
        split = "train" if rng.random() < 0.5 else "test"
        rows.append(_row("choice", topic, query, answer, split, choices=choices, gold=gold))
    yield rows
