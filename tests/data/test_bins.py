"""Bins read back what was written; readers of llm.c's format read ours; damage is named."""

import struct

import numpy as np
import pytest

from llmctl.core.errors import BadInput, Mismatch, NoInput
from llmctl.data.bins import HEADER_BYTES, BinWriter, TokenBins, check_fits

HASH = "ab" * 32


def write(path, documents, *, dtype="uint16", tokenizer_hash=HASH, vocab_size=512):
    writer = BinWriter(
        path, dtype=dtype, vocab_size=vocab_size, eot_id=9, tokenizer_hash=tokenizer_hash
    )
    for ids in documents:
        writer.append(np.array([9, *ids], dtype=writer.format.dtype), np.array([0]))
    writer.finish()
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train-00000.bin", [[1, 2, 3], [4]])
    write(tmp_path / "train-00001.bin", [[5, 6]])
    return tmp_path


def read_as_llm_c_does(path):
    """A data loader by llm.c's published header alone: 256 int32, then count x uint16."""
    raw = path.read_bytes()
    header = struct.unpack("<256i", raw[:1024])
    assert header[0] == 20240520 and header[1] == 1
    assert len(raw) == 1024 + 2 * header[2]  # llm.c refuses any other length
    return list(struct.unpack(f"<{header[2]}H", raw[1024:]))


def test_shards_are_one_stream(folder):
    bins = TokenBins.open(folder, "train")
    assert bins.n_tokens == 9
    assert bins.read(0, 9).tolist() == [9, 1, 2, 3, 9, 4, 9, 5, 6]
    assert bins.read(5, 8).tolist() == [4, 9, 5]
    assert bins.read(9, 9).tolist() == []
    assert bins.doc_starts.tolist() == [0, 4, 6]
    assert (bins.vocab_size, bins.eot_id, bins.tokenizer_hash) == (512, 9, HASH)


def test_readers_of_llm_c_format_see_the_ids(folder):
    assert read_as_llm_c_does(folder / "train-00000.bin") == [9, 1, 2, 3, 9, 4]


def test_uint32_has_its_own_magic(tmp_path):
    path = write(tmp_path / "train-00000.bin", [[70_000]], dtype="uint32", vocab_size=100_352)
    header = struct.unpack("<256i", path.read_bytes()[:1024])
    assert header[:4] == (20240801, 7, 2, 100_352)
    assert TokenBins.open(tmp_path, "train").read(0, 2).tolist() == [9, 70_000]


def test_a_bin_of_llm_c_is_read_and_its_documents_found(tmp_path):
    ids = [50256, 1, 2, 50256, 3]
    raw = struct.pack("<256i", 20240520, 1, len(ids), *[0] * 253) + struct.pack("<5H", *ids)
    (tmp_path / "fineweb_train_000001.bin").write_bytes(raw)
    bins = TokenBins.open(tmp_path, "train", tokenizer_hash=HASH)
    assert bins.read(0, 5).tolist() == ids
    assert bins.doc_starts.tolist() == [0, 3]
    assert bins.vocab_size is None


@pytest.mark.parametrize("cut", [1, 2, 3, 1030])
def test_a_torn_copy_is_refused(folder, cut):
    path = folder / "train-00001.bin"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(Mismatch, match="torn|and more"):
        TokenBins.open(folder, "train", verify=False)


@pytest.mark.parametrize("name", ["train-00000.bin", "train-00000.idx"])
def test_one_flipped_bit_is_found_by_the_hash(folder, name):
    raw = bytearray((folder / name).read_bytes())
    raw[-1] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(Mismatch, match="again"):
        TokenBins.open(folder, "train")


def test_odd_bytes_big_endian_newer_version_and_rubbish_are_named(folder):
    path = folder / "train-00000.bin"
    good = path.read_bytes()
    words = struct.unpack("<256i", good[:1024])
    cases = {
        "torn": good + b"x",
        "big-endian": struct.pack(">256i", *words) + good[1024:],
        "version 2, this": struct.pack("<256i", words[0], 2, *words[2:]) + good[1024:],
        "header version 2": struct.pack("<256i", *words[:4], 2, *words[5:]) + good[1024:],
        "no token bin": b"<html>" + bytes(2000),
    }
    for message, raw in cases.items():
        path.write_bytes(raw)
        with pytest.raises(Mismatch, match=message):
            TokenBins.open(folder, "train")


def test_another_tokenizer_is_refused(folder):
    with pytest.raises(Mismatch, match="tokenize again"):
        TokenBins.open(folder, "train", tokenizer_hash="cd" * 32)
    write(folder / "train-00002.bin", [[1]], tokenizer_hash="cd" * 32)
    with pytest.raises(Mismatch, match="different runs"):
        TokenBins.open(folder, "train")


def test_a_missing_split_is_no_input(folder):
    with pytest.raises(NoInput, match="no val bins"):
        TokenBins.open(folder, "val")


def test_an_empty_shard_is_allowed(tmp_path):
    write(tmp_path / "val-00000.bin", [])
    bins = TokenBins.open(tmp_path, "val")
    assert bins.n_tokens == 0 and bins.doc_starts.tolist() == []


def test_ids_beyond_the_vocabulary_are_placed(folder):
    with pytest.raises(BadInput, match="id 9 at token 0"):
        TokenBins.open(folder, "train").check_ids(8)


def test_a_vocabulary_over_65536_is_refused_for_uint16():
    check_fits(65_536, "uint16")
    with pytest.raises(Mismatch, match="65,537 ids does not fit uint16.*--dtype uint32"):
        check_fits(65_537, "uint16")


def test_nothing_is_visible_before_finish(tmp_path):
    path = tmp_path / "train-00000.bin"
    writer = BinWriter(path, dtype="uint16", vocab_size=512, eot_id=9, tokenizer_hash=HASH)
    writer.append(np.array([1], dtype="<u2"), np.array([0]))
    assert not path.exists()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_offsets_beyond_2_gib_of_tokens(tmp_path):
    """Four sparse shards of 1.2 G ids each: 9.6 GB that occupy a few blocks on disk."""
    n = 1_200_000_000
    for k in range(4):
        path = tmp_path / f"train-{k:05d}.bin"
        with open(path, "wb") as handle:
            handle.write(struct.pack("<256i", 20240520, 1, n, *[0] * 253))
            handle.truncate(HEADER_BYTES + 2 * n)
            handle.seek(HEADER_BYTES + 2 * (n - 1))
            handle.write(struct.pack("<H", k + 1))
    bins = TokenBins.open(tmp_path, "train")
    assert bins.n_tokens == 4 * n > 2**32
    assert bins.read(4 * n - 2, 4 * n).tolist() == [0, 4]
    assert bins.read(3 * n - 1, 3 * n + 1).tolist() == [3, 0]
