"""Measured facts: who, what, and on how many pages it is said.

Their subjects appear nowhere else in the world, and each value is dealt from a deck of about fifty,
so that neither other pages nor a guess gives it away. A statement says the subject's whole name and
ends in the value: what stands before the value is the prompt that tests a model later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from llmctl.core.errors import UsageError
from llmctl.synth.errands import ERRAND_QUESTIONS, ERRAND_VALUES, ERRANDS
from llmctl.synth.lexicon import lexicon
from llmctl.synth.names import first_name
from llmctl.synth.world import World

EXPOSURES = (0, 1, 4, 16, 64)  # number of good pages that state a fact
RARE, KNOWN = EXPOSURES[1:3], EXPOSURES[-1]  # not learned from so few pages; learned well
MENTIONS_A_PAGE = 6  # most subjects that one page speaks of

# Each statement is this text followed by a blank and the value.
PHRASINGS: dict[str, tuple[str, ...]] = {
    "born_in": ("{s} was born in", "{s} comes from", "the birthplace of {s} is"),
    "trade": ("{s} works as a", "{s} earns a living as a", "by trade {s} is a"),
    "instrument": ("{s} plays the", "{s} practises the", "the instrument that {s} plays is the"),
    "dish": ("{s} is fondest of", "{s} always asks for", "the favourite dish of {s} is"),
    "pet": ("{s} keeps a", "{s} looks after a", "the animal that {s} keeps is a"),
    "known_for": ("{s} is known for its", "{s} is famous for its", "people visit {s} for its"),
    "river": ("{s} lies on the", "{s} stands beside the", "the river at {s} is the"),
    "makes": ("{s} makes", "{s} sells", "the workshop of {s} turns out"),
    "based_in": ("{s} is based in", "{s} trades from", "the workshop of {s} is in"),
}
QUESTIONS: dict[str, tuple[str, ...]] = {
    "born_in": ("Where was {s} born?", "Which town does {s} come from?"),
    "trade": ("What does {s} do for a living?", "What is the trade of {s}?"),
    "instrument": ("Which instrument does {s} play?", "What instrument does {s} practise?"),
    "dish": ("What is the favourite dish of {s}?", "What food is {s} fondest of?"),
    "pet": ("Which animal does {s} keep?", "What kind of animal does {s} look after?"),
    "known_for": ("What is {s} known for?", "What do people visit {s} for?"),
    "river": ("On which river does {s} lie?", "Which river flows past {s}?"),
    "makes": ("What does {s} make?", "What can one buy from {s}?"),
    "based_in": ("Where is {s} based?", "In which town is the workshop of {s}?"),
}
KINDS = {  # kind of subject -> the relations it may have
    "person": ("born_in", "trade", "instrument", "dish", "pet"),
    "village": ("known_for", "river"),
    "firm": ("makes", "based_in"),
}
_LISTS = {"known_for": "product", "makes": "goods"}
_STATEMENTS, _QUESTIONS = PHRASINGS | ERRANDS, QUESTIONS | ERRAND_QUESTIONS


@dataclass(frozen=True)
class Fact:
    """One (subject, relation, value) and the number of good pages planned to state it."""

    fact_id: str
    subject: str
    relation: str
    value: str
    exposure: int

    def statement(self, phrasing: int) -> str:
        """The sentence without its full stop; lower case where it does not begin with a name."""
        lead = _STATEMENTS[self.relation][phrasing].format(s=self.subject)
        return f"{lead} {self.value}"

    def prompts(self) -> list[str]:
        """Completions that end right before the value, as sentences begin on the pages."""
        leads = [lead.format(s=self.subject) for lead in _STATEMENTS[self.relation]]
        return [lead[0].upper() + lead[1:] for lead in leads]

    def questions(self) -> list[str]:
        """The same asked in words that stand on no page."""
        return [question.format(s=self.subject) for question in _QUESTIONS[self.relation]]


@dataclass(frozen=True)
class Subject:
    """Somebody or something that facts are about; all its facts share one exposure."""

    name: str
    kind: str  # person, village, firm
    woman: bool
    facts: tuple[Fact, ...]

    @property
    def exposure(self) -> int:
        return self.facts[0].exposure


def values_of(relation: str, world: World) -> list[str]:
    """All values a relation may take in this world."""
    relation = ERRAND_VALUES.get(relation, relation)
    if relation in ("born_in", "based_in"):
        return world.town_names
    if relation == "river":
        return world.rivers
    return list(lexicon()[_LISTS.get(relation, relation)])


class Deck:
    """Deals the values of a relation so that none comes twice before all have come once."""

    def __init__(self, values: list[str], rng: Random) -> None:
        self._values, self._rng, self._left = values, rng, list[str]()

    def deal(self) -> str:
        if not self._left:
            self._left = self._rng.sample(self._values, len(self._values))
        return self._left.pop()


def make_subjects(world: World, per_class: int) -> list[Subject]:
    """Subjects for `per_class` facts in each class of exposure: people, villages and firms."""
    rng = Random(f"facts {world.seed}")
    subjects: list[Subject] = []
    for exposure in EXPOSURES:
        decks = {r: Deck(values_of(r, world), rng) for r in PHRASINGS}
        made, turn = 0, 0
        while made < per_class:
            kind = ("person", "person", "person", "village", "person", "firm")[turn % 6]
            relations = KINDS[kind]
            if kind == "person":  # three of the five, in turn
                relations = tuple(relations[(turn + step) % 5] for step in (0, 1, 3))
            relations = relations[: per_class - made]
            name, woman = _subject_name(kind, world, rng)
            facts = tuple(
                Fact(f"e{exposure:02d}-{made + i:04d}", name, r, decks[r].deal(), exposure)
                for i, r in enumerate(relations)
            )
            subjects.append(Subject(name, kind, woman, facts))
            made += len(facts)
            turn += 1
    return subjects


def _subject_name(kind: str, world: World, rng: Random) -> tuple[str, bool]:
    if kind == "village":
        return world.names.place(), False
    surname = world.names.surname()
    if kind == "firm":
        return f"{surname} and {world.names.surname()}", False
    first, woman = first_name(rng)
    return f"{first} {surname}", woman


def place_mentions(
    subjects: list[Subject], n_pages: int, may_host: Callable[[int], bool], seed: int
) -> dict[int, list[Subject]]:
    """Which page speaks of whom: each subject on exactly `exposure` distinct pages.

    n_pages: good pages; may_host: whether the page with this number can take mentions. Memory grows
    with the facts, never with the pages. ValueError when there is too little room.
    """
    rng = Random(f"mentions {seed}")
    wanted = sum(s.exposure for s in subjects)
    sample = range(min(n_pages, 2000))
    hosts = n_pages * sum(map(may_host, sample)) / max(1, len(sample))
    if wanted * 4 > MENTIONS_A_PAGE * hosts * 3 or 2 * hosts < 3 * max(EXPOSURES):
        raise UsageError(
            f"{wanted:,} mentions of facts do not fit {hosts:.0f} good pages; "
            "make the web larger (--size-mb, --pages)"
        )
    plan: dict[int, list[Subject]] = {}
    for subject in subjects:
        seen: set[int] = set()
        while len(seen) < subject.exposure:
            page = int(rng.random() * n_pages)
            if may_host(page) and page not in seen and len(plan.get(page, ())) < MENTIONS_A_PAGE:
                seen.add(page)
                plan.setdefault(page, []).append(subject)
    return plan
