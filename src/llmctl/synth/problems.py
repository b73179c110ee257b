"""Word problems: a small story, a question, the steps to the answer.

A problem is a start and a row of operations. Each step is an equation that can be evaluated, and
difficulty is the number of steps. Numbers are small, so that a small model can learn each step;
`big` ones are beyond its mental arithmetic and want a tool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from llmctl.synth.grammar import plural, polish
from llmctl.synth.lexicon import lexicon
from llmctl.synth.names import first_name

VERIFIER = "math"
BIG = 9  # times as large as usual


@dataclass(frozen=True)
class Problem:
    """prompt: the story with its question; steps: equations in order; answer: the last result."""

    prompt: str
    steps: tuple[str, ...]
    answer: int

    @property
    def solution(self) -> str:
        """The steps as a worked answer: '17 + 25 = 42. 42 - 8 = 34. The answer is 34.'"""
        return " ".join(f"{step}." for step in self.steps) + f" The answer is {self.answer}."

    @property
    def expression(self) -> str:
        """The steps as one Python expression: '(17 + 25) * 2'."""
        text = self.steps[0].split()[0]
        for step in self.steps:
            _, sign, number, *_ = step.split()
            if sign in "*/" and " " in text:
                text = f"({text})"
            text = f"{text} {'//' if sign == '/' else sign} {number}"
        return text

    def row(self, split: str) -> dict[str, Any]:
        """As problems.parquet has it."""
        meta = {"difficulty": len(self.steps), "steps": list(self.steps), "solution": self.solution}
        row: dict[str, Any] = {"prompt": self.prompt, "answer": str(self.answer)}
        return row | {"verifier": VERIFIER, "meta": meta, "split": split}


class _Story:
    """The people and things of one problem, and the sum so far."""

    def __init__(self, rng: Random, big: bool) -> None:
        self.rng, self.big = rng, big
        self.name, woman = first_name(rng)
        self.other, _ = first_name(rng)
        while self.other == self.name:
            self.other, _ = first_name(rng)
        self.he = "she" if woman else "he"
        self.his = "her" if woman else "his"
        words = lexicon()
        name = rng.choice(("fruit", "vegetable", "goods", "tool"))
        countable = [word for word in words[name] if name == "tool" or word.endswith("s")]
        thing = rng.choice(countable)
        self.things = plural(thing) if name == "tool" else thing
        self.steps: list[str] = []
        self.value = 0

    def step(self, sign: str, number: int) -> int:
        """Apply an operation to the value and note its equation."""
        before = self.value
        results = {"+": before + number, "-": before - number, "*": before * number}
        self.value = before // number if sign == "/" else results[sign]
        self.steps.append(f"{before} {sign} {number} = {self.value}")
        return number

    def number(self, low: int, high: int) -> int:
        """A number of the story, from low to high; up to BIG times as much where it is big."""
        return self.rng.randint(low, high * BIG if self.big else high)

    def one_of(self, *texts: str) -> str:
        return self.rng.choice(texts)


def _more(story: _Story) -> str:
    b = story.step("+", story.number(2, 10))
    return story.one_of(
        f"{story.other} gives {story.name} {b} more.",
        f"Then {story.he} buys {b} more.",
        f"In the shed {story.he} finds another {b}.",
        f"On the way home {story.he} gets {b} from a neighbour.",
    )


def _less(story: _Story) -> str:
    b = story.step("-", min(story.number(1, 10), max(1, story.value - 1)))
    return story.one_of(
        f"{story.name} gives {b} of them to {story.other}.",
        f"Then {story.he} sells {b}.",
        f"After that {b} are lost.",
        f"{story.other} comes and takes {b} away.",
    )


def _times(story: _Story) -> str:
    k = story.step("*", story.rng.randint(2, 4))
    word = {2: "twice", 3: "three times", 4: "four times"}[k]
    return story.one_of(
        f"By {story.rng.choice(lexicon()['month'])} {story.he} has {word} as many.",
        f"A year later {story.he} has {word} as many.",
    )


def _having(story: _Story, n_steps: int) -> str:
    """Somebody has things; some come, some go."""
    story.value = story.number(3, 20)
    parts = [
        story.one_of(
            f"{story.name} has {story.value} {story.things}.",
            f"There are {story.value} {story.things} in the shop of {story.name}.",
            f"At first {story.name} owns {story.value} {story.things}.",
        )
    ]
    for _ in range(n_steps):
        moves = [_more, _less] if story.value > 3 else [_more]
        if (story.big or story.value <= 12) and not any("*" in step for step in story.steps):
            moves.append(_times)
        parts.append(story.rng.choice(moves)(story))
    parts.append(
        story.one_of(
            f"How many {story.things} does {story.name} have now?",
            f"How many {story.things} are there at the end?",
        )
    )
    return " ".join(parts)


def _buying(story: _Story, n_steps: int) -> str:
    """So many at so much each; then a fee, a discount, a payment."""
    story.value = count = story.number(2, 6)
    each = story.step("*", story.number(2, 9))
    parts = [f"{story.name} buys {count} {story.things} for {each} pounds each."]
    if n_steps > 1:
        fee = story.step("+", story.number(1, 9))
        parts.append(f"Delivery costs {fee} pounds.")
    if n_steps > 2:
        off = story.step("-", min(story.number(1, 9), story.value - 1))
        parts.append(f"The shop takes {off} pounds off the price.")
    parts.append(
        story.one_of(
            f"How many pounds does {story.name} pay?", f"How much does {story.he} pay in pounds?"
        )
    )
    return " ".join(parts)


def _rows(story: _Story, n_steps: int) -> str:
    """Rows or boxes of things, some taken away."""
    story.value = rows = story.number(2, 9)
    each = story.step("*", story.number(2, 9))
    holder = story.one_of("boxes", "baskets", "rows", "shelves")
    parts = [f"There are {rows} {holder} with {each} {story.things} in each."]
    if n_steps > 1:
        gone = story.step("-", min(story.number(1, 12), story.value - 1))
        parts.append(f"{story.name} takes {gone} of them.")
    if n_steps > 2:
        back = story.step("+", story.number(1, 10))
        parts.append(f"The next day {story.he} puts in {back} new ones.")
    parts.append(f"How many {story.things} are there now?")
    return " ".join(parts)


def _sharing(story: _Story, n_steps: int) -> str:
    """A heap shared out evenly."""
    k, each = story.rng.randint(2, 6), story.number(2, 9)
    if n_steps > 1:
        story.value = story.rng.randint(1, k * each - 1)
        first = story.value
        rest = story.step("+", k * each - first)
        start = f"{story.name} picks {first} {story.things} and {story.other} picks {rest}."
    else:
        story.value = k * each
        start = f"{story.name} has {story.value} {story.things}."
    story.step("/", k)
    middle = f"They are shared equally among {k} children."
    end = f"How many {story.things} does each child get?"
    if n_steps > 2:
        more = story.step("+", story.number(1, 9))
        end = f"Then each child gets {more} more. How many {story.things} does each child have?"
    return f"{start} {middle} {end}"


_FAMILIES = (_having, _having, _buying, _rows, _sharing)


def make_problem(rng: Random, n_steps: int, *, big: bool = False) -> Problem:
    """A problem of 1 to 4 steps."""
    story = _Story(rng, big)
    family = rng.choice(_FAMILIES) if n_steps < 4 else _having
    prompt = family(story, n_steps)
    return Problem(polish(prompt), tuple(story.steps), story.value)


def problem_rows(seed: int, n_rows: int) -> Iterator[list[dict[str, Any]]]:
    """problems.parquet: one to four steps, a fifth held out, no prompt twice."""
    rng = Random(f"problems {seed}")
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    while len(rows) < n_rows:
        problem = make_problem(rng, 1 + len(rows) % 4)
        if problem.prompt not in seen:
            seen.add(problem.prompt)
            rows.append(problem.row("test" if rng.random() < 0.2 else "train"))
    yield rows
