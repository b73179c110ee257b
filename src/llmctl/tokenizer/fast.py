"""Encoding many documents: the fastest encoder that is proven to give the reference's ids.

The reference is the tokenizers library on tokenizer.json, about 1 MB of text per CPU second.
tiktoken gives 12 and gigatoken 90-300, but both merge by token rank, know split rules by pattern
and carry their own Unicode tables. They are used only where that comes to the same:

- `ranks_equal_merges`: ranks and merges give the same ids for every piece of text;
- the split rule is one of those tested equal (tests/tokenizer/test_fast.py: fuzzed text, every code
  point of the populated planes) at the versions named in PROVEN;
- documents with characters newer than Unicode 16, whose class the libraries see differently, and
  documents an encoder fails on, go to the reference;
- each encoder is compared with the reference on a hard text when it is made, and on one document of
  each block while it works.
"""

from __future__ import annotations

import importlib.metadata
import json
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmctl.core.errors import LlmctlError, UsageError
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.patterns import (
    CL100K,
    GPT2,
    QWEN2,
    from_letters,
    pre_tokenizer,
    split_pattern,
)

ENCODERS = ("auto", "gigatoken", "tiktoken", "tokenizers")
PROVEN = {"gigatoken": ("0.10.0",), "tiktoken": ("0.12.", "0.13.", "0.14.")}  # version prefixes
PATTERNS = (QWEN2, CL100K, GPT2)  # split rules tested equal in all three
CACHE_BYTES = 256_000_000  # gigatoken's cache grows with the text: start a new one after so much
CANARY_BYTES = 8_000  # a longer document is not encoded twice

# Code points that Unicode 17 assigned: one library's letters are another's unassigned symbols.
NEW_IN_UNICODE_17 = (
    *((0x88F, 0x88F), (0xC5C, 0xC5C), (0xCDC, 0xCDC), (0xA7CE, 0xA7D5), (0xA7F1, 0xA7F1)),
    *((0x10940, 0x1095F), (0x10EC5, 0x10EC7), (0x11DB0, 0x11DEF), (0x16EA0, 0x16ED3)),
    *((0x16FF2, 0x16FF6), (0x187F8, 0x187FF), (0x18D09, 0x18D1E), (0x18D80, 0x18DF2)),
    *((0x1E6C0, 0x1E6FF), (0x2B73A, 0x2B73F), (0x2CEA2, 0x2CEAD), (0x323B0, 0x33479)),
)
_NEWER = "[" + "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in NEW_IN_UNICODE_17) + "]"
HARD_TEXT = (
    "I'LL we've CAN'T 'ſ it's  x\t\n\r\n \n  end 12345 ١٢٣ Ⅷ ½ naïve Straße ǅ 漢字かな交じり "
    "한국어 हिन्दी ไทย עברית עִבְרִית 👩🏽‍💻🇺🇳 "
    "e\u0301\u0300 \u00a0\u2003\u3000\u200b\ufeff\x00\x1f\x85 "
    "<|endoftext|> a_b->c(); //// ....... ------- ^^^^ aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa "
    "\U0001d400\U00020000\U000e0041\ue000 don't!!!\r\n\r\n   indented   \n\n\n\ttabs\u2028\u2029"
)


def ranks_equal_merges(tokenizer: Tokenizer) -> bool:
    """Whether merging by token rank gives the ids that merging by merge rank gives, always.

    It does when (1) every token of several bytes is the product of exactly one merge, ids in merge
    order, and (2) every token's own bytes are merged to that token alone. Proof: take the first
    step where the two differ; rank order joins x and y to a token t by a pair that is no merge. No
    merge so far crossed the ends of x y, so merging t's bytes alone passes through x | y too, and
    by (2) ends in t; two parts are one step from the end, so (x, y) is a merge, and by (1) t's.
    """
    import tokenizers

    model = tokenizer.parts["model"]
    vocab, ids = model["vocab"], ordinary_ids(tokenizer)
    if ids is None or model.get("dropout") or model.get("ignore_merges"):
        return False
    merges = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges", [])]
    products = [vocab.get("".join(pair), -1) for pair in merges]
    singles = sum(len(token) == 1 for token in ids)
    if products != sorted(set(products)) or len(products) + singles != len(ids) or singles != 256:
        return False
    plain = tokenizers.models.BPE(ids, [tuple(pair) for pair in merges])
    reference = tokenizers.Tokenizer(plain).model
    return all(len(reference.tokenize(token)) == 1 for token in ids)


