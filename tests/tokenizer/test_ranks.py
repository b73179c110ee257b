"""Published vocabularies: tiktoken's ids, by name and by file, and no other file."""

import random

import pytest

from llmctl.core.errors import Mismatch, NoInput
from llmctl.tokenizer import ranks
from llmctl.tokenizer.fast import Tiktoken, ranks_equal_merges
from llmctl.tokenizer.patterns import EOT

tiktoken = pytest.importorskip("tiktoken")


def test_cl100k_has_the_published_ids(cl100k):
    assert cl100k.encode("hello world") == [15339, 1917]
    assert cl100k.encode("HELLO WORLD") == [51812, 1623, 51991]
    assert (cl100k.eot_id, cl100k.n_ids, cl100k.vocab_size) == (100_257, 100_277, 100_352)
    assert cl100k.id_of("<|endofprompt|>") == 100_276


def test_gpt2_has_the_published_ids(gpt2):
    assert gpt2.encode("hello world") == [31373, 995]
    assert (gpt2.eot_id, gpt2.n_ids, gpt2.vocab_size) == (50_256, 50_257, 50_304)
    assert gpt2.eot_id not in gpt2.encode(EOT)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("gpt2", "r50k_pat_str"),
        ("cl100k", r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
         r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"),
    ],
)  # fmt: skip
def test_ids_are_those_of_tiktokens_own_rule(name, pattern, sentences, request):
    tokenizer = request.getfixturevalue(name)
    if name == "gpt2":
        from tiktoken_ext import openai_public

        pattern = getattr(openai_public, pattern)
    same_ranks = Tiktoken(tokenizer)._quick_encoder._mergeable_ranks
    theirs = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=same_ranks, special_tokens={})
    draw = random.Random(1)
    letters = " \n\r\t'stvemldrſaZ09½_-.!漢é\u0301\u00a0\u2003\u200b😀"
    fuzz = ["".join(draw.choices(letters, k=draw.randint(1, 30))) for _ in range(2000)]
    texts = [*sentences, *fuzz]
    assert tokenizer.encode_batch(texts) == [theirs.encode_ordinary(t) for t in texts]


def test_ranks_and_merges_say_the_same(gpt2, cl100k):
    assert ranks_equal_merges(gpt2) and ranks_equal_merges(cl100k)


def test_an_unknown_rank_file_is_refused(tmp_path):
    path = tmp_path / "cl100k_base.tiktoken"
    path.write_text("YQ== 0\n")
    with pytest.raises(Mismatch, match="is no rank file known"):
        ranks.load_ranks(path)
    with pytest.raises(NoInput, match="no such file"):
        ranks.load_ranks(tmp_path / "x.tiktoken")


def test_a_missing_rank_file_names_what_to_give(monkeypatch, tmp_path):
    monkeypatch.setattr(ranks.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(ranks.tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(NoInput, match="cl100k_base.tiktoken"):
        ranks.load_ranks("cl100k")


def test_ranks_that_are_no_merges_are_refused():
    with pytest.raises(Mismatch, match="no merge of two earlier"):
        ranks.recover_merges({b"a": 0, b"b": 1, b"c": 2, b"abc": 3})
    assert ranks.recover_merges({b"a": 0, b"b": 1, b"ab": 2}) == [(b"a", b"b")]
