"""The fast encoders give the reference's ids: on fuzzed text, on hard text, on every character."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import LlmctlError, UsageError
from llmctl.tokenizer import fast
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.patterns import EOT, QWEN2, byte_letters, to_letters, tokenizer_json

pytest.importorskip("gigatoken")
FAST = ("gigatoken", "tiktoken")
RUNS = st.builds(
    lambda c, n: c * n, st.sampled_from(list(" \n\t'a1-=^漢\u0301😀\x00")), st.integers(1, 40)
)
SHORT = st.sampled_from(["'s", "'LL", "'ſ", "don't", " the", "  ", "\r\n", "12345", EOT, "\u00a0"])
CHARACTERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
TEXTS = st.lists(st.one_of(CHARACTERS, RUNS, SHORT), max_size=12).map("".join)


def rows(encoder, texts):
    ids, lengths = encoder.encode(pa.array(texts, pa.large_string()))
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


@pytest.fixture(params=["own", "gpt2", "cl100k"], scope="module")
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def encoders(tokenizer):
    return [fast.make(tokenizer, name) for name in FAST]


@settings(max_examples=120, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
def test_fuzzed_text(tokenizer, encoders, texts):
    wanted = tokenizer.encode_batch(texts)
    for encoder in encoders:
        assert rows(encoder, texts) == wanted
        assert encoder.failed == 0


def test_real_text(tokenizer, encoders):
    """The sources of the standard library: 2 MB of English and code."""
    folder = Path(json.__file__).parents[1]
    texts = [p.read_text("utf-8", "replace") for p in sorted(folder.glob("*.py"))[:40]]
    wanted = tokenizer.encode_batch(texts)
    for encoder in encoders:
        assert rows(encoder, texts) == wanted


@pytest.mark.parametrize("letter", ["a", "^", " ", "\n", "漢", "1", "😀", "\u0301"])
def test_long_runs_end_soon(own, letter):
    text = letter * 200_000
    assert rows(fast.make(own, "gigatoken"), [text]) == [own.encode(text)]


def probing_tokenizer() -> Tokenizer:
    """Merges that happen only inside a piece: ids show whether a character is letter or digit."""
    tails = [to_letters(bytes([b])) for b in range(0x80, 0xC0)]
    heads = [to_letters(bytes([b])) for b in range(0xC2, 0xF5)]
    merges = [(t, "a") for t in tails] + [("a", h) for h in heads] + [("'", "m")]
    vocab = {letter: i for i, letter in enumerate(byte_letters())}
    vocab |= {a + b: 256 + i for i, (a, b) in enumerate(merges)}
    return Tokenizer(json.dumps(tokenizer_json(vocab, merges, QWEN2, {EOT: len(vocab)})).encode())


def test_every_character_is_of_the_same_class():
    """c'm: c is a letter or digit, or takes the apostrophe; ca, ac: c is a letter, or is not."""
    probing = probing_tokenizer()
    assert fast.ranks_equal_merges(probing)
    new = {c for a, b in fast.NEW_IN_UNICODE_17 for c in range(a, b + 1)}
    edges = {c + d for a, b in fast.NEW_IN_UNICODE_17 for c in (a, b) for d in range(-20, 20)}
    uniform = {*range(0x3410, 0x9FF0), *range(0xAC10, 0xD790)}  # ideographs, Hangul
    points = {*range(0x10000)} - uniform | {*range(0x3400, 0xD7A0, 16)}
    points |= {*range(0x10000, 0x20000, 3), *range(0x20000, 0x110000, 97), *edges}
    points -= new
    points -= set(range(0xD800, 0xE000))
    lines = [f"{chr(c)}'m\n{chr(c)}a\na{chr(c)}\n" for c in sorted(points)]
    texts = ["".join(lines[i : i + 500]) for i in range(0, len(lines), 500)]
    wanted = probing.encode_batch(texts)
    for name in FAST:
        got = [fast.make(probing, name)._quick(t.encode()).tolist() for t in texts]
        wrong = [i for i, (a, b) in enumerate(zip(got, wanted)) if a != b]
        assert not wrong, f"{name} differs in {texts[wrong[0]][:20]!r} and the lines after it"


def test_characters_the_libraries_class_differently_go_to_the_reference():
    probing, text = probing_tokenizer(), "\U000323b0'm \u088f'm"
    encoder = fast.make(probing, "gigatoken")
    assert encoder._quick(text.encode()).tolist() != probing.encode(text)
    assert rows(encoder, [text, "plain"]) == [probing.encode(text), probing.encode("plain")]


def test_nfc_of_others_is_kept(own):
    parts = json.loads(own.raw) | {"normalizer": {"type": "NFC"}}
    other = Tokenizer(json.dumps(parts).encode())
    texts = ["e\u0301 cafe\u0301", "plain", "\u212b"]
    assert fast.choose(other)[0] == "gigatoken"
    assert rows(fast.make(other, "gigatoken"), texts) == other.encode_batch(texts)
    assert other.encode("e\u0301") == other.encode("é")


def test_a_tokenizer_that_is_not_proven_gets_the_reference(own):
    def choice(**changes):
        return fast.choose(Tokenizer(json.dumps(json.loads(own.raw) | changes).encode()))

    assert fast.choose(own) == ("gigatoken", "")
    assert choice(normalizer={"type": "Lowercase"})[0] == "tokenizers"
    other_rule = json.loads(own.raw)["pre_tokenizer"]
    other_rule["pretokenizers"][0]["pattern"]["Regex"] = r"\w+|\W+"
    name, why = choice(pre_tokenizer=other_rule)
    assert name == "tokenizers" and "not proven" in why
    with pytest.raises(UsageError, match="not proven"):
        fast.choose(
            Tokenizer(json.dumps(json.loads(own.raw) | {"normalizer": {"type": "NFD"}}).encode()),
            "tiktoken",
        )


def test_missing_packages_fall_back_to_the_same_ids(own, sentences, monkeypatch):
    monkeypatch.setattr(fast, "_version", lambda name: None if name == "gigatoken" else "0.14.0")
    name, why = fast.choose(own)
    assert name == "tiktoken" and why == "gigatoken not installed"
    monkeypatch.setattr(fast, "_version", lambda name: None)
    assert fast.choose(own)[0] == "tokenizers"
    reference = fast.make(own, "tokenizers")
    assert rows(reference, sentences) == rows(fast.make(own, "gigatoken"), sentences)


def test_an_encoder_that_panics_is_replaced_for_that_document(own, monkeypatch):
    encoder = fast.make(own, "gigatoken")

    class PanicException(BaseException):
        pass

    def panics(text):
        raise PanicException("in Rust")

    monkeypatch.setattr(encoder, "_quick", panics)
    assert rows(encoder, ["a b"]) == [own.encode("a b")]
    assert encoder.failed == 1


def test_an_encoder_that_errs_is_noticed(own, monkeypatch):
    encoder = fast.make(own, "gigatoken")
    monkeypatch.setattr(encoder, "_quick", lambda text: np.array([1, 2], np.uint32))
    with pytest.raises(LlmctlError, match="gave other ids"):
        rows(encoder, ["a b c"])


def test_the_cache_is_renewed_with_the_same_ids(own, sentences, monkeypatch):
    monkeypatch.setattr(fast, "CACHE_BYTES", 500)
    encoder = fast.make(own, "gigatoken")
    first = encoder._quick_encoder
    assert rows(encoder, sentences) == own.encode_batch(sentences)
    assert encoder._quick_encoder is not first