def ordinary_ids(tokenizer: Tokenizer) -> dict[str, int] | None:
    """The vocabulary without control tokens; None when its ids are not 0..n-1 or not bytes."""
    added = {t["content"] for t in tokenizer.parts.get("added_tokens") or []}
    vocab = tokenizer.parts["model"]["vocab"]
    plain = {token: i for token, i in vocab.items() if token not in added}
    dense = sorted(plain.values()) == list(range(len(plain)))
    return plain if dense and all(from_letters(t) is not None for t in plain) else None


def choose(tokenizer: Tokenizer, wanted: str = "auto") -> tuple[str, str]:
    """The encoder to use, and why not a faster one (empty when there is none faster).

    UsageError (2) when `wanted` names one that would not be exact here, or is missing.
    """
    reasons: dict[str, str] = {}
    pattern = pattern_of(tokenizer)
    exact = pattern in PATTERNS and _normal_form(tokenizer) is not None
    exact = exact and not _text_tokens(tokenizer) and ranks_equal_merges(tokenizer)
    for name in ("gigatoken", "tiktoken"):
        if not exact:
            reasons[name] = "not proven equal for this tokenizer's rules"
        elif (version := _version(name)) is None:
            reasons[name] = "not installed"
        elif not version.startswith(PROVEN[name]):
            reasons[name] = f"version {version} is not proven equal"
        elif problem := _disagreement(tokenizer, name):
            reasons[name] = problem
        else:
            reasons[name] = ""
    if wanted in reasons and reasons[wanted]:
        raise UsageError(f"--encoder {wanted}: {reasons[wanted]}; leave it at auto")
    if wanted != "auto":
        return wanted, ""
    best = next((n for n in reasons if not reasons[n]), "tokenizers")
    slower = [f"{n} {r}" for n, r in reasons.items() if r and best != "gigatoken"]
    return best, "; ".join(slower)


def pattern_of(tokenizer: Tokenizer) -> str | None:
    """The tokenizer's split rule as a regular expression; None for a rule of another kind."""
    return split_pattern(tokenizer.parts.get("pre_tokenizer"))


def _normal_form(tokenizer: Tokenizer) -> str | None:
    """ "" without a normalizer, "NFC" with that one (Qwen's), None with any other."""
    normalizer = tokenizer.parts.get("normalizer")
    if normalizer is None:
        return ""
    return "NFC" if normalizer == {"type": "NFC"} else None


def _text_tokens(tokenizer: Tokenizer) -> bool:
    """Whether there are added tokens that are plain text, such as runs of spaces."""
    added = tokenizer.parts.get("added_tokens") or []
    return any(t["id"] not in tokenizer.special_ids for t in added)


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def make(tokenizer: Tokenizer, name: str) -> Encoder:
    """The encoder of that name, as `choose` returned it."""
    return {"gigatoken": Gigatoken, "tiktoken": Tiktoken}.get(name, Encoder)(tokenizer)


def _disagreement(tokenizer: Tokenizer, name: str) -> str:
    """Why the encoder cannot be used here; "" when it gives the reference's ids of HARD_TEXT."""
    try:
        encoder = make(tokenizer, name)
        ids, _ = encoder.encode(pa.array([HARD_TEXT], pa.large_string()))
    except (ImportError, RuntimeError, ValueError, LlmctlError) as error:
        return f"does not work here ({str(error).splitlines()[0]})"
    same = ids.tolist() == tokenizer.encode(HARD_TEXT) and not encoder.failed
    return "" if same else "gives other ids on this machine"


