"""Pages in other languages, each from a small grammar, in the charsets such sites really use."""

from __future__ import annotations

from random import Random

from llmctl.synth.grammar import expand_raw
from llmctl.synth.html import Encoding
from llmctl.synth.pages import Block, Page
from llmctl.synth.world import World

# language -> charset of old sites; every third page uses it, sometimes without saying so
CHARSETS = {
    "de": "iso-8859-1",
    "fr": "windows-1252",
    "es": "iso-8859-1",
    "it": "windows-1252",
    "pt": "iso-8859-1",
    "nl": "windows-1252",
    "ru": "windows-1251",
    "el": "iso-8859-7",
    "ja": "shift_jis",
}
LANGUAGES = tuple(CHARSETS)


def foreign_page(world: World, rng: Random) -> tuple[Page, Encoding]:
    """Eight to fourteen sentences of one language in three or four paragraphs."""
    language = LANGUAGES[int(rng.random() * len(LANGUAGES))]
    context = world.cast(rng)
    used: set[tuple[str, int]] = set()
    blocks = []
    for _ in range(3 + int(rng.random() * 2)):
        n = 2 + int(rng.random() * 2)
        sentences = [expand_raw(language, rng, context, used) for _ in range(n)]
        blocks.append(Block("p", ("" if language == "ja" else " ").join(sentences)))
    title = " ".join(blocks[0].text.split()[:5]).rstrip(".,:;")[:60]
    page = Page(title, "foreign", blocks, language=language)
    encoding = Encoding()
    if rng.random() < 0.33:
        charset = CHARSETS[language]
        declared = charset if rng.random() < 0.6 else ("utf-8" if rng.random() < 0.5 else "")
        encoding = Encoding(charset, declared, declared)
    return page, encoding
