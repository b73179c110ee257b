"""Pages planted to be thrown away: block-listed, thin, listy, repetitive, placeholders, copies."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

from llmctl.synth.grammar import Context, expand
from llmctl.synth.lexicon import lexicon
from llmctl.synth.pages import Block, Page
from llmctl.synth.world import World

# Domains, words and parts of words that stand in the block lists which datatrove carries
# (UT1 of the University of Toulouse, and the lists of FineWeb).
BLOCKED_DOMAINS = (
    "allstarcasinos.net",
    "www.allstarcasinos.net",
    "cryptologic-casinos.net",
    "takebinance.com",
    "bcpzonaisegurabetas.com",
    "bcpclientesinfobetasegvra.xyz",
    "zonasseguraviabcpbeta.com",
    "bestpokernodepositbonus.blogspot.sn",
    "kickasspoker.blogspot.sk",
    "bingocasino.blogspot.ca",
    "crazy4warez.blogspot.is",
    "argolowarez.blogspot.cl",
    "grandbettinggir2.blogspot.com",
    "beatonlinecasinos.blogspot.pe",
)
HARD_WORDS = ("viagra", "cialis", "nsfw", "voyeur", "porn", "xxx", "hentai")
SOFT_WORDS = ("webcam", "lingerie", "playboy", "topless", "escort", "babes", "sexy", "nude")
SUBWORDS = ("hotchat", "freesex", "sexvideo", "callgirl", "phonesex", "hot-chick", "sex-free")


def blocked_url(rng: Random, number: int) -> str:
    """An address that FineWeb's URL filter refuses: by domain, by word or by part of a word."""
    kind = rng.random()
    if kind < 0.4:
        return f"http://{rng.choice(BLOCKED_DOMAINS)}/page/{number}.html"
    host = f"www.{rng.choice(('best', 'top', 'my', 'free'))}{number % 97}-offers.example"
    if kind < 0.6:
        return f"https://{host}/{rng.choice(HARD_WORDS)}/{number}"
    if kind < 0.8:
        first, second = rng.sample(SOFT_WORDS, 2)
        return f"https://{host}/{first}-{second}/{number}.html"
    return f"https://{host}/{rng.choice(SUBWORDS)}/{number}.html"


def thin_page(world: World, rng: Random) -> Page:
    """A page with too little on it: three sentences.

    They are long enough for an extractor to find, which otherwise takes the furniture for text.
    """
    context = world.cast(rng)
    used: set[tuple[str, int]] = set()
    texts = [expand("thin", rng, context, used) for _ in range(3)]
    return Page(expand("thin.title", rng, context, used), "thin", [Block("p", t) for t in texts])


def list_page(world: World, rng: Random) -> Page:
    """Forty to ninety short lines without a full stop: an index, a price list, a directory."""
    context: Context = world.cast(rng)
    section = f"list.{rng.choice(('index', 'price', 'directory', 'tags'))}"
    lines = list(dict.fromkeys(expand(section, rng, context, set()) for _ in range(90)))
    blocks = [Block("li", line) for line in lines[: 40 + int(rng.random() * 40)]]
    return Page(expand("list.title", rng, context, set()), "list", blocks)


def repetitive_page(world: World, rng: Random) -> Page:
    """One or two sentences said over and over, with here and there a word changed."""
    context = world.cast(rng)
    sentences = [expand("news.more", rng, context, set()) for _ in range(1 + int(rng.random() * 2))]
    slogan = expand("spam", rng, context, set())
    blocks = []
    for at in range(8 + int(rng.random() * 8)):
        text = f"{slogan} {sentences[at % len(sentences)]}"
        if rng.random() < 0.4:
            text = f"{rng.choice(lexicon()['adverb']).capitalize()}: {text}"
        blocks.append(Block("p", text))
    return Page(slogan.rstrip(".!"), "repetitive", blocks)


def placeholder_page(world: World, rng: Random) -> Page:
    """An unfinished template: dummy text, or a page that shows its own braces."""
    context = world.cast(rng)
    section = rng.choice(("placeholder.lorem", "placeholder.code"))
    used: set[tuple[str, int]] = set()
    blocks = [Block("p", expand("news.more", rng, context, used)) for _ in range(4)]
    for _ in range(3):
        at = int(rng.random() * (len(blocks) + 1))
        text = expand(section, rng, context, used).replace("<<", "{{ ").replace(">>", " }}")
        blocks.insert(at, Block("p", text))
    return Page("New page", "placeholder", blocks)


def _swaps() -> dict[str, tuple[str, ...]]:
    lists = ("weekday", "month", "color", "mood", "ordinal", "daypart", "season")
    words = lexicon()
    return {word: words[name] for name in lists for word in words[name] if " " not in word}


_WORD = re.compile(r"\b[A-Za-z]+\b")


def near_duplicate(page: Page, rng: Random) -> Page:
    """The page with a few words changed: at least 0.9 of its five-word shingles stay.

    A changed word costs five shingles on either side of the comparison, so one word in a hundred
    may change. Words are exchanged for others of their kind (a weekday for a weekday), or, where
    there are none, a word is put in. Statements of facts hold no such word and stay as they are.
    """
    swaps = _swaps()
    n_words = len(page.main_text.split())
    budget = max(1, n_words // 100)
    spots = [
        (at, match)
        for at, block in enumerate(page.blocks)
        for match in _WORD.finditer(block.text)
        if match[0] in swaps
    ]
    rng.shuffle(spots)
    chosen: list[tuple[int, re.Match[str]]] = []
    for at, match in spots:
        far = all(at != b or abs(match.start() - m.start()) > 60 for b, m in chosen)
        if far and len(chosen) < budget:
            chosen.append((at, match))
    blocks = [replace(block) for block in page.blocks]
    for at, match in sorted(chosen, key=lambda c: -c[1].start()):
        kind = swaps[match[0]]
        other = kind[(kind.index(match[0]) + 1) % len(kind)]
        text = blocks[at].text
        blocks[at].text = text[: match.start()] + other + text[match.end() :]
    if not chosen:
        blocks[-1].text += " Updated."
    return Page(page.title, page.genre, blocks, page.facts, page.pii, page.language)
