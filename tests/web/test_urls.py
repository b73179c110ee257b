"""URL block lists and the language identifier, as they ship."""

import random

import pytest
import warcs
from datatrove.data import Document

from llmctl.web.blocks import Task
from llmctl.web.language import LanguageFilter, languages_of
from llmctl.web.urls import SortedLines, UrlFilter, unpack_lists


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    unpack_lists(folder)
    return folder


def test_every_line_of_a_sorted_file_is_found_and_nothing_else(tmp_path):
    rng = random.Random(0)
    words = sorted({f"{rng.randrange(10**6):x}.example"[rng.randrange(5) :] for _ in range(500)})
    for end in ("\n", ""):
        path = tmp_path / "words"
        path.write_text("\n".join(words) + end)
        lines = SortedLines(path)
        assert all(w in lines for w in words)
        absent = [w[:-1] for w in words] + [w + "x" for w in words] + ["", "0", "~", "a\nb"]
        assert not any(w in lines for w in absent if w not in words)


def verdict(block, url: str) -> str | None:
    drop = block.judge(Document("text", "1", metadata={"url": url}))
    return drop and drop.rule


def test_block_lists(lists):
    block = UrlFilter(Task(), lists)
    with (lists / "domains").open() as f:
        domains = [next(f).strip() for _ in range(3)]
    assert verdict(block, f"http://{domains[0]}/any/page") == "domain"
    assert verdict(block, f"https://deep.www.{domains[1]}/") == "domain"
    assert verdict(block, "http://en.wikipedia.org/wiki/River") is None
    banned = ("hard_blacklisted", "blacklisted_subword")
    assert verdict(block, "http://a.example/free-porn-pics") in banned
    assert verdict(block, "") is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (warcs.prose(1), "en"),
        ("Der Fluss fließt langsam durch das Tal, und die Leute gehen am Ufer spazieren.", "de"),
        ("La rivière coule lentement dans la vallée et les gens se promènent au bord.", "fr"),
    ],
)
def test_languages(text, language):
    assert languages_of(text)[0][0] == language
    assert languages_of(text, all_labels=True)[0][0] == language
    doc = Document(text, "1")
    drop = LanguageFilter(Task(), ("en",), 0.65).judge(doc)
    assert (drop is None) == (language == "en") and doc.metadata["language"] == language
