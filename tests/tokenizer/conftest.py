"""A small vocabulary learned from a few hundred sentences, and the given ones."""

import random

import pytest

from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.train import train

WORDS = (
    "the river runs past a mill and into Dunmore where it's 1847 or 2026 they'll don't I'M "
    "naïve façade 漢字 かな русский язык عربي हिन्दी 한국어"
    " 👩🏽‍💻 e\u0301 x=1; if(a_b): return; -- !!! \n\n "
    "\t    <|endoftext|> https://example.org/a?b=c"
).split(" ")


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    draw = random.Random(7)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(600)]


@pytest.fixture(scope="session")
def own(sentences) -> Tokenizer:
    return train(sentences, 1024)


def given(name: str) -> Tokenizer:
    """A published vocabulary; the test is skipped where its rank file is not at hand."""
    from llmctl.core.errors import NoInput

    try:
        return Tokenizer.load(name)
    except NoInput as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def gpt2() -> Tokenizer:
    return given("gpt2")


@pytest.fixture(scope="session")
def cl100k() -> Tokenizer:
    return given("cl100k")
