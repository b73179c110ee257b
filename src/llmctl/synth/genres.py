"""The genres of good pages: how often each comes, and which sections its paragraphs are made of."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Genre:
    """What kind of page, how often, and its paragraphs: each a tuple of (section, least, most)."""

    name: str
    weight: int
    title: str
    paragraphs: tuple[tuple[tuple[str, int, int], ...], ...]
    hosts: bool = True  # may speak of the subjects of facts
    headings: tuple[str, ...] = ()
    kind: str = "p"


def _plan(*paragraphs: str) -> tuple[tuple[tuple[str, int, int], ...], ...]:
    """'a.b 1-2, c.d 1' -> ((('a.b', 1, 2), ('c.d', 1, 1)),)."""
    plan = []
    for paragraph in paragraphs:
        parts = []
        for part in paragraph.split(","):
            section, counts = part.split()
            low, _, high = counts.partition("-")
            parts.append((section, int(low), int(high or low)))
        plan.append(tuple(parts))
    return tuple(plan)


def _howto(name: str) -> tuple[tuple[tuple[str, int, int], ...], ...]:
    """Instructions: steps of one craft with remarks between them, which keep pages apart."""
    step = f"howto.{name}.step"
    return _plan(
        f"howto.{name}.open 1, {step} 1",
        f"howto.note 1, {step} 1",
        f"{step} 1, howto.note 1, {step} 1",
        f"{step} 1, howto.note 1",
        f"howto.note 1, howto.{name}.close 1",
    )


GENRES = (
    Genre(
        "town",
        8,
        "town.title",
        _plan("town.open 1", "town.history 2-3", "town.land 1-2", "town.life 2-3", "town.close 1"),
        headings=("", "History of the town", "The river and the land", "How people live there", ""),
    ),
    Genre(
        "person",
        9,
        "person.title",
        _plan(
            "person.open 1, person.youth 1",
            "person.work 2-3",
            "person.youth 1-2",
            "person.home 1-2",
            "person.close 1",
        ),
    ),
    Genre(
        "news",
        12,
        "news.title",
        _plan(
            "news.open 1", "news.quote 1, news.more 1-2", "news.more 2", "news.more 1, news.close 1"
        ),
    ),
    Genre(
        "diary",
        9,
        "diary.title",
        _plan(
            "diary.open 1, diary.event 1-2",
            "diary.event 2",
            "diary.open 1, diary.event 1-2",
            "diary.event 1, diary.close 1",
        ),
    ),
    Genre(
        "letter",
        8,
        "letter.title",
        _plan(
            "letter.open 1", "letter.body 2-3", "letter.body 1-2", "letter.body 1, letter.close 1"
        ),
    ),
    Genre(
        "forum",
        9,
        "forum.title",
        _plan("forum.ask 1", *["forum.reply 1-2"] * 4),
        kind="post",
    ),
    Genre(
        "story",
        7,
        "story.title",
        _plan(
            "story.open 1",
            "story.want 1-2",
            "story.trouble 1",
            "story.trouble 1-2",
            "story.turn 1-2",
            "story.end 1",
        ),
        hosts=False,
    ),
    Genre(
        "shop",
        6,
        "shop.title",
        _plan(
            "shop.open 1", "shop.detail 2-3", "shop.detail 1, shop.close 1", *["shop.review 1"] * 3
        ),
        hosts=False,
        headings=("", "", "", "What our customers say", "", ""),
    ),
    Genre(
        "travel",
        8,
        "travel.title",
        _plan(
            "travel.open 1",
            "travel.place 2",
            "travel.place 1-2",
            "travel.place 1, travel.tip 1-2",
            "travel.tip 1, travel.close 1",
        ),
    ),
    Genre(
        "nature",
        7,
        "nature.title",
        _plan(
            "nature.open 1, nature.body 1",
            "nature.body 2",
            "nature.body 1-3",
            "nature.body 1, nature.close 1",
        ),
    ),
    Genre(
        "cooking",
        3,
        "howto.cook.title",
        _howto("cook"),
        hosts=False,
    ),
    Genre(
        "repair",
        2,
        "howto.fix.title",
        _howto("fix"),
        hosts=False,
    ),
    Genre(
        "garden",
        2,
        "howto.grow.title",
        _howto("grow"),
        hosts=False,
    ),
    Genre(
        "knowledge",
        4,
        "know.title",
        _plan(
            "know.open 1",
            "know.link 1, know.item 1",
            "know.link 1, know.item 1-2",
            "know.link 1, know.item 1",
            "know.link 1, know.item 1, know.close 1",
        ),
        hosts=False,
    ),
    Genre(
        "club",
        8,
        "club.title",
        _plan("club.open 1", "club.body 2", "club.body 2", "club.body 1-2", "club.close 1-2"),
    ),
    Genre(
        "interview",
        7,
        "talk.title",
        _plan(
            "talk.open 1",
            "talk.qa 2",
            "talk.note 1, talk.qa 1",
            "talk.qa 2",
            "talk.note 1, talk.qa 1, talk.close 1",
        ),
    ),
    Genre(
        "fable",
        2,
        "fable.title",
        _plan("fable.open 1", "fable.body 2", "fable.body 2", "fable.body 1, fable.moral 1"),
        hosts=False,
    ),
    Genre("sums", 7, "sums.title", _plan("sums.open 1"), hosts=False),
    Genre("spelling", 3, "spell.title", _plan("spell.open 1"), hosts=False),
)


def _wheel() -> tuple[Genre, ...]:
    """Genres in their shares, in a fixed mixed order: page g has the genre of place g."""
    wheel = [genre for genre in GENRES for _ in range(genre.weight)]
    Random(11).shuffle(wheel)
    return tuple(wheel)


WHEEL = _wheel()


def genre_of(good_page: int) -> Genre:
    """The genre of the good page with this number."""
    return WHEEL[good_page % len(WHEEL)]


def may_host(good_page: int) -> bool:
    """Whether the good page with this number can speak of the subjects of facts."""
    return genre_of(good_page).hosts


HOSTS = sum(genre.hosts for genre in WHEEL) / len(WHEEL)  # share of good pages
