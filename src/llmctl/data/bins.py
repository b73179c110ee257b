"""Token bins: one stream of ids a split, in shards that llm.c and modded-nanogpt read unchanged.

A shard is a header of 256 little-endian int32 words and then the ids. llm.c (its dev/data scripts
and loader) fixes words 0-2: magic, version, number of ids; it ignores the others, which hold ours:

    0 magic   20240520 for uint16 ids, 20240801 for uint32     5      id that begins each document
    1 version 1 for uint16, 7 for uint32                       8:16   sha256 of tokenizer.json
    2 number of ids                                            16:24  sha256 of the ids
    3 vocabulary size, padding included                        24:32  sha256 of the .idx file
    4 version of our words; 0: written by somebody else

Beside NAME.bin lies NAME.idx: where documents start, uint64 little-endian, in tokens of the shard.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.core.errors import BadInput, Mismatch, NoInput
from llmctl.core.files import atomic_write, publish, temporary_name

HEADER_WORDS = 256
HEADER_BYTES = 4 * HEADER_WORDS
OUR_VERSION = 1
MAX_TOKENS = 2**31 - 1  # ids a shard can count: the header's word is a signed int32


@dataclass(frozen=True)
class BinFormat:
    """One of llm.c's two shard formats. document_id: what begins a document in files of others."""

    magic: int
    version: int
    dtype: np.dtype
    document_id: int


FORMATS = {
    "uint16": BinFormat(20240520, 1, np.dtype("<u2"), 50256),  # GPT-2's <|endoftext|>
    "uint32": BinFormat(20240801, 7, np.dtype("<u4"), 128000),  # Llama 3's <|begin_of_text|>
}


def check_fits(vocab_size: int, dtype: str) -> None:
    """Refuse (78) a vocabulary whose ids the dtype cannot hold."""
    room = 1 << (8 * FORMATS[dtype].dtype.itemsize)
    if vocab_size > room:
        raise Mismatch(
            f"a vocabulary of {vocab_size:,} ids does not fit {dtype} ({room:,} ids); "
            "add --dtype uint32"
        )


