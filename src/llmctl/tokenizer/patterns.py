"""The split rules of byte-level BPE, verbatim as their readers know them, and byte alphabets.

A split rule cuts text into pieces before merging; merges never cross pieces. Own vocabularies use
Qwen2's: GPT-4's rule with single digits, known to llama.cpp by the name `qwen2`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

EOT = "<|endoftext|>"

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORT}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORT}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def byte_letters() -> tuple[str, ...]:
    """The letter GPT-2's byte-level alphabet writes each of the 256 bytes with."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [""] * 256
    for byte in plain:
        letters[byte] = chr(byte)
    spare = 256
    for byte in range(256):
        if not letters[byte]:
            letters[byte], spare = chr(spare), spare + 1
    return tuple(letters)


@cache
def letter_bytes() -> dict[str, int]:
    """The byte each letter of the byte-level alphabet stands for."""
    return {letter: byte for byte, letter in enumerate(byte_letters())}


def to_letters(token: bytes) -> str:
    """A token's bytes as tokenizer.json writes them."""
    letters = byte_letters()
    return "".join(letters[b] for b in token)


def from_letters(token: str) -> bytes | None:
    """The bytes of a token as tokenizer.json writes it; None when it is not byte-level."""
    table = letter_bytes()
    try:
        return bytes(table[c] for c in token)
    except KeyError:
        return None


def pre_tokenizer(pattern: str) -> dict[str, Any]:
    """The pre_tokenizer part of tokenizer.json: split by `pattern`, then bytes as letters.

    GPT-2's rule is the one that ByteLevel itself knows, and so do readers of tokenizer.json.
    """
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if pattern == GPT2:
        return byte_level | {"use_regex": True}
    return {
        "type": "Sequence",
        "pretokenizers": [split | {"invert": False}, byte_level | {"use_regex": False}],
    }


def tokenizer_json(
    vocab: dict[str, int], merges: list[tuple[str, str]], pattern: str, specials: dict[str, int]
) -> dict[str, Any]:
    """A whole byte-level tokenizer.json. specials: control tokens and their ids."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": text, **flags, "special": True}
            for text, i in sorted(specials.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer(pattern),
        "post_processor": None,
        "decoder": level | {"use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": [list(pair) for pair in merges],
        },
    }


def split_pattern(pre: Any) -> str | None:
    """The split rule of a byte-level pre_tokenizer; None when it is anything else."""
    if not isinstance(pre, dict):
        return None
    if pre.get("type") == "ByteLevel":
        plain = pre.get("use_regex", True) and not pre.get("add_prefix_space")
        return GPT2 if plain else None
    parts = pre.get("pretokenizers")
    if pre.get("type") != "Sequence" or not isinstance(parts, list) or len(parts) != 2:
        return None
    split, level = parts
    if not isinstance(split, dict) or not isinstance(level, dict):
        return None
    pattern = (split.get("pattern") or {}).get("Regex")
    known = (
        split.get("type") == "Split"
        and split.get("behavior") == "Isolated"
        and not split.get("invert")
        and level.get("type") == "ByteLevel"
        and not level.get("add_prefix_space")
        and level.get("use_regex") is False
    )
    return pattern if known and isinstance(pattern, str) else None
