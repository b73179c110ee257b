"""Round trips, control tokens that text cannot spell, files that cannot be trusted."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import LlmctlError, Mismatch, NoInput
from llmctl.tokenizer.bpe import SIZE_LIMIT, Tokenizer, clean_text
from llmctl.tokenizer.patterns import EOT
from llmctl.tokenizer.stream import StreamDecoder

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_decoding_is_the_exact_inverse(own, text):
    assert own.decode(own.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_bytes_of_any_ids_are_the_bytes_of_each(own, data):
    ids = data.draw(st.lists(st.integers(0, own.vocab_size - 1), max_size=40))
    assert own.decode_bytes(ids) == b"".join(own.decode_bytes([i]) for i in ids)
    stream = StreamDecoder(own)
    assert "".join(map(stream.push, ids)) + stream.flush() == own.decode(ids)


@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_a_stream_never_splits_a_character(own, text):
    stream, ids = StreamDecoder(own), own.encode(text)
    parts = [stream.push(i) for i in ids]
    assert "".join(parts) == text and stream.flush() == ""


def test_a_control_token_in_text_stays_text(own):
    ids = own.encode(f"a {EOT} b {EOT}")
    assert own.eot_id not in ids
    assert own.decode(ids) == f"a {EOT} b {EOT}"
    assert own.encode_batch([EOT]) == [own.encode(EOT)]
    assert own.decode([own.eot_id]) == EOT
    assert own.decode([own.eot_id], skip_special=True) == ""


def test_every_control_token_of_others_stays_text(own, tmp_path):
    parts = json.loads(own.raw)
    flags = dict(parts["added_tokens"][0])
    for k, (text, special) in enumerate([("<|im_start|>", True), ("<think>", False)]):
        parts["added_tokens"].append(
            {**flags, "id": own.n_ids + k, "content": text, "special": special}
        )
    (tmp_path / "tokenizer.json").write_text(json.dumps(parts))
    other = Tokenizer.load(tmp_path)
    ids = other.encode("<|im_start|>user <think>")
    assert max(ids) < own.eot_id
    assert other.id_of("<think>") == own.n_ids + 1 and other.id_of("user") is None


def test_lone_surrogates_are_replaced_and_pairs_joined(own):
    assert clean_text("a\ud800b") == "a�b"
    assert clean_text("\ud83d\ude00") == "😀"
    assert own.decode(own.encode("a\udc00")) == "a�"


def test_saved_and_loaded_is_the_same_tokenizer(own, tmp_path):
    own.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.hash == own.hash and again.encode("it's 1847") == own.encode("it's 1847")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["eos_token"] == EOT and "model_max_length" not in config


def test_transformers_gives_our_ids(own, sentences, tmp_path):
    from transformers import AutoTokenizer

    own.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*sentences[:50], "a  b ,c 's \n\n x", "  lead", "1234 don't"]:
        if EOT not in text:
            assert theirs(text)["input_ids"] == own.encode(text)
            assert theirs.decode(own.encode(text)) == text
    assert theirs.eos_token_id == own.eot_id and len(theirs) == own.n_ids


def test_the_vocabulary_is_padded_and_padding_says_nothing(own):
    assert own.vocab_size % 128 == 0 and own.vocab_size >= own.n_ids
    assert own.decode_bytes(range(own.n_ids, own.vocab_size)) == b""
    with pytest.raises(ValueError, match="not below"):
        own.decode_bytes([own.vocab_size])


def broken(own, change):
    parts = json.loads(own.raw)
    change(parts)
    return json.dumps(parts).encode()


def test_files_that_cannot_be_trusted_are_refused(own, tmp_path):
    cases = {
        "not valid JSON": b"{",
        "not valid JSON ": b"[" * 200_000,
        "no tokenizer.json": b'{"a": 1}',
        "WordPiece model": broken(own, lambda p: p["model"].update(type="WordPiece")),
        "belongs to": broken(own, lambda p: p["model"]["vocab"].update(a=5)),
        "has id -1": broken(own, lambda p: p["model"]["vocab"].update(a=-1)),
        "wide gaps": broken(own, lambda p: p["model"]["vocab"].update(zzzz=9_000_000)),
        "no list of objects": broken(own, lambda p: p.update(added_tokens={"a": 1})),
        "stands twice": broken(
            own, lambda p: p["added_tokens"].append({**p["added_tokens"][0], "id": 1020})
        ),
        "not readable by": broken(own, lambda p: p["model"]["merges"].append(["qq", "zz"])),
    }
    for message, raw in cases.items():
        path = tmp_path / "tokenizer.json"
        path.write_bytes(raw)
        with pytest.raises(LlmctlError, match=message.strip()):
            Tokenizer.load(path).encode("a")
    with open(path, "wb") as handle:
        handle.truncate(SIZE_LIMIT + 1)
    with pytest.raises(Mismatch, match="at most"):
        Tokenizer.load(path)
    with pytest.raises(NoInput, match="no such file"):
        Tokenizer.load(tmp_path / "missing")


def test_an_eos_token_that_is_no_text_ends_no_document(own):
    raw = own.raw.replace(EOT.encode(), b"<|other|>")
    with pytest.raises(Mismatch, match="no token that ends a document"):
        _ = Tokenizer(raw, {"eos_token": {"content": []}}).eot_id
