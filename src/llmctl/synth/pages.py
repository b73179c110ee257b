"""Good pages: a genre's plan of paragraphs, filled by the grammar, with facts woven in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random

from llmctl.synth.facts import Subject
from llmctl.synth.genres import Genre
from llmctl.synth.grammar import Context, expand
from llmctl.synth.lessons import spelling_paragraphs, sums_paragraphs
from llmctl.synth.variety import vary
from llmctl.synth.world import World, calendar

Used = set[tuple[str, int]]
LETTER_SHARE = 0.815  # of tokens; the rule of Gopher asks for 0.8
_TOKEN = re.compile(r"[^\W_]+|[^\w\s]")
_LETTERS = re.compile(r"[^\W\d_]+")


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
        if genre.name == "diary" and at == 1:  # the second entry is a later day's
            later = 1 + int(rng.random() * 6)
            context |= calendar(context["~day"][0] + later, context["~day"][1] + later)
        if genre.headings and genre.headings[at]:
            blocks.append(Block("h2", genre.headings[at]))
        author = _author(rng, context, used) if genre.kind == "post" else ""
        blocks.append(Block(genre.kind, " ".join(sentences), author))
    if genre.name in ("sums", "spelling"):
        lesson = sums_paragraphs if genre.name == "sums" else spelling_paragraphs
        blocks += [Block("p", text) for text in lesson(rng, context, used)]
    if genre.name not in ("spelling", "sums"):
        for block in blocks:
            block.text = vary(block.text, rng)
    page = Page(title, genre.name, blocks)
    for subject in mentions:
        _mention(page, subject, rng, context, used)
    _balance(page, rng, context, used)
    return page


def _balance(page: Page, rng: Random, context: Context, used: Used) -> None:
    """Add plain sentences until words are enough of the text.

    Gopher's rule wants letters in 80% of all tokens, and counts punctuation as tokens; pages of
    sums or of talk come close to that.
    """
    text = page.main_text
    tokens = len(_TOKEN.findall(text))
    words = len(_LETTERS.findall(text))
    sentences: list[str] = []
    while words < LETTER_SHARE * tokens and len(sentences) < 12:
        sentences.append(expand("plain", rng, context, used))
        tokens += len(_TOKEN.findall(sentences[-1]))
        words += len(_LETTERS.findall(sentences[-1]))
    while sentences:  # two or three to a paragraph, early on the page
        texts, sentences = sentences[:3], sentences[3:]
        page.blocks.insert(1, Block(page.blocks[0].kind, " ".join(texts), page.blocks[0].author))


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