class Encoder:
    """The reference encoder, and what the faster ones share."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.failed = 0  # documents the fast encoder gave up on
        self._form = _normal_form(tokenizer)

    def encode(self, texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of valid UTF-8 texts (N,) without nulls: flat ids uint32, and lengths (N,) int64."""
        rows = self._rows(texts)
        lengths = np.fromiter((len(r) for r in rows), dtype=np.int64, count=len(rows))
        flat = np.concatenate(rows) if rows else np.empty(0, np.uint32)
        return flat.astype(np.uint32, copy=False), lengths

    def _rows(self, texts: pa.LargeStringArray) -> list[np.ndarray]:
        return [
            np.array(r, dtype=np.uint32) for r in self.tokenizer.encode_batch(texts.to_pylist())
        ]

    def _one(self, text: bytes) -> np.ndarray:
        return np.array(self.tokenizer.encode(text.decode()), dtype=np.uint32)


class _Fast(Encoder):
    """Sends to the reference what the fast encoder may see differently."""

    def _rows(self, texts: pa.LargeStringArray) -> list[np.ndarray]:
        odd = pc.match_substring_regex(texts, _NEWER)
        if self._form:
            changed = pc.not_equal(pc.utf8_normalize(texts, self._form), texts)
            odd = pc.or_(odd, changed)
        slow = set(np.flatnonzero(odd.to_numpy(zero_copy_only=False)).tolist())
        _, offsets, data = texts.buffers()
        ends = np.frombuffer(offsets, dtype=np.int64, count=len(texts) + 1, offset=8 * texts.offset)
        view = memoryview(data) if data is not None else memoryview(b"")
        rows, bounds = [], ends.tolist()
        for i, (start, stop) in enumerate(zip(bounds, bounds[1:])):
            text = bytes(view[start:stop])
            rows.append(self._one(text) if i in slow else self._fast(text))
        self._watch(rows, bounds, view)
        return rows

    def _fast(self, text: bytes) -> np.ndarray:
        """Ids by the fast encoder; by the reference when that panics."""
        try:
            return self._quick(text)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # noqa: B036 (Rust panics are no Exception)
            if type(error).__name__ != "PanicException" and not isinstance(error, Exception):
                raise
            self.failed += 1
            return self._one(text)

    def _quick(self, text: bytes) -> np.ndarray:
        raise NotImplementedError

    def _watch(self, rows: list[np.ndarray], bounds: list[int], view: memoryview) -> None:
        """Compare one document of middling length with the reference."""
        lengths = np.diff(bounds)
        fitting = np.flatnonzero(lengths <= CANARY_BYTES)
        if not len(fitting):
            return
        i = int(fitting[np.argmax(lengths[fitting])])
        text = bytes(view[bounds[i] : bounds[i + 1]])
        if not np.array_equal(rows[i], self._one(text)):
            raise LlmctlError(
                f"{type(self).__name__.lower()} gave other ids than the tokenizers library for "
                f"{text[:80]!r}…; run again with --encoder tokenizers, and report it"
            )


class Gigatoken(_Fast):
    """gigatoken: SIMD splitting, merges of whole pieces remembered."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        model = tokenizer.parts["model"] | {"vocab": ordinary_ids(tokenizer)}
        plain = {"added_tokens": [], "post_processor": None, "normalizer": None, "model": model}
        split = {"pre_tokenizer": pre_tokenizer(pattern_of(tokenizer) or "")}
        self._json = json.dumps(tokenizer.parts | plain | split)
        self._start()

    def _start(self) -> None:
        import gigatoken

        self._quick_encoder: Any = gigatoken.Tokenizer.from_json(self._json)
        self._seen = 0  # bytes

    def _quick(self, text: bytes) -> np.ndarray:
        self._seen += len(text)
        if self._seen >= CACHE_BYTES:
            self._start()
        return self._quick_encoder.encode(text)


class Tiktoken(_Fast):
    """tiktoken, given our ranks and pattern."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        import tiktoken

        self._quick_encoder = tiktoken.Encoding(
            "llmctl",
            pat_str=pattern_of(tokenizer) or "",
            mergeable_ranks={
                from_letters(t) or b"": i for t, i in (ordinary_ids(tokenizer) or {}).items()
            },
            special_tokens={},
        )

    def _quick(self, text: bytes) -> np.ndarray:
        return np.array(self._quick_encoder.encode_ordinary(text.decode()), dtype=np.uint32)
