"""A tokens artifact as training sees it: bins, tokenizer, and the bytes its tokens stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmctl.artifacts.store import Artifact
from llmctl.core.errors import BadInput, NoInput, UsageError
from llmctl.data.bins import TokenBins
from llmctl.tokenizer.bpe import Tokenizer, padded

# Vocabularies behind bins of others that do not say: GPT-2's (uint16), Llama 3's (uint32).
FOREIGN_VOCAB = {np.dtype("<u2"): 50_257, np.dtype("<u4"): 128_256}


@dataclass(frozen=True)
class Corpus:
    """Both splits. val and tokenizer are None where the artifact has none."""

    artifact: Artifact
    train: TokenBins
    val: TokenBins | None
    tokenizer: Tokenizer | None
    vocab_size: int  # of the model: the tokens' own, padded
    eot_id: int
    bytes_per_token: float  # 0: unknown
    val_bytes: int  # 0: unknown


def open_corpus(artifact: Artifact, vocab_size: int = 0) -> Corpus:
    """Open a tokens artifact, or a folder or file of llm.c bins.

    vocab_size: of the model, 0 for the tokens' own; it may be larger (padding), never smaller.
    BadInput (65) when there is nothing to train on, Mismatch (78) for bins of another tokenizer.
    """
    path = artifact.path
    folder = path if path.is_dir() else path.parent
    tokenizer = Tokenizer.load(folder) if (folder / "tokenizer.json").is_file() else None
    wanted = tokenizer.hash if tokenizer else None
    train = TokenBins.open(path, "train", verify=False, tokenizer_hash=wanted)
    try:
        val = None
        if path.is_dir():
            val = TokenBins.open(path, "val", verify=False, tokenizer_hash=wanted)
    except NoInput:
        val = None
    if not train.n_tokens:
        raise BadInput(f"{path}: the train split holds no token; tokenize more documents")
    own = train.vocab_size or padded(FOREIGN_VOCAB[train.dtype])
    if vocab_size and vocab_size < own:
        raise UsageError(f"vocab_size={vocab_size:,} is less than the tokens' own {own:,}")
    stats = artifact.stats
    train_bytes = _count(stats, "train_bytes")
    return Corpus(
        artifact=artifact,
        train=train,
        val=val if val is not None and val.n_tokens else None,
        tokenizer=tokenizer,
        vocab_size=vocab_size or own,
        eot_id=train.eot_id,
        bytes_per_token=train_bytes / train.n_tokens,
        val_bytes=_count(stats, "val_bytes"),
    )


def _count(stats: Any, name: str) -> int:
    value = stats.get(name, 0)
    return value if isinstance(value, int) and value >= 0 else 0
