"""What a corpus became: counts for the manifest, and which ids of the vocabulary it uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from llmctl.data.bins import Shard
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.show import visible

CHUNK = 1 << 22  # ids counted at once


def used_ids(folder: Path, vocab_size: int) -> np.ndarray:
    """(vocab_size,) bool: whether an id occurs in any bin of the folder."""
    used = np.zeros(vocab_size, dtype=bool)
    for path in sorted(folder.glob("*.bin")):
        tokens = Shard.open(path, verify=False).tokens
        for at in range(0, len(tokens), CHUNK):
            used[tokens[at : at + CHUNK]] = True
    return used


def longest_tokens(tokenizer: Tokenizer, used: np.ndarray, n: int = 8) -> list[str]:
    """The longest tokens that occur, as words; runs of one character left out."""
    found = []
    for i in np.flatnonzero(used[: tokenizer.n_ids]).tolist():
        token = tokenizer.token_bytes[i]
        if i not in tokenizer.special_ids and len(set(token.strip())) > 3:
            found.append((-len(token), i, token))
    return [f"'{visible(token)}'" for _, _, token in sorted(found)[:n]]


def token_stats(tokenizer: Tokenizer, counts: dict[str, Any], used: np.ndarray) -> dict[str, Any]:
    """The stats of a tokens artifact. *_bytes: UTF-8 bytes of the text, for bits per byte."""
    train, val = counts["train"], counts["val"]

    def both(key: str) -> int:
        return train[key] + val[key]

    return {
        "documents": both("documents"),
        "train_documents": train["documents"],
        "val_documents": val["documents"],
        "train_tokens": train["tokens"],
        "val_tokens": val["tokens"],
        "train_bytes": train["bytes"],
        "val_bytes": val["bytes"],
        "bytes_per_token": round(both("bytes") / max(1, both("tokens")), 4),
        "vocab_size": tokenizer.vocab_size,
        "eot_id": tokenizer.eot_id,
        "tokenizer_hash": tokenizer.hash,
        "ids_known": tokenizer.n_ids,
        "ids_used": int(used.sum()),
        "empty_documents": both("empty"),
        "documents_with_replaced_characters": both("replaced"),
        "bad_rows": both("bad"),
        "damaged_files": counts["damaged"],
    }
