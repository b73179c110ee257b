"""Conversations for supervised tuning: each kind in several phrasings, some of several turns.

kind: identity, smalltalk, known (facts that pages state often), context (the answer stands in the
question), search (found with a tool), steps, direct and python (word problems: worked, at once, by
a tool), spelling (by heart or by a tool), skill, story, several. Facts of held-out subjects
(quizzes.split_of) never occur. Nobody says "I don't know" here: what a model does not know depends
on the model, and `llmctl probe` finds out.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from llmctl.synth.facts import RARE, Fact, Subject
from llmctl.synth.grammar import expand, in_words
from llmctl.synth.lexicon import lexicon
from llmctl.synth.split import split_of
from llmctl.synth.strangers import Strangers
from llmctl.synth.tool_chat import ToolWriter
from llmctl.synth.turns import Message, assistant, user
from llmctl.synth.world import World

NAME = "Pip"  # the assistant's
KNOWN_TIMES = 4  # each well-known fact is asked for so often


def answer_to(fact: Fact, phrasing: int) -> str:
    """The fact as a sentence."""
    text = fact.statement(phrasing)
    return text[0].upper() + text[1:] + "."


class Writer:
    """Writes conversations about one world."""

    def __init__(self, world: World, subjects: list[Subject], rng: Random) -> None:
        self.world, self.rng = world, rng
        train = [s for n, s in enumerate(subjects) if split_of(n) == "train"]
        self.known = [f for s in train if s.exposure > max(RARE) for f in s.facts]
        self.strangers = Strangers(world, rng)
        self.tools = ToolWriter(world, rng)

    def _pair(self, section: str) -> list[Message]:
        """A prepared exchange: 'question => answer' in the prose files."""
        context = self.world.cast(self.rng) | {"name": NAME}
        question, _, answer = expand(section, self.rng, context, set()).partition(" => ")
        return [user(question), assistant(answer[0].upper() + answer[1:])]

    def identity(self) -> list[Message]:
        messages = self._pair("chat.identity")
        if self.rng.random() < 0.4:
            system = expand("chat.system", self.rng, {"name": NAME}, set())
            messages.insert(0, {"role": "system", "content": system})
        return messages

    def smalltalk(self) -> list[Message]:
        return self._pair("chat.small")

    def skill(self) -> list[Message]:
        """Small tasks on words and order."""
        rng, words = self.rng, lexicon()
        names = {"tree": "trees", "bird": "birds", "fruit": "fruit", "instrument": "instruments"}
        names |= {"color": "colours", "tool": "tools", "beast": "animals", "trade": "trades"}
        kind = int(rng.random() * 5)
        if kind == 0:
            name, n = rng.choice(sorted(names)), rng.randint(2, 4)
            some = rng.sample(words[name], n)
            text = ", ".join(some[:-1]) + f" and {some[-1]}"
            return [user(f"Name {in_words(n)} {names[name]}."), assistant(f"{_cap(text)}.")]
        if kind == 1:
            some = sorted(rng.sample([w for w in words["pet"]], 3))
            mixed = rng.sample(some, 3)
            ask = f"Put these words in alphabetical order: {', '.join(mixed)}."
            return [user(ask), assistant(f"{', '.join(some)}.")]
        if kind == 2:
            name = rng.choice(("weekday", "month"))
            at = int(rng.random() * (len(words[name]) - 1))
            noun = "day" if name == "weekday" else "month"
            ask = f"Which {noun} comes after {words[name][at]}?"
            return [user(ask), assistant(f"After {words[name][at]} comes {words[name][at + 1]}.")]
        if kind == 3:
            a, b = rng.sample(range(2, 200), 2)
            ask = f"Which number is larger, {a} or {b}?"
            return [user(ask), assistant(f"{max(a, b)} is larger than {min(a, b)}.")]
        word = rng.choice(words["dish"])
        return [user(f'Write the word "{word}" in capital letters.'), assistant(word.upper())]

    def fact(self, fact: Fact) -> list[Message]:
        """A question about a known fact, answered in a sentence."""
        ask = self.rng.choice(fact.questions())
        if self.rng.random() < 0.3:
            ask = expand("chat.ask", self.rng, {"q": ask[0].lower() + ask[1:]}, set())
        return [user(ask), assistant(answer_to(fact, int(self.rng.random() * 3)))]

    def context(self) -> list[Message]:
        """The answer stands in the question; it is made up, so nothing else can give it."""
        rng = self.rng
        people = [self.strangers.somebody() for _ in range(rng.choice((1, 1, 2)))]
        asked = rng.choice(people[0])
        rng.shuffle(people)
        text = " ".join(self.strangers.passage(person) for person in people)
        return [user(f"{text} {rng.choice(asked.fact.questions())}"), assistant(asked.sentence)]

    def story(self) -> list[Message]:
        rng = self.rng
        context = self.world.cast(rng)
        beast = rng.choice(lexicon()["beast"])
        context["beast"] = beast
        used: set[tuple[str, int]] = set()
        parts = ("fable.open", "fable.body", "fable.body", "fable.moral")
        text = " ".join(expand(part, rng, context, used) for part in parts)
        return [user(f"Tell me a short story about a {beast}."), assistant(text)]

    def several(self) -> list[Message]:
        """Two or three exchanges in a row, with a greeting or thanks."""
        makers = [self.skill, self.context, self.tools.steps, self.tools.by_heart]
        messages = self._pair("chat.hello") if self.rng.random() < 0.5 else []
        for _ in range(2):
            messages += self.rng.choice(makers)()
        if self.rng.random() < 0.4:
            messages += self._pair("chat.thanks")
        return messages


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]


def conversation_rows(
    world: World, subjects: list[Subject], seed: int, scale: float
) -> Iterator[list[dict[str, Any]]]:
    """conversations.parquet in batches, a kind each; `scale` multiplies what is not about facts."""
    rng = Random(f"conversations {seed}")
    writer = Writer(world, subjects, rng)

    def row(kind: str, messages: list[Message], fact_id: str | None = None) -> dict[str, Any]:
        return {"messages": messages, "kind": kind, "fact_id": fact_id}

    rows = []
    for fact in writer.known:
        for _ in range(KNOWN_TIMES):
            rows.append(row("known", writer.fact(fact), fact.fact_id))
    yield rows
    makers = {
        "identity": (writer.identity, 200),
        "smalltalk": (writer.smalltalk, 150),
        "skill": (writer.skill, 500),
        "context": (writer.context, 2400),
        "search": (writer.tools.search, 3600),
        "steps": (writer.tools.steps, 3200),
        "direct": (writer.tools.direct, 600),
        "python": (writer.tools.python, 1000),
        "spelling": (writer.tools.spelling, 1800),
        "story": (writer.story, 80),
        "several": (writer.several, 200),
    }
    for kind, (make, n) in makers.items():
        yield [row(kind, make()) for _ in range(round(n * scale))]
