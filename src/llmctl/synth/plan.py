"""The plan of a web: how many pages of each class, in which shard, and which page says what.

A plan is a pure function of the settings; every worker makes it again for itself, so nothing needs
to be sent around, and no number of workers can change a byte.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from random import Random

from llmctl.synth.facts import (
    EXPOSURES,
    Subject,
    make_subjects,
    place_mentions,
)
from llmctl.synth.genres import HOSTS, may_host
from llmctl.synth.sites import count_sites
from llmctl.synth.world import World

COPIES = ("exact_duplicate", "near_duplicate", "mirror")
CLASSES = (
    "good",
    "blocked",
    "foreign",
    "thin",
    "list",
    "repetitive",
    "placeholder",
    *COPIES,
    "nonpage",
)
PAGE_CHARS = 1210  # mean main text of a good page without mentions
MENTION_CHARS = 190  # mean main text that one mention adds
MENTIONS_A_FACT = sum(EXPOSURES) * 6 / 16  # six subjects carry sixteen facts
MENTIONS_A_HOST = 4.2  # most mentions that a page with mentions has in the mean
LONG_SHARD, SHORT_SHARD, FEW_SHARDS = 4000, 500, 8  # pages, pages, shards


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Which part of all pages each planted class is; the rest is good. Defaults: the stage's."""

    blocked: float
    foreign: float
    thin: float
    list: float
    repetitive: float
    placeholder: float
    exact_duplicate: float
    near_duplicate: float
    mirror: float
    nonpage: float
    # parts of the good pages
    pii: float  # for each kind of personal data
    broken: float
    wrong_charset: float

    @property
    def good(self) -> float:
        return 1.0 - sum(getattr(self, name) for name in CLASSES if name != "good")


@dataclass(frozen=True)
class Plan:
    """What to build. n_pages counts all pages; facts is the number in each class of exposure."""

    seed: int
    n_pages: int
    facts: int
    shares: Shares
    textbook_mb: float = 0.0  # of the schoolbook

    @property
    def n_shards(self) -> int:
        return max(-(-self.n_pages // LONG_SHARD), min(FEW_SHARDS, self.n_pages // SHORT_SHARD), 1)

    @functools.cached_property
    def totals(self) -> dict[str, int]:
        """Pages of each class in the whole web; they add up to n_pages."""
        counts = {
            name: round(self.n_pages * getattr(self.shares, name))
            for name in CLASSES
            if name != "good"
        }
        return {"good": self.n_pages - sum(counts.values()), **counts}

    def upto(self, name: str, shard: int) -> int:
        """Pages of a class in all shards before this one."""
        return self.totals[name] * shard // self.n_shards

    def first_page(self, shard: int) -> int:
        """The number of a shard's first page in the whole web."""
        return sum(self.upto(name, shard) for name in CLASSES)

    def order(self, shard: int) -> list[tuple[str, int | None]]:
        """A shard's pages in order: (class, None), and for copies the place of their original.

        An original stands before its copy and has no second one, so that whoever keeps the first
        page of a pair keeps the original.
        """
        rng = Random(f"order {self.seed} {shard}")
        names = [
            name
            for name in CLASSES
            for _ in range(self.upto(name, shard + 1) - self.upto(name, shard))
        ]
        rng.shuffle(names)
        order: list[tuple[str, int | None]] = []
        free: list[int] = []  # places of good pages without a copy
        waiting: list[str] = []
        for name in [*names, ""]:
            if name in COPIES:
                waiting.append(name)
            elif name:
                if name == "good":
                    free.append(len(order))
                order.append((name, None))
            while waiting and (len(free) > 3 or (not name and free)):
                original = free.pop(int(rng.random() * len(free)))
                order.append((waiting.pop(0), original))
            del free[:-100]  # copies stay near their originals, and memory flat
        return order

    def n_sites(self) -> int:
        return count_sites(self.n_pages)


@functools.lru_cache(maxsize=2)
def cast_of(plan: Plan) -> tuple[World, list[Subject], dict[int, list[Subject]]]:
    """The world, the subjects of measured facts, and the mentions on each good page."""
    world = World(plan.seed, households=plan.totals["good"] // 10)
    subjects = make_subjects(world, plan.facts)
    mentions = place_mentions(subjects, plan.totals["good"], may_host, plan.seed)
    return world, subjects, mentions


def facts_that_fit(n_good: int, wanted: int) -> int:
    """How many facts a class may have in a web of so many good pages, at most `wanted`."""
    return min(wanted, int(MENTIONS_A_HOST * HOSTS * n_good / MENTIONS_A_FACT))


def pages_for(size_mb: float, wanted: int, shares: Shares) -> int:
    """All pages of a web whose good pages have so many MB of main text."""
    chars = size_mb * 1e6
    good = chars / PAGE_CHARS
    for _ in range(20):  # mentions make pages longer, and their number depends on the pages
        mentions = facts_that_fit(int(good), wanted) * MENTIONS_A_FACT
        good = max(1.0, (chars - mentions * MENTION_CHARS) / PAGE_CHARS)
    return round(good / shares.good)


def make_plan(
    seed: int,
    shares: Shares,
    facts: int,
    *,
    size_mb: float = 0.0,
    pages: int = 0,
    textbook_mb: float = 0.0,
) -> Plan:
    """A plan for so many pages, or, where pages is 0, for so many MB of good main text.

    Facts are cut to what the good pages can state.
    """
    n_pages = pages or pages_for(size_mb, facts, shares)
    good = Plan(seed, n_pages, 0, shares).totals["good"]
    return Plan(seed, n_pages, facts_that_fit(good, facts), shares, textbook_mb)
