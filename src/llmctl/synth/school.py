"""The schoolbook: exercises that a base model reads beside the web, as documents of their own.

Filtered pages teach what is so; they hardly ever make a reader look back at what stands a few lines
above, for pages that repeat themselves are filtered out. Reading exercises do: a text about people
nobody knows, then questions answered in its own words. Dictations repeat whole lists, sums and
worked problems show single steps of arithmetic. Nothing in it speaks of a measured fact.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from llmctl.synth.lexicon import lexicon
from llmctl.synth.problems import make_problem
from llmctl.synth.strangers import Strangers
from llmctl.synth.world import World

SHARES = {"reading": 0.62, "sums": 0.14, "problem": 0.14, "dictation": 0.10}  # of the documents
DOCUMENT_CHARS = 260  # mean length
BATCH = 5_000  # rows made at a time
_LISTS = ("beast", "bird", "trade", "pet", "tool", "dish", "fruit", "thing")


class Teacher:
    """Writes exercises about one world."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world, self.rng = world, rng
        self.strangers = Strangers(world, rng, errands=True)

    def reading(self) -> str:
        """Some people and what each did, told plainly or as pages do; then it is asked for."""
        rng, strangers = self.rng, self.strangers
        people = [strangers.somebody(most=1) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
        tell = strangers.plainly if rng.random() < 0.5 else strangers.passage
        between = rng.choice((" ", "\n"))  # a name reads otherwise where a line begins
        lines = [" ".join(tell(person) for person in people)]
        for [told] in rng.sample(people, len(people)):
            lines.append(f"{rng.choice(told.fact.questions())}{between}{told.sentence}")
        return "\n".join(lines)

    def sums(self) -> str:
        """Single steps, one a line."""
        rng = self.rng
        problems = [make_problem(rng, rng.randint(1, 3)) for _ in range(4)]
        return "\n".join(f"{step}." for problem in problems for step in problem.steps)

    def problem(self) -> str:
        """A story, its steps, its answer."""
        problem = make_problem(self.rng, self.rng.randint(1, 3))
        return f"{problem.prompt}\n{problem.solution}"

    def dictation(self) -> str:
        """Names and things read out and written down, or words said and said again."""
        rng, words = self.rng, lexicon()
        listed = []
        for _ in range(rng.randint(4, 12)):
            name, _ = self.strangers.name("person")
            word = rng.choice(words[rng.choice(_LISTS)])
            listed.append(name if rng.random() < 0.5 else word)
        if rng.random() < 0.5:
            text = ", ".join(listed)
            return f"The teacher reads: {text}.\nThe class writes: {text}."
        words_said = [rng.choice(words[rng.choice(_LISTS)]) for _ in range(4)]
        words_said += [self.strangers.name("village")[0].lower() for _ in range(4)]
        rng.shuffle(words_said)
        text = " ".join(f'"{word}"' for word in words_said)
        return f"Say {text}.\n{text}"


def school_rows(world: World, seed: int, mb: float) -> Iterator[list[dict[str, Any]]]:
    """textbook.parquet in batches: `mb` MB of text, about."""
    rng = Random(f"school {seed}")
    teacher = Teacher(world, rng)
    makers = {"reading": teacher.reading, "sums": teacher.sums}
    makers |= {"problem": teacher.problem, "dictation": teacher.dictation}
    kinds, shares = list(SHARES), list(SHARES.values())
    n = round(mb * 1e6 / DOCUMENT_CHARS)
    for start in range(0, n, BATCH):
        rows = []
        for number in range(start, min(start + BATCH, n)):
            [kind] = rng.choices(kinds, shares)
            rows.append({"text": makers[kind](), "id": f"school-{number:07d}", "kind": kind})
        yield rows
