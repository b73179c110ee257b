"""Bins do not depend on workers, order of work or interruptions; every document is in one split."""

import hashlib
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmctl.core.errors import BadInput, LlmctlError
from llmctl.data import documents, encode
from llmctl.data.bins import TokenBins
from llmctl.data.documents import find_sources, plan_units
from llmctl.data.encode import encode_documents, in_validation, sample_texts, split_threshold
from llmctl.data.shards import EncodePlan, SplitWriter
from llmctl.tokenizer.train import train

WORDS = "the river runs past a mill into Dunmore 1847 naïve 漢字 don't <|endoftext|>".split()


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(3)
    made = [f"{i} " + " ".join(draw.choices(WORDS, k=draw.randint(1, 60))) for i in range(700)]
    made[50] = ""
    for i in (100, 101, 300, 301, 699):  # longer than several shards
        made[i] = f"{i} " + " ".join(draw.choices(WORDS, k=2000))
    return made


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train(texts[:50], 512)


@pytest.fixture(scope="module")
def parquet(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("docs") / "a.parquet"
    table = pa.table({"id": [f"d{i}" for i in range(len(texts))], "text": texts})
    pq.write_table(table, path, row_group_size=40)
    return path


class Bar:
    def advance(self, n):
        pass


def make(folder, path, tokenizer, *, unit_bytes=4000, val=0.2, **changes):
    """Encode a file into a folder, its units kept small."""
    folder.mkdir(exist_ok=True)
    tokenizer.save(folder)
    before, documents.UNIT_BYTES = documents.UNIT_BYTES, unit_bytes
    try:
        units = plan_units(find_sources([path]), "text")
    finally:
        documents.UNIT_BYTES = before
    below = split_threshold(units, "text", 0, val, changes.get("skip_damaged", False))
    facts = {"shard_tokens": 1500, "dtype": "uint16", "encoder": "tiktoken"} | changes
    plan = EncodePlan(folder, units, "text", below, 0, **facts)
    return encode_documents(plan, Bar())


def payload(folder):
    paths = sorted(p for p in folder.iterdir() if p.suffix in (".bin", ".idx"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, parquet, tokenizer):
    folder = tmp_path_factory.mktemp("whole") / "out"
    counts = make(folder, parquet, tokenizer)
    return folder, counts, payload(folder)


def decoded(folder, tokenizer):
    """The documents of both splits, in order within each."""
    found = {}
    for split in ("train", "val"):
        bins = TokenBins.open(folder, split, tokenizer_hash=tokenizer.hash)
        ends = [*bins.doc_starts[1:], bins.n_tokens]
        spans = [bins.read(a, b).tolist() for a, b in zip(bins.doc_starts, ends)]
        assert all(s[0] == tokenizer.eot_id and tokenizer.eot_id not in s[1:] for s in spans)
        found[split] = [tokenizer.decode(s[1:]) for s in spans]
    return found


def test_every_document_is_in_one_split_in_order(whole, texts, tokenizer):
    folder, counts, _ = whole
    found = decoded(folder, tokenizer)
    assert sorted(found["train"] + found["val"]) == sorted(t for t in texts if t)
    for part in found.values():
        places = [texts.index(t) for t in part]
        assert places == sorted(places)
    assert 0.1 < len(found["val"]) / len(texts) < 0.3
    for split in ("train", "val"):
        assert counts[split]["documents"] == len(found[split])
        assert counts[split]["bytes"] == sum(len(t.encode()) for t in found[split])
        assert counts[split]["tokens"] == TokenBins.open(folder, split).n_tokens
    assert counts["train"]["empty"] + counts["val"]["empty"] == 1


def test_a_document_is_cut_only_where_it_alone_exceeds_a_shard(whole, tokenizer):
    shards_ = TokenBins.open(whole[0], "train").shards
    assert len(shards_) > 5 and all(0 < s.n_tokens <= 1500 for s in shards_)
    torn = [s for s in shards_ if s.tokens[0] != tokenizer.eot_id]
    assert torn and all(len(s.doc_starts) < 2 or s.doc_starts[0] > 0 for s in torn)


def test_units_encoder_and_order_of_files_do_not_matter(whole, parquet, tokenizer, tmp_path):
    make(tmp_path / "units", parquet, tokenizer, unit_bytes=1 << 20)
    assert payload(tmp_path / "units") == whole[2]
    make(tmp_path / "fast", parquet, tokenizer, encoder="tokenizers")
    assert payload(tmp_path / "fast") == whole[2]


def test_workers_do_not_matter(whole, parquet, tokenizer, tmp_path):
    make(tmp_path / "out", parquet, tokenizer, workers=3)
    assert payload(tmp_path / "out") == whole[2]
    assert not (tmp_path / "out" / "state").exists()


@pytest.mark.parametrize("stop", [1, 4, 9, 17])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    whole, parquet, tokenizer, tmp_path, monkeypatch, stop
):
    """Stop behind the n-th published shard; the rerun publishes only the others."""
    published = []
    close = SplitWriter.close

    def counted(self, position):
        close(self, position)
        published.append((self.split, self.shard))
        if len(published) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(SplitWriter, "close", counted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", parquet, tokenizer)
    first, published[:] = list(published), []
    stop = 10**9
    counts = make(tmp_path / "out", parquet, tokenizer)
    assert payload(tmp_path / "out") == whole[2] and counts == whole[1]
    assert not set(first) & set(published)


def test_a_shard_lost_after_its_state_was_written_is_made_again(
    whole, parquet, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(encode.shutil, "rmtree", lambda path: None)
    make(tmp_path / "out", parquet, tokenizer)
    (tmp_path / "out" / "train-00003.bin").unlink()
    (tmp_path / "out" / "val-00001.idx").write_bytes(b"torn")
    monkeypatch.undo()
    with pytest.raises(LlmctlError, match="altered"):  # damage is not taken for an interruption
        make(tmp_path / "out", parquet, tokenizer)
    (tmp_path / "out" / "val-00001.bin").unlink()
    make(tmp_path / "out", parquet, tokenizer)
    assert payload(tmp_path / "out") == whole[2]


def test_the_split_follows_the_id_not_the_order(whole, texts, tokenizer, tmp_path):
    order = np.random.default_rng(0).permutation(len(texts))
    table = pa.table({"id": [f"d{i}" for i in order], "text": [texts[i] for i in order]})
    pq.write_table(table, tmp_path / "b.parquet")
    make(tmp_path / "out", tmp_path / "b.parquet", tokenizer)
    mixed, plain = decoded(tmp_path / "out", tokenizer), decoded(whole[0], tokenizer)
    assert sorted(mixed["val"]) == sorted(plain["val"])
    named = {t for i, t in enumerate(texts) if t and in_validation(f"d{i}", 0.2, 0)}
    assert named == set(plain["val"])


def test_a_small_corpus_has_one_validation_document(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text('{"text": "a b"}\n{"text": "c d"}\n')
    counts = make(tmp_path / "out", tmp_path / "a.jsonl", tokenizer, val=0.0001)
    assert (counts["train"]["documents"], counts["val"]["documents"]) == (1, 1)
    (tmp_path / "b.jsonl").write_text('{"text": "a b"}\n' * 3)  # all the same: no leak into val
    counts = make(tmp_path / "same", tmp_path / "b.jsonl", tokenizer, val=0.0001)
    assert (counts["train"]["documents"], counts["val"]["documents"]) == (3, 0)
    assert TokenBins.open(tmp_path / "same", "val").n_tokens == 0


def test_bad_rows_beyond_the_tolerance_stop_the_run(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 8 + "{\n" * 2)
    with pytest.raises(BadInput, match=r"2 of 10 rows are bad.*a.jsonl: byte 112: no JSON"):
        make(tmp_path / "out", tmp_path / "a.jsonl", tokenizer, max_bad=0.1)
    counts = make(tmp_path / "ok", tmp_path / "a.jsonl", tokenizer, max_bad=0.3)
    assert counts["train"]["bad"] + counts["val"]["bad"] == 2


def test_damage_can_be_skipped_and_is_recorded(tmp_path, tokenizer):
    import gzip

    packed = gzip.compress(b'{"text": "abc def"}\n' * 30_000)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (docs / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "whole"}\n'))
    with pytest.raises(BadInput, match="--skip-damaged"):
        make(tmp_path / "no", docs, tokenizer, val=0.0)
    counts = make(tmp_path / "yes", docs, tokenizer, val=0.0, skip_damaged=True)
    assert "a.jsonl.gz: damaged" in counts["damaged"][0]
    assert decoded(tmp_path / "yes", tokenizer)["train"][-1] == "whole"


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_skipped_damage_outlives_an_interruption(tmp_path, tokenizer, monkeypatch, stop):
    import gzip

    docs = tmp_path / "docs"
    docs.mkdir()
    rows = "".join(f'{{"text": "{i} abc def"}}\n' for i in range(400)).encode()
    for name in "ac":
        packed = gzip.compress(rows)
        (docs / f"{name}.jsonl.gz").write_bytes(packed[: len(packed) - 100])
    for name in "bd":
        (docs / f"{name}.jsonl").write_bytes(rows)
    whole = make(tmp_path / "whole", docs, tokenizer, skip_damaged=True)
    assert [d.split(":")[0][-10:] for d in whole["damaged"]] == ["a.jsonl.gz", "c.jsonl.gz"]
    close, published = SplitWriter.close, []

    def counted(self, position):
        close(self, position)
        published.append(self.shard)
        if len(published) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(SplitWriter, "close", counted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", docs, tokenizer, skip_damaged=True)
    assert make(tmp_path / "out", docs, tokenizer, skip_damaged=True) == whole
    assert payload(tmp_path / "out") == payload(tmp_path / "whole")


def test_the_sample_leaves_validation_out_and_keeps_its_size(parquet, texts, tokenizer, tmp_path):
    units = plan_units(find_sources([parquet]), "text")
    below = split_threshold(units, "text", 0, 0.2, False)
    plan = EncodePlan(tmp_path, units, "text", below, 0, 1500, "uint16", "tokenizers")
    everything = list(sample_texts(plan, 10**9))
    assert 400 < len(everything) < 650 and set(everything) < set(texts)
    few = list(sample_texts(plan, 20_000))
    assert set(few) <= set(everything)
    assert 10_000 < sum(len(t.encode()) for t in few) < 50_000
    assert few == list(sample_texts(plan, 20_000))
