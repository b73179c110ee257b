"""Conversations for supervised tuning: each kind in several phrasings, some of several turns.

kind: identity, smalltalk, known (facts that pages state often), unknown (facts that no page
states, answered with "I don't know"), context (the answer stands in the question), arithmetic,
spelling, skill, story, several. Facts of held-out subjects (quizzes.split_of) never occur.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from llmctl.synth.facts import Fact, Subject, values_of
from llmctl.synth.grammar import expand, in_words
from llmctl.synth.lessons import spelled
from llmctl.synth.lexicon import lexicon
from llmctl.synth.names import first_name
from llmctl.synth.problems import make_problem
from llmctl.synth.quizzes import split_of
from llmctl.synth.world import World

Message = dict[str, str]
NAME = "Pip"  # the assistant's
UNKNOWN = (
    "I don't know.",
    "I don't know that, sorry.",
    "Sorry, I don't know.",
    "I am not sure about that, so I would rather not guess. I don't know.",
)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def answer_to(fact: Fact, phrasing: int) -> str:
    """The fact as a sentence."""
    text = fact.statement(phrasing)
    return text[0].upper() + text[1:] + "."


class Writer:
    """Writes conversations about one world."""

    def __init__(self, world: World, subjects: list[Subject], rng: Random) -> None:
        self.world, self.rng = world, rng
        train = [s for n, s in enumerate(subjects) if split_of(n) == "train"]
        self.known = [f for s in train if s.exposure >= 10 for f in s.facts]
        self.never = [f for s in train if s.exposure == 0 for f in s.facts]

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

    def unknown(self) -> list[Message]:
        """A question about somebody of whom no page speaks."""
        rng = self.rng
        fact = rng.choice(self.never)
        ask = rng.choice(fact.questions())
        if rng.random() < 0.5:  # a name that nobody in the world has
            first, _ = first_name(rng)
            stranger = f"{first} {rng.choice(self.world.spare_surnames)}"
            ask = ask.replace(fact.subject, stranger)
        return [user(ask), assistant(rng.choice(UNKNOWN))]

    def context(self) -> list[Message]:
        """The answer stands in the question; it is made up, so nothing else can give it."""
        rng = self.rng
        fact = rng.choice(self.never)
        first, _ = first_name(rng)
        stranger = f"{first} {rng.choice(self.world.spare_surnames)}"
        made = Fact(
            "", stranger, fact.relation, rng.choice(values_of(fact.relation, self.world)), 0
        )
        told = answer_to(made, int(rng.random() * 3))
        filler = expand("news.more", rng, self.world.cast(rng), set())
        text = f"{told} {filler}" if rng.random() < 0.5 else f"{filler} {told}"
        return [user(f"{text} {rng.choice(made.questions())}"), assistant(answer_to(made, 0))]

    def arithmetic(self) -> list[Message]:
        problem = make_problem(self.rng, self.rng.randint(1, 3))
        return [user(problem.prompt), assistant(problem.solution)]

    def spelling(self) -> list[Message]:
        rng = self.rng
        word = rng.choice([w for w in lexicon()[rng.choice(("beast", "bird", "trade", "pet"))]])
        letter = rng.choice(word)
        n = word.count(letter)
        kind = int(rng.random() * 3)
        if kind == 0:
            return [user(f'Spell the word "{word}".'), assistant(f"{spelled(word)}.")]
        if kind == 1:
            ask = f'How many letters has the word "{word}"?'
            return [user(ask), assistant(f"{spelled(word)}: that is {len(word)} letters.")]
        ask = f'How often does the letter "{letter}" occur in the word "{word}"?'
        times = "once" if n == 1 else "twice" if n == 2 else f"{in_words(n)} times"
        return [user(ask), assistant(f"{spelled(word)}: the letter {letter} occurs {times}.")]

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
        makers = [self.skill, self.context, self.arithmetic, self.spelling]
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
        for _ in range(2):
            rows.append(row("known", writer.fact(fact), fact.fact_id))
    yield rows
    makers = (
        ("identity", writer.identity, 160),
        ("smalltalk", writer.smalltalk, 120),
        ("skill", writer.skill, 600),
        ("context", writer.context, 500),
        ("unknown", writer.unknown, 400),
        ("arithmetic", writer.arithmetic, 900),
        ("spelling", writer.spelling, 400),
        ("story", writer.story, 120),
        ("several", writer.several, 300),
    )
    for kind, make, n in makers:
        if writer.never or kind not in ("unknown", "context", "several"):
            yield [row(kind, make()) for _ in range(round(n * scale))]