class BinWriter:
    """Writes one shard: nothing is visible under its name before `finish`."""

    def __init__(
        self, path: Path, *, dtype: str, vocab_size: int, eot_id: int, tokenizer_hash: str
    ) -> None:
        check_fits(vocab_size, dtype)
        self.path, self.format = path, FORMATS[dtype]
        self.vocab_size, self.eot_id = vocab_size, eot_id
        self._tokenizer = bytes.fromhex(tokenizer_hash)
        self.n_tokens = 0
        self._starts: list[np.ndarray] = []
        self._hash = hashlib.sha256()
        self._temporary = temporary_name(path)
        self._file = open(self._temporary, "wb")  # noqa: SIM115 (closed in finish or abandon)
        self._file.write(bytes(HEADER_BYTES))

    def append(self, ids: np.ndarray, starts: np.ndarray) -> None:
        """Add ids (N,) of the shard's dtype; starts (D,): where documents begin among them."""
        if ids.dtype != self.format.dtype:
            raise TypeError(f"ids are {ids.dtype}, the shard holds {self.format.dtype}")
        if self.n_tokens + len(ids) > MAX_TOKENS:
            raise ValueError(f"a shard holds at most {MAX_TOKENS:,} ids")
        self._starts.append(starts.astype("<u8") + np.uint64(self.n_tokens))
        data = ids.tobytes()
        self._hash.update(data)
        self._file.write(data)
        self.n_tokens += len(ids)

    def finish(self) -> None:
        """Publish the index and then the shard, each whole."""
        index = np.concatenate([np.empty(0, "<u8"), *self._starts]).astype("<u8").tobytes()
        words = np.zeros(HEADER_WORDS, dtype="<i4")
        words[:6] = (
            self.format.magic,
            self.format.version,
            self.n_tokens,
            self.vocab_size,
            OUR_VERSION,
            self.eot_id,
        )
        hashes = self._tokenizer + self._hash.digest() + hashlib.sha256(index).digest()
        words[8:32] = np.frombuffer(hashes, dtype="<i4")
        self._file.seek(0)
        self._file.write(words.tobytes())
        self._file.close()
        with atomic_write(self.path.with_suffix(".idx")) as handle:
            handle.write(index)
        publish(self._temporary, self.path)

    def abandon(self) -> None:
        """Drop what was written."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Shard:
    """One opened .bin file. vocab_size and tokenizer_hash are None in files of others."""

    path: Path
    format: BinFormat
    n_tokens: int
    eot_id: int
    vocab_size: int | None
    tokenizer_hash: str | None
    payload_hash: str | None
    index_hash: str | None

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Shard:
        """Read and check a header. verify: compare the payload and the index with their hashes.

        Mismatch (78) for what is no bin, of a newer version, torn, or altered.
        """
        size = path.stat().st_size
        with open(path, "rb") as handle:
            raw = handle.read(HEADER_BYTES)
        if len(raw) < HEADER_BYTES:
            raise Mismatch(f"{path}: {size:,} bytes, a token bin has {HEADER_BYTES:,} and more")
        words = np.frombuffer(raw, dtype="<i4")
        form = _format_of(path, words)
        n_tokens = int(words[2])
        expected = HEADER_BYTES + n_tokens * form.dtype.itemsize
        if n_tokens < 0 or size != expected:
            raise Mismatch(
                f"{path}: {size:,} bytes, its header says {max(expected, 0):,} "
                f"({n_tokens:,} tokens); copy torn, fetch it again"
            )
        ours = int(words[4])
        if ours > OUR_VERSION:
            raise Mismatch(
                f"{path}: header version {ours}, this llmctl reads up to {OUR_VERSION}; update it"
            )
        digests = [words[k : k + 8].tobytes().hex() if ours else None for k in (8, 16, 24)]
        eot_id = int(words[5]) if ours else form.document_id
        vocab_size = int(words[3]) if ours else None
        if vocab_size is not None and not 0 <= eot_id < vocab_size <= 1 << 8 * form.dtype.itemsize:
            raise Mismatch(
                f"{path}: header names {vocab_size:,} ids and document id {eot_id:,}; make it again"
            )
        shard = cls(path, form, n_tokens, eot_id, vocab_size, *digests)
        if verify:
            shard.verify()
        return shard

    @cached_property
    def tokens(self) -> np.ndarray:
        """(n_tokens,) ids, memory-mapped, read-only."""
        if not self.n_tokens:
            return np.empty(0, dtype=self.format.dtype)
        return np.memmap(self.path, self.format.dtype, "r", HEADER_BYTES, (self.n_tokens,))

    @cached_property
    def doc_starts(self) -> np.ndarray:
        """(D,) int64: where documents start in this shard; found by their first id without .idx."""
        path = self.path.with_suffix(".idx")
        if self.index_hash is None and not path.exists():
            return np.flatnonzero(self.tokens == self.eot_id).astype(np.int64)
        if not path.exists():
            raise Mismatch(f"{path}: missing beside its bin; copy the artifact again")
        raw = path.read_bytes()
        if len(raw) % 8:
            raise Mismatch(
                f"{path}: {len(raw):,} bytes, no multiple of 8; copy torn, fetch it again"
            )
        starts = np.frombuffer(raw, dtype="<u8").astype(np.int64)
        inside = not len(starts) or (starts[0] >= 0 and starts[-1] < self.n_tokens)
        if not inside or (np.diff(starts) <= 0).any():
            raise Mismatch(f"{path}: document starts leave the shard or do not ascend; fetch again")
        return starts

    def verify(self) -> None:
        """Compare payload and index with the header's hashes, where it has them."""
        if self.payload_hash is None:
            return
        digest = hashlib.sha256()
        with open(self.path, "rb") as handle:
            handle.seek(HEADER_BYTES)
            while block := handle.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != self.payload_hash:
            raise Mismatch(f"{self.path}: content differs from its header's hash; fetch it again")
        index = self.path.with_suffix(".idx")
        if not index.exists() or hashlib.sha256(index.read_bytes()).hexdigest() != self.index_hash:
            raise Mismatch(f"{index}: missing or altered since its bin was made; fetch it again")


def _format_of(path: Path, words: np.ndarray) -> BinFormat:
    """The shard format its first two words name. Mismatch (78) says what the file is instead."""
    magic, version = int(words[0]), int(words[1])
    for form in FORMATS.values():
        if magic == form.magic and version == form.version:
            return form
        if magic == form.magic:
            raise Mismatch(
                f"{path}: bin format version {version}, this llmctl reads {form.version}; update it"
            )
    swapped = int(words[:1].astype(">i4").view("<i4")[0])
    if swapped in {form.magic for form in FORMATS.values()}:
        raise Mismatch(f"{path}: a big-endian bin; write it again in little-endian order")
    known = " or ".join(str(form.magic) for form in FORMATS.values())
    raise Mismatch(f"{path}: no token bin (first word {magic}, wanted {known}); check the path")


