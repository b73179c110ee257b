"""People, villages and firms that stand on no page: whatever a text tells of them is all there is.

They carry what a model has to take from its context, since nothing it has learned can answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from llmctl.synth.errands import ERRANDS_OF
from llmctl.synth.facts import KINDS, PHRASINGS, Fact, values_of
from llmctl.synth.grammar import expand
from llmctl.synth.names import first_name
from llmctl.synth.world import World


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
    """Makes up subjects and what is told of them. Every fifth name is for questions only.

    errands: what is told are small doings, not the relations of measured facts.
    """

    def __init__(
        self, world: World, rng: Random, split: str = "train", *, errands: bool = False
    ) -> None:
        self.world, self.rng = world, rng
        self.relations = ERRANDS_OF if errands else KINDS
        test = split == "test"

        def mine(names: Sequence[str]) -> list[str]:
            return [name for number, name in enumerate(names) if (number % 5 == 0) == test]

        self.surnames, self.places = mine(world.spare_surnames), mine(world.spare_places)

    def name(self, kind: str, beside: Told | None = None) -> tuple[str, bool]:
        """A name that nobody in the world has, and whether it is a woman's.

        beside: somebody of the same kind, whose first name a person shares, and a firm a partner.
        """
        rng, surnames = self.rng, self.surnames
        if kind == "village":
            return rng.choice(self.places), False
        if kind == "firm":
            first, second = rng.sample(surnames, 2)
            first = beside.fact.subject.split()[0] if beside else first
            return f"{first} and {second}", False
        first, woman = first_name(rng)
        if beside:
            first, woman = beside.fact.subject.split()[0], beside.woman
        return f"{first} {rng.choice(surnames)}", woman

    def somebody(self, most: int = 3, beside: Told | None = None) -> list[Told]:
        """Somebody new, with one to `most` facts; two in three are people.

        beside: somebody with whom a hasty reader could mix them up, for the names are alike.
        """
        rng = self.rng
        kind = beside.kind if beside else rng.choice(("person",) * 4 + ("village", "firm"))
        relations = self.relations[kind]
        name, woman = self.name(kind, beside)
        n = min(len(relations), most, rng.choice((1, 2, 3, 3)))
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
            if each.fact.relation in PHRASINGS and rng.random() < 0.15:
                after = f"mention.after.{each.fact.relation}"
                sentences.append(expand(after, rng, context, set()))
        if rng.random() < 0.4:
            sentences.insert(0, expand(f"mention.lead.{one.kind}", rng, context, set()))
        if rng.random() < 0.2:
            more = expand("news.more", rng, context, set())
            sentences.insert(int(rng.random() * 2) * len(sentences), more)
        return " ".join(sentences)
