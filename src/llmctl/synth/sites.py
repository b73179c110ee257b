"""Sites: who publishes a page, under which address, and the furniture around its text."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from random import Random

from llmctl.synth.grammar import Context, expand, expand_text
from llmctl.synth.world import World

N_SKINS = 12
_KINDS = ("gazette", "letters", "board", "almanac", "notes", "journal", "corner", "weekly", "pages")


@dataclass(frozen=True)
class Site:
    """One host. Its furniture (navigation, banner, footer) is the same on every page."""

    host: str
    name: str
    skin: int
    nav: tuple[str, ...]
    cookie: str
    newsletter: str
    footer: tuple[str, ...]
    share: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """Every line of the furniture."""
        return [*self.nav, self.cookie, self.newsletter, *self.footer, *self.share]


@functools.lru_cache(maxsize=64)
def _site(seed: int, index: int, towns: tuple[str, ...]) -> Site:
    rng = Random(f"site {seed} {index}")
    town = towns[index % len(towns)]
    kind = _KINDS[index // len(towns) % len(_KINDS) if index >= len(towns) else index % len(_KINDS)]
    number = index // (len(towns) * len(_KINDS))
    host = f"www.{town.lower()}-{kind}{number or ''}.example"
    name = f"The {town} {kind.capitalize()}"
    context: Context = {"site": name, "town": town, "host": host}
    used: set[tuple[str, int]] = set()

    def draw(section: str, n: int = 1) -> tuple[str, ...]:
        return tuple(expand(section, rng, context, used) for _ in range(n))

    return Site(
        host=host,
        name=name,
        skin=index % N_SKINS,
        nav=draw("site.nav", rng.randint(5, 8)),
        cookie=draw("site.cookie")[0],
        newsletter=draw("site.newsletter")[0],
        footer=draw("site.footer", 3),
        share=draw("site.share", 3),
    )


def site_of(world: World, index: int) -> Site:
    """The site with this number."""
    return _site(world.seed, index, tuple(world.town_names))


def count_sites(pages: int) -> int:
    """How many sites a web of so many pages has: some eighty pages each, at least two a skin."""
    return max(2 * N_SKINS, pages // 80)


@dataclass(frozen=True)
class Furniture:
    """What stands around one page's text besides the site's own lines."""

    ads: tuple[str, ...]
    related: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        return [*self.ads, *self.related]


def furnish(world: World, rng: Random) -> Furniture:
    """Advertisements and links to other pages, new for every page."""
    towns = world.town_names
    context: Context = {
        "town": towns[int(rng.random() * len(towns))],
        "price": f"£{1 + int(rng.random() * 40)}.{int(rng.random() * 20) * 5:02d}",
    }
    used: set[tuple[str, int]] = set()
    ads = tuple(expand("site.ad", rng, context, used) for _ in range(1 + int(rng.random() * 2)))
    related = tuple(expand("site.related", rng, context, used) for _ in range(4))
    return Furniture(ads, related)


def slug(title: str) -> str:
    """A title as an address says it."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60]


def address(site: Site, title: str, number: int) -> str:
    """The address of a page: one of several habits, always with its number."""
    forms = (
        f"https://{site.host}/{number}/{slug(title)}",
        f"https://{site.host}/{slug(title)}-{number}.html",
        f"http://{site.host}/archive/{2000 + number % 26}/{number}.html",
        f"https://{site.host}/index.php?page={number}",
    )
    return forms[site.skin % len(forms)]


def plain(template: str, rng: Random) -> str:
    """Expand a short template that needs no page context."""
    return expand_text(template, rng, {})
