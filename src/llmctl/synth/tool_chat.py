"""Conversations in which a tool can help: search for what no model knows, python for numbers and
letters; and the same questions answered without."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from llmctl.synth.grammar import expand
from llmctl.synth.lessons import spelled
from llmctl.synth.lexicon import lexicon
from llmctl.synth.problems import Problem, make_problem
from llmctl.synth.strangers import Strangers, Told
from llmctl.synth.turns import Message, assistant, call, result, user, with_tool
from llmctl.synth.world import World

DIRECT = " Answer with the number only."
_WORDS = ("beast", "bird", "trade", "pet", "tool", "fruit", "dish", "tree", "room", "thing")


def words_of(split: str) -> list[str]:
    """Words to spell; every third is held out (split test)."""
    found = sorted({word for name in _WORDS for word in lexicon()[name] if word.isalpha()})
    return [word for number, word in enumerate(found) if (number % 3 == 0) == (split == "test")]


def spelling_task(rng: Random, split: str) -> tuple[str, str, str, str]:
    """(question, Python that answers it, its value, answer): spell, count letters, count one."""
    word = rng.choice(words_of(split))
    letter = rng.choice(word)
    kind = int(rng.random() * 3)
    if kind == 0:
        return (
            f'Spell the word "{word}".',
            f'" ".join("{word}")',
            spelled(word),
            f"{spelled(word)}.",
        )
    if kind == 1:
        n, ask = len(word), f'How many letters has the word "{word}"?'
        return ask, f'len("{word}")', str(n), f"It has {n} letters."
    n, ask = word.count(letter), f'How often does the letter "{letter}" occur in "{word}"?'
    return ask, f'str.count("{word}", "{letter}")', str(n), f"It occurs {n} time{'s' * (n != 1)}."


class ToolWriter:
    """Writes such conversations about one world."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world, self.rng = world, rng
        self.strangers = Strangers(world, rng)

    def search(self) -> list[Message]:
        """A question about somebody unknown, looked up by name, answered in the words found."""
        rng = self.rng
        person = self.strangers.somebody()
        asked = rng.choice(person)
        parts = [[told] for told in person] if rng.random() < 0.4 else [person]  # on several pages
        found = [self.strangers.passage(part) for part in parts]
        for _ in range(rng.choice((0, 1, 1, 2))):
            found.append(self._beside(asked))
        rng.shuffle(found)
        return [
            with_tool("search"),
            user(rng.choice(asked.fact.questions())),
            # the blank: a tokenizer has other pieces for a word that begins a text, and the name
            # can be copied only in those that it has in the question
            call("search", f" {asked.fact.subject}"),
            result("search", "\n".join(found)),
            assistant(replace(asked, phrasing=0).sentence),
        ]

    def _beside(self, asked: Told) -> str:
        """A passage that a search for somebody finds too: a namesake's, another's, or idle talk."""
        if self.rng.random() < 0.7:
            beside = asked if self.rng.random() < 0.7 else None
            return self.strangers.passage(self.strangers.somebody(beside=beside))
        return expand("news.more", self.rng, self.world.cast(self.rng), set())

    def _problem(self, most: int = 3, big: bool = False) -> Problem:
        return make_problem(self.rng, self.rng.randint(1, most), big=big)

    def steps(self) -> list[Message]:
        """A word problem, worked."""
        problem = self._problem(most=4)
        return [user(problem.prompt), assistant(problem.solution)]

    def direct(self) -> list[Message]:
        """A word problem, answered at once."""
        problem = self._problem()
        return [user(problem.prompt + DIRECT), assistant(f"{problem.answer}")]

    def python(self) -> list[Message]:
        """A word problem as one expression; large numbers are no harder than small ones."""
        problem = self._problem(big=self.rng.random() < 0.5)
        return [
            with_tool("python"),
            user(problem.prompt),
            call("python", problem.expression),
            result("python", f"{problem.answer}"),
            assistant(f"The answer is {problem.answer}."),
        ]

    def by_heart(self) -> list[Message]:
        """Letters of a word, without help."""
        ask, _, _, answer = spelling_task(self.rng, "train")
        return [user(ask), assistant(answer)]

    def spelling(self) -> list[Message]:
        """Letters of a word, by heart or by a tool."""
        if self.rng.random() < 0.4:
            return self.by_heart()
        ask, code, value, answer = spelling_task(self.rng, "train")
        shown = repr(value) if code.startswith('"') and "join" in code else value
        return [
            with_tool("python"),
            user(ask),
            call("python", code),
            result("python", shown),
            assistant(answer),
        ]
