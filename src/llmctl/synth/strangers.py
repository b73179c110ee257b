"""People, villages and firms that stand on no page: whatever a text tells of them is all there is.

They carry what a model has to take from its context, since nothing it has learned can answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from llmctl.synth.facts import PHRASINGS, Fact, values_of
from llmctl.synth.grammar import expand
from llmctl.synth.names import first_name
from llmctl.synth.world import World

_VILLAGE, _FIRM = ("known_for", "river"), ("makes", "based_in")
_PERSON = tuple(r for r in PHRASINGS if r not in _VILLAGE + _FIRM)


@dataclass(frozen=True)
class Told:
    """A fact with the phrasing it is told in, and what its subject is: person, village, firm."""

    fact: Fact
    phrasing: int
    kind: str
    woman: bool = False

    @property
    def sentence(self) -> str:
        """'Mara Elmsey plays the horn.'"""
        text = self.fact.statement(self.phrasing)
        return f"{text[0].upper()}{text[1:]}."


class Strangers:
    """Makes up subjects and what is told of them. Every fifth surname is for questions only."""

    def __init__(self, world: World, rng: Random, split: str = "train") -> None:
        self.world, self.rng = world, rng
        test = split == "test"
        names = enumerate(world.spare_surnames)
        self.surnames = [name for number, name in names if (number % 5 == 0) == test]

    def name(self, kind: str) -> tuple[str, bool]:
        """A name that nobody in the world has, and whether it is a woman's."""
        rng, surnames = self.rng, self.surnames
        if kind == "village":
            return rng.choice(surnames), False
        if kind == "firm":
            return " and ".join(rng.sample(surnames, 2)), False
        first, woman = first_name(rng)
        return f"{first} {rng.choice(surnames)}", woman

    def somebody(self, most: int = 3) -> list[Told]:
        """Somebody new, with one to `most` facts; three in four are people."""
        rng = self.rng
        kind = rng.choice(("person",) * 6 + ("village", "firm"))
        relations = {"village": _VILLAGE, "firm": _FIRM}.get(kind, _PERSON)
        name, woman = self.name(kind)
        n = min(len(relations), most, rng.choice((1, 1, 1, 2, 2, 3)))
        told = []
        for relation in rng.sample(relations, n):
            value = rng.choice(values_of(relation, self.world))
            fact = Fact("", name, relation, value, 0)
            told.append(Told(fact, int(rng.random() * 3), kind, woman))
        return told

    def plainly(self, told: Sequence[Told]) -> str:
        """What is told of somebody, a sentence a fact."""
        return " ".join(one.sentence for one in told)

    def passage(self, told: Sequence[Told]) -> str:
        """What is told of somebody, in sentences as pages have them, with others between."""
        rng, one = self.rng, told[0]
        he, him, his = ("she", "her", "her") if one.woman else ("he", "him", "his")
        context = self.world.cast(rng)
        context |= {"s": one.fact.subject, "s.he": he, "s.him": him, "s.his": his}
        wrap = "mention.wrap" if one.kind == "person" else "mention.wrap.plain"
        sentences = []
        for each in told:
            context["c"] = each.fact.statement(each.phrasing)
            sentences.append(expand(wrap, rng, context, set()))
            if rng.random() < 0.15:
                after = f"mention.after.{each.fact.relation}"
                sentences.append(expand(after, rng, context, set()))
        if rng.random() < 0.4:
            sentences.insert(0, expand(f"mention.lead.{one.kind}", rng, context, set()))
        if rng.random() < 0.2:
            more = expand("news.more", rng, context, set())
            sentences.insert(int(rng.random() * 2) * len(sentences), more)
        return " ".join(sentences)
