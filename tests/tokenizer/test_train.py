"""A vocabulary is a function of its sample, holds all bytes, and merges by rank or by merge."""

import json
import os
import subprocess
import sys

import pytest

from llmctl.core.errors import UsageError
from llmctl.tokenizer.fast import ranks_equal_merges
from llmctl.tokenizer.patterns import byte_letters
from llmctl.tokenizer.train import reachable_merges, train

SCRIPT = """
import json, sys
from llmctl.tokenizer.train import train
print(train(json.load(sys.stdin), 1024).hash)
"""


def test_the_same_for_any_number_of_threads(own, sentences):
    for threads in ("1", "3"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input=json.dumps(sentences),
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == own.hash


def test_all_bytes_come_first_and_the_document_token_last(own):
    vocab = own.parts["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(own.eot_id))
    assert {t for t, i in vocab.items() if i < 256} == set(byte_letters())
    assert own.n_ids == own.eot_id + 1


@pytest.mark.parametrize("texts", [["aaaa " * 50] * 20, ["a" * 100_000], ["\x00"], ["漢"]])
def test_too_small_a_corpus_gives_fewer_merges(texts):
    tokenizer = train(texts, 1024)
    assert 257 <= tokenizer.n_ids < 1024
    assert tokenizer.vocab_size % 128 == 0
    assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]
    assert ranks_equal_merges(tokenizer)


def test_sizes_are_rounded_up_and_nonsense_refused(sentences):
    assert train(sentences, 400).vocab_size == 512
    for size in (0, 256, 1 << 21):
        with pytest.raises(UsageError, match="vocab_size"):
            train(sentences, size)


def test_merges_that_are_never_reached_or_repeated_are_dropped():
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("x", "yz"), ("c", "d")]
    # abc has two makers: the first stays; x yz has no yz
    assert reachable_merges(merges) == [("a", "b"), ("b", "c"), ("ab", "c"), ("c", "d")]
    # bc is merged before ab can be, so "ab" + "c" never happens inside abc
    assert reachable_merges([("b", "c"), ("a", "b"), ("ab", "c")]) == [("b", "c"), ("a", "b")]