class TokenBins:
    """One split of token bins as a single stream of ids over its shards."""

    def __init__(self, shards: list[Shard], split: str) -> None:
        self.shards, self.split = shards, split
        self._ends = np.cumsum([s.n_tokens for s in shards], dtype=np.int64)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        split: str = "train",
        *,
        verify: bool = True,
        tokenizer_hash: str | None = None,
    ) -> TokenBins:
        """The shards of a split, in order, each checked; `folder` may also be a single .bin file.

        tokenizer_hash: refuse (78) shards made with another tokenizer. NoInput (66): no such split.
        """
        folder = Path(folder)
        paths = [folder] if folder.is_file() else sorted(folder.glob(f"{split}-*.bin"))
        paths = paths or sorted(
            folder.glob(f"*{split}*.bin")
        )  # names of others: fineweb_train_0.bin
        if not paths:
            raise NoInput(f"{folder}: no {split} bins in it; check the path, or run tokenize")
        bins = cls([Shard.open(p, verify=verify) for p in paths], split)
        bins._check_alike(tokenizer_hash)
        return bins

    def _check_alike(self, tokenizer_hash: str | None) -> None:
        first = self.shards[0]
        for shard in self.shards:
            if (shard.format, shard.tokenizer_hash) != (first.format, first.tokenizer_hash):
                raise Mismatch(
                    f"{shard.path}: other tokenizer or dtype than {first.path.name}; "
                    "these shards are of different runs"
                )
            found = shard.tokenizer_hash
            if tokenizer_hash is not None and found is not None and found != tokenizer_hash:
                raise Mismatch(
                    f"{shard.path}: made with tokenizer {found[:12]}, here it is "
                    f"{tokenizer_hash[:12]}; tokenize again with this one"
                )

    @property
    def n_tokens(self) -> int:
        """Ids in all shards."""
        return int(self._ends[-1])

    @property
    def eot_id(self) -> int:
        """The id that begins each document."""
        return self.shards[0].eot_id

    @property
    def vocab_size(self) -> int | None:
        """Ids of the vocabulary, padding included; None in files of others."""
        return self.shards[0].vocab_size

    @property
    def tokenizer_hash(self) -> str | None:
        """sha256 (hex) of tokenizer.json; None in files of others."""
        return self.shards[0].tokenizer_hash

    @property
    def dtype(self) -> np.dtype:
        """The ids' type on disk: <u2 or <u4."""
        return self.shards[0].format.dtype

    @cached_property
    def doc_starts(self) -> np.ndarray:
        """(D,) int64, ascending: where documents start in the whole stream."""
        begins = self._ends - [s.n_tokens for s in self.shards]
        return np.concatenate([s.doc_starts + b for s, b in zip(self.shards, begins)])

    def __len__(self) -> int:
        return self.n_tokens

    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) ids of the stream, over shard borders, in the dtype on disk."""
        if not 0 <= start <= stop <= self.n_tokens:
            raise IndexError(f"tokens {start:,}..{stop:,} of {self.n_tokens:,}")
        k = int(np.searchsorted(self._ends, start, side="right"))
        parts: list[Any] = []
        while start < stop:
            shard = self.shards[k]
            begin = int(self._ends[k]) - shard.n_tokens
            end = min(stop, int(self._ends[k]))
            parts.append(shard.tokens[start - begin : end - begin])
            start, k = end, k + 1
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, dtype=self.dtype)

    def check_ids(self, vocab_size: int) -> None:
        """Refuse (65) ids a model of `vocab_size` has no row for, naming shard and place."""
        for shard in self.shards:
            for at in range(0, shard.n_tokens, 1 << 24):
                block = shard.tokens[at : at + (1 << 24)]
                if int(block.max()) >= vocab_size:
                    place = at + int(np.argmax(block >= vocab_size))
                    raise BadInput(
                        f"{shard.path}: id {int(shard.tokens[place]):,} at token {place:,}, the "
                        f"vocabulary has {vocab_size:,}; tokenize again with the model's tokenizer"
                    )
