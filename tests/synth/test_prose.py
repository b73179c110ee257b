from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

import pytest
from synthetic import Web

from llmctl.synth.genres import GENRES, WHEEL
from llmctl.synth.grammar import compiled, expand_text, in_words, plural, polish
from llmctl.synth.lexicon import lexicon, sections
from llmctl.synth.variety import vary

DOUBLED = re.compile(r"\b(\w+) \1\b", re.IGNORECASE)
WRONG_ARTICLE = re.compile(r"\b(?:[Aa] [aeio]\w+|[Aa]n [bcdfgjklmnpqrstvwxyz]\w*)")


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def jaccard(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    return len(a & b) / len(a | b)


def prose(web: Web) -> list[dict]:
    """Good pages without spelled-out words."""
    return [page for page in web.of("good") if page["genre"] != "spelling"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (21, "twenty-one"),
        (100, "one hundred"),
        (342, "three hundred and forty-two"),
        (1005, "one thousand and five"),
        (12_300, "twelve thousand three hundred"),
    ],
)
def test_numbers_in_words(number: int, words: str):
    assert in_words(number) == words


def test_plurals():
    nouns = ["brush", "jar of honey", "knife", "wolf", "fly", "key", "thrush", "bookshelf", "mouse"]
    several = [plural(noun) for noun in nouns]
    assert several[:5] == ["brushes", "jars of honey", "knives", "wolves", "flies"]
    assert several[5:] == ["keys", "thrushes", "bookshelves", "mice"]


def test_articles_and_capitals():
    assert polish("a oak. a hour, an unit") == "An oak. An hour, a unit"


def test_templates_choose_bind_and_count():
    from random import Random

    texts = {expand_text("[a|b|]{x=pet} {x} {2-3}", Random(i), {}) for i in range(60)}
    for text in texts:
        first, second, number = text.split()
        assert first.endswith(second.lower()) or second.lower().endswith(first.lower()[1:])
        assert number in "23"
    assert len(texts) > 40


def test_every_template_compiles_and_every_word_list_is_clean():
    for name in sections():
        compiled(name)
    for name, words in lexicon().items():
        assert len(set(words)) == len(words), name


def test_every_genre_occurs_as_often_as_its_weight():
    assert Counter(genre.name for genre in WHEEL) == {g.name: g.weight for g in GENRES}


def test_sentences_are_well_formed(web: Web):
    for page in prose(web):
        text = page["main_text"]
        assert "  " not in text and " ." not in text and " ," not in text, text
        assert not re.search(r"[\[\]{}|=]", text), text
        assert text.count('"') % 2 == 0, text
        assert text.count("(") == text.count(")")
        assert not WRONG_ARTICLE.search(text), WRONG_ARTICLE.search(text)
        doubled = DOUBLED.search(text)
        assert not doubled, doubled
        for line in text.split("\n"):
            assert line[0].isupper() or line[0] in '"\u201c£', line


def test_good_pages_differ_from_each_other(web: Web):
    pages = [shingles(page["main_text"]) for page in web.of("good")[:220]]
    assert max(jaccard(a, b) for a, b in combinations(pages, 2)) < 0.4


def test_near_duplicates_are_near_and_mirrors_equal(web: Web):
    texts = {page["url"]: page["main_text"] for page in web.pages}
    for page in web.of("near_duplicate"):
        likeness = jaccard(shingles(page["main_text"]), shingles(texts[page["dup_of"]]))
        assert 0.88 <= likeness < 1
    for name in ("mirror", "exact_duplicate"):
        assert all(texts[page["dup_of"]] == page["main_text"] for page in web.of(name))


def test_boilerplate_is_no_part_of_the_main_text(web: Web):
    for page in web.of("good"):
        assert len(page["boilerplate"]) >= 5
        assert not set(page["boilerplate"]) & set(page["main_text"].split("\n"))


def test_wording_varies_but_not_at_the_end_of_a_clause():
    from random import Random

    forms = {vary("It is late because nobody knows what it is.", Random(i)) for i in range(80)}
    assert "It's late as no one knows what it is." in forms
    assert "It is late because nobody knows what it is." in forms
    assert len(forms) == 12  # 2 x 3 x 2
    assert vary('"Because of the cat."', Random(1)) == '"Because of the cat."'
