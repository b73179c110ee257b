"""The seeded world: towns on rivers, firms, streets, and households of people who are related.

Towns and firms are few and live in memory. People are made when they are asked for: household k is
a function of (seed, k), so a world of millions of people costs nothing.

Nobody in this part of the world is the subject of a measured fact (facts.py): what pages say of
these people is consistent, but how often they say it is left to chance.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from random import Random

from llmctl.synth.grammar import Context, in_words
from llmctl.synth.lexicon import lexicon
from llmctl.synth.names import NamePool, first_name

N_TOWNS = 48
SPARE = 1500  # surnames of people who are made up where a text needs somebody unknown
SPARE_PLACES = 300  # and names of villages
_STREETS = (
    "Mill Church Bridge Market Chapel Orchard Ferry School Station Castle Well Tanner".split()
)
_INNS = "Lantern Heron Plough Anchor Fox Wheatsheaf Bell Swan Kettle Compass Oak Barrel".split()
_INN_WORDS = "Copper Old Golden Blue Crooked White Three-Legged Silver Sleeping Merry".split()
_FIRM_KINDS = (
    "{s} and Sons",
    "{s} and Daughters",
    "{s} Brothers",
    "{s} and {t}",
    "{s} Works",
    "the {town} {s} Company",
)


@dataclass(frozen=True)
class Town:
    """A town of the world, with everything encyclopedias say of it."""

    name: str
    river: str
    founded: int  # year
    population: int
    landmark: str
    product: str
    inn: str
    hill: str
    height: int  # feet above the sea
    streets: tuple[str, ...]
    neighbour: str  # the next town
    miles: int  # to the neighbour


@dataclass(frozen=True)
class Firm:
    """An employer."""

    name: str
    town: str
    goods: str
    founded: int
    hands: int  # people employed


@dataclass(frozen=True)
class Person:
    """Somebody of a household: what pages may say of them never changes."""

    first: str
    surname: str
    woman: bool
    age: int
    trade: str
    town: str
    firm: str
    kin: str  # what they are to the head of the household
    instrument: str
    dish: str
    pet: str
    color: str
    trait: str

    @property
    def name(self) -> str:
        return f"{self.first} {self.surname}"

    def slots(self, key: str) -> Context:
        """Names for templates: {p} {p.f} {p.s} {p.he} {p.him} {p.his} {p.trade} ..."""
        he, him, his, self_ = (
            ("she", "her", "her", "herself") if self.woman else ("he", "him", "his", "himself")
        )
        return {
            key: self.name,
            f"{key}.f": self.first,
            f"{key}.s": self.surname,
            f"{key}.he": he,
            f"{key}.him": him,
            f"{key}.his": his,
            f"{key}.self": self_,
            f"{key}.mr": ("Mrs " if self.woman else "Mr ") + self.surname,
            f"{key}.child": "girl" if self.woman else "boy",
            f"{key}.person": "woman" if self.woman else "man",
            f"{key}.age": in_words(self.age),
            f"{key}.trade": self.trade,
            f"{key}.town": self.town,
            f"{key}.firm": self.firm,
            f"{key}.kin": self.kin,
            f"{key}.instrument": self.instrument,
            f"{key}.dish": self.dish,
            f"{key}.pet": self.pet,
            f"{key}.color": self.color,
            f"{key}.trait": self.trait,
        }


class World:
    """Everything that pages are about. Equal seeds and sizes give equal worlds.

    households: how many families there are; people recur more where there are fewer of them.
    """

    def __init__(self, seed: int, households: int) -> None:
        self.seed = seed
        self.households = max(40, households)
        self.names = NamePool(seed)
        self.town_names = [self.names.place() for _ in range(N_TOWNS)]
        self.rivers = list(self.names.rivers)
        self.spare_surnames = [self.names.surname() for _ in range(SPARE)]  # nobody's, on no page
        self.spare_places = [self.names.place() for _ in range(SPARE_PLACES)]
        rng = Random(f"world {seed}")
        self.towns = [self._town(rng, i) for i in range(N_TOWNS)]
        self.firms = [self._firm(rng, i) for i in range(4 * N_TOWNS)]
        self.household = functools.lru_cache(maxsize=2000)(self._household)

    def _town(self, rng: Random, index: int) -> Town:
        words = lexicon()
        neighbour = self.town_names[index ^ 1]
        return Town(
            name=self.town_names[index],
            river=self.rivers[index // 3 % len(self.rivers)],  # three towns to a river
            founded=rng.randint(1020, 1880),
            population=rng.randint(9, 400) * 100,
            landmark=rng.choice(words["landmark"]),
            product=rng.choice(words["product"]),
            inn=f"the {rng.choice(_INN_WORDS)} {rng.choice(_INNS)}",
            hill=f"{rng.choice(self.names.common_surnames)} Hill",
            height=rng.randint(12, 160) * 10,
            streets=tuple(f"{name} Street" for name in rng.sample(_STREETS, 5)),
            neighbour=neighbour,
            miles=3 + (index // 2 * 7) % 23,
        )

    def _firm(self, rng: Random, index: int) -> Firm:
        s, t = rng.sample(self.names.common_surnames, 2)
        town = self.town_names[index % N_TOWNS]
        return Firm(
            name=rng.choice(_FIRM_KINDS).format(s=s, t=t, town=town),
            town=town,
            goods=rng.choice(lexicon()["goods"]),
            founded=rng.randint(1790, 2004),
            hands=rng.randint(4, 160),
        )

    def _household(self, index: int) -> tuple[Person, ...]:
        """A married couple, then children, a parent or a lodger: four to six people."""
        rng = Random(self.seed * 1_000_003 + index * 31 + 17)
        town = index % N_TOWNS
        surname = rng.choice(self.names.common_surnames)
        head_woman = rng.random() < 0.5
        taken: set[str] = set()
        age = rng.randint(29, 62)
        members = [self._person(rng, taken, surname, town, "head", age, head_woman)]
        spouse = "husband" if head_woman else "wife"
        members.append(self._person(rng, taken, surname, town, spouse, age - 2, not head_woman))
        for _ in range(rng.randint(1, 3)):
            woman = rng.random() < 0.5
            kin = "daughter" if woman else "son"
            members.append(self._person(rng, taken, surname, town, kin, age - 22, woman))
        woman = rng.random() < 0.5
        elder = rng.choice((("mother", "father"), ("aunt", "uncle"), ("friend", "friend")))
        name = surname if elder[0] != "friend" else rng.choice(self.names.common_surnames)
        kin = elder[0] if woman else elder[1]
        years = age + 24 if kin != "friend" else age
        members.append(self._person(rng, taken, name, town, kin, years, woman))
        return tuple(members)

    def _person(
        self, rng: Random, taken: set[str], surname: str, town: int, kin: str, age: int, woman: bool
    ) -> Person:
        first, is_woman = first_name(rng)
        while is_woman != woman or first in taken:
            first, is_woman = first_name(rng)
        taken.add(first)
        words = lexicon()
        return Person(
            first=first,
            surname=surname,
            woman=woman,
            age=max(6, age + rng.randint(-4, 4)),
            trade=rng.choice(words["trade"]),
            town=self.town_names[town],
            firm=self.firms[town + N_TOWNS * rng.randrange(4)].name,
            kin=kin,
            instrument=rng.choice(words["instrument"]),
            dish=rng.choice(words["dish"]),
            pet=rng.choice(words["pet"]),
            color=rng.choice(words["color"]),
            trait=rng.choice(words["virtue"]),
        )

    def cast(self, rng: Random) -> Context:
        """The context of a page: two relatives {p}, {q}, a third person {r}, and their town."""
        family = self.household(int(rng.random() * self.households))
        p, q = family[0], family[1 + int(rng.random() * (len(family) - 1))]
        r = self.household(int(rng.random() * self.households))[int(rng.random() * 3)]
        while r.first in (p.first, q.first):
            r = self.household(int(rng.random() * self.households))[int(rng.random() * 3)]
        town = self.towns[self.town_names.index(p.town)]
        context = p.slots("p") | q.slots("q") | r.slots("r")
        context |= self.place(town, rng)
        return context

    def place(self, town: Town, rng: Random) -> Context:
        """The slots that describe a town and the time: {town}, {river}, {year}, {price} ..."""
        firm = self.firms[self.town_names.index(town.name) + N_TOWNS * int(rng.random() * 4)]
        other = self.towns[int(rng.random() * N_TOWNS)]
        while other.name in (town.name, town.neighbour):
            other = self.towns[int(rng.random() * N_TOWNS)]
        streets = town.streets
        start = int(rng.random() * len(streets))
        return {
            "town": town.name,
            "river": town.river,
            "founded": str(town.founded),
            "population": f"{town.population:,}",
            "town.landmark": town.landmark,
            "town.product": town.product,
            "inn": town.inn,
            "hill": town.hill,
            "height": f"{town.height:,}",
            "street": streets[start],
            "street2": streets[(start + 1) % len(streets)],
            "neighbour": town.neighbour,
            "miles": in_words(town.miles),
            "town2": other.name,
            "river2": other.river,
            "firm": firm.name,
            "firm.goods": firm.goods,
            "firm.founded": str(firm.founded),
            "firm.hands": in_words(firm.hands),
            "year": str(1950 + int(rng.random() * 74)),
            "hour": in_words(1 + int(rng.random() * 12)) + " o'clock",
            "price": price(40 + int(rng.random() * 2400) // 5 * 5),
            "price2": price(60 + int(rng.random() * 6000) // 5 * 5),
            **calendar(int(rng.random() * 7), int(rng.random() * 336)),
        }


def calendar(weekday: int, day: int) -> Context:
    """{day} and {date} of a day, and {~day} to count on from.

    weekday: from Monday, modulo 7; day: from the first of January, in months of 28 days.
    """
    words = lexicon()
    month, at = divmod(day % 336, 28)
    date = f"{at + 1} {words['month'][month]}"
    return {"day": words["weekday"][weekday % 7], "date": date, "~day": (weekday, day)}


def price(pence: int) -> str:
    """'£4.20', as shops write it."""
    return f"£{pence // 100}.{pence % 100:02d}"
