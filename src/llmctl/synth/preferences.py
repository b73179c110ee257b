"""Rankings: four answers to a prompt, from right and plain to wrong, evasive or rambling.

Length is no guide: the best answer is often the short one, and padding is among the faults.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from llmctl.synth.chat import NAME, answer_to
from llmctl.synth.facts import RARE, Fact, Subject, values_of
from llmctl.synth.grammar import expand
from llmctl.synth.problems import make_problem
from llmctl.synth.split import split_of
from llmctl.synth.turns import Message, user
from llmctl.synth.world import World

Ranked = tuple[list[Message], list[tuple[int, str]]]


class Ranker:
    """Writes prompts with ranked answers about one world."""

    def __init__(self, world: World, subjects: list[Subject], rng: Random) -> None:
        self.world, self.rng = world, rng
        self.facts = {
            split: [
                fact
                for number, subject in enumerate(subjects)
                if subject.exposure > max(RARE) and split_of(number) == split
                for fact in subject.facts
            ]
            for split in ("train", "test")
        }

    def _say(self, section: str, **more: str) -> str:
        context = self.world.cast(self.rng) | {"name": NAME} | more
        return expand(section, self.rng, context, set())

    def fact(self, split: str) -> Ranked:
        """Right in a sentence, right but rambling, wrong, and no answer at all."""
        rng = self.rng
        fact = rng.choice(self.facts[split])
        values = [v for v in values_of(fact.relation, self.world) if v != fact.value]
        false = Fact("", fact.subject, fact.relation, rng.choice(values), 0)
        right = answer_to(fact, int(rng.random() * 3))
        wrong = answer_to(false, int(rng.random() * 3))
        answers = [
            (1, right if rng.random() < 0.6 else f"{right} {self._say('rank.offer')}"),
            (2, f"{self._say('rank.ramble')} {right} {self._say('rank.ramble')}"),
            (3, wrong if rng.random() < 0.5 else f"{wrong} {self._say('rank.ramble')}"),
            (4, self._say("rank.rude") if rng.random() < 0.5 else self._say("rank.off")),
        ]
        return [user(rng.choice(fact.questions()))], answers

    def sum(self, split: str) -> Ranked:
        """Worked and right, bare but right, worked and wrong, evasive."""
        rng = self.rng
        problem = make_problem(rng, rng.randint(1, 2))
        off = problem.answer + rng.choice((-10, -2, -1, 1, 2, 10))
        answers = [
            (1, problem.solution),
            (2, f"The answer is {problem.answer}."),
            (3, f"{self._say('rank.ramble')} The answer is {off}."),
            (4, self._say("rank.rude") if rng.random() < 0.5 else self._say("rank.off")),
        ]
        return [user(problem.prompt)], answers

    def manners(self, split: str) -> Ranked:
        """A friendly answer, a cold one, a rambling one, a rude one; the middle two tie."""
        question, _, answer = self._say("chat.small").partition(" => ")
        answers = [
            (1, answer[0].upper() + answer[1:]),
            (2, self._say("rank.cold")),
            (2, f"{self._say('rank.ramble')} {self._say('rank.ramble')}"),
            (4, self._say("rank.rude")),
        ]
        return [user(question)], answers


def preference_rows(
    world: World, subjects: list[Subject], seed: int, n_rows: int
) -> Iterator[list[dict[str, Any]]]:
    """preferences.parquet: a fifth of the rows, drawn by seed, is held out, with facts that
    training never ranks."""
    rng = Random(f"preferences {seed}")
    ranker = Ranker(world, subjects, rng)
    makers = [("sum", ranker.sum), ("manners", ranker.manners)]
    if ranker.facts["train"] and ranker.facts["test"]:
        makers.append(("fact", ranker.fact))
    rows = []
    for number in range(n_rows):
        kind, make = makers[number % len(makers)]
        split = "test" if rng.random() < 0.2 else "train"
        prompt, answers = make(split)
        rng.shuffle(answers)
        rows.append(
            {
                "prompt": prompt,
                "responses": [text for _, text in answers],
                "ranks": [rank for rank, _ in answers],
                "split": split,
                "kind": kind,
            }
        )
    yield rows
