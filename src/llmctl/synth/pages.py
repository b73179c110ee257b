"""Good pages: a genre's plan of paragraphs, filled by the grammar, with facts woven in."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from llmctl.synth.facts import Subject
from llmctl.synth.grammar import Context, expand
from llmctl.synth.lessons import spelling_paragraphs, sums_paragraphs
from llmctl.synth.world import World

Used = set[tuple[str, int]]


@dataclass
class Block:
    """A piece of main text: kind is p, h2, li or post (a forum post with its author)."""

    kind: str
    text: str
    author: str = ""


@dataclass
class Page:
    """A page before it gets its HTML: what its site should show as the main text."""

    title: str
    genre: str
    blocks: list[Block]
    facts: list[str] = field(default_factory=list)
    pii: list[tuple[str, str]] = field(default_factory=list)  # (kind, value)
    language: str = "en"

    @property
    def main_text(self) -> str:
        """The text a reader came for, a line a block; the title is not part of it."""
        return "\n".join(block.text for block in self.blocks)


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
            "travel.close 1",
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
        _plan("howto.cook.open 1", *["howto.cook.step 1-2"] * 4, "howto.cook.close 1-2"),
        hosts=False,
    ),
    Genre(
        "repair",
        2,
        "howto.fix.title",
        _plan("howto.fix.open 1", *["howto.fix.step 1-2"] * 4, "howto.fix.close 1-2"),
        hosts=False,
    ),
    Genre(
        "garden",
        2,
        "howto.grow.title",
        _plan("howto.grow.open 1", *["howto.grow.step 1-2"] * 4, "howto.grow.close 1-2"),
        hosts=False,
    ),
    Genre(
        "knowledge",
        4,
        "know.title",
        _plan(
            "know.open 1",
            "know.item 1",
            "know.link 1, know.item 1",
            "know.item 1",
            "know.link 1, know.item 1",
            "know.item 1, know.close 1",
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
            "talk.open 1", "talk.qa 1", "talk.qa 1, talk.note 1", *["talk.qa 1"] * 3, "talk.close 1"
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


def host_pages(n_good: int) -> list[int] | range:
    """Numbers of good pages that may mention subjects; the first 50,000 suffice for any world."""
    return [page for page in range(min(n_good, 50_000)) if genre_of(page).hosts]


def write_page(world: World, genre: Genre, mentions: list[Subject], rng: Random) -> Page:
    """One good page of a genre that states all facts of the subjects in `mentions`."""
    context = world.cast(rng)
    used: Used = set()
    title = expand(genre.title, rng, context, used)
    blocks: list[Block] = []
    for at, paragraph in enumerate(genre.paragraphs):
        sentences = []
        for section, low, high in paragraph:
            for _ in range(low + int(rng.random() * (high - low + 1))):
                sentences.append(expand(section, rng, context, used))
        if genre.headings and genre.headings[at]:
            blocks.append(Block("h2", genre.headings[at]))
        author = _author(rng, context, used) if genre.kind == "post" else ""
        blocks.append(Block(genre.kind, " ".join(sentences), author))
    if genre.name in ("sums", "spelling"):
        lesson = sums_paragraphs if genre.name == "sums" else spelling_paragraphs
        blocks += [Block("p", text) for text in lesson(rng, context, used)]
    page = Page(title, genre.name, blocks)
    for subject in mentions:
        _mention(page, subject, rng, context, used)
    return page


def _author(rng: Random, context: Context, used: Used) -> str:
    return expand("forum.author", rng, context, used).lower()


def _mention(page: Page, subject: Subject, rng: Random, context: Context, used: Used) -> None:
    """Weave a subject's facts into a page: as a paragraph of their own, or spread over the page."""
    he, him, his = ("she", "her", "her") if subject.woman else ("he", "him", "his")
    context |= {"s": subject.name, "s.he": he, "s.him": him, "s.his": his}
    facts = list(subject.facts)
    rng.shuffle(facts)
    sentences = []
    for fact in facts:
        context["c"] = fact.statement(int(rng.random() * 3))
        wrap = "mention.wrap" if subject.kind == "person" else "mention.wrap.plain"
        sentence = expand(wrap, rng, context, set())
        if rng.random() < 0.3:
            after = expand(f"mention.after.{fact.relation}", rng, context, used)
            sentence = f"{sentence} {after}"
        sentences.append(sentence)
    page.facts += [fact.fact_id for fact in subject.facts]
    texts = [block for block in page.blocks if block.kind != "h2"]
    if rng.random() < 0.7:
        if rng.random() < 0.45:
            sentences.insert(0, expand(f"mention.lead.{subject.kind}", rng, context, used))
        at = 1 + int(rng.random() * len(page.blocks))
        if at < len(page.blocks) and page.blocks[at - 1].kind == "h2":
            at += 1
        kind = texts[0].kind
        author = _author(rng, context, used) if kind == "post" else ""
        page.blocks.insert(at, Block(kind, " ".join(sentences), author))
        return
    for sentence in sentences:
        block = texts[int(rng.random() * len(texts))]
        block.text = f"{block.text} {sentence}"
