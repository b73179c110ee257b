"""Training an own vocabulary: byte-level BPE over Qwen2's split rule.

The 256 bytes come first, then one id a merge, in the order learned, then `<|endoftext|>`; the rest
up to a multiple of 128 is padding. A corpus with too few different words gives fewer merges.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from llmctl.core.errors import BadInput, UsageError
from llmctl.tokenizer.bpe import PAD_TO, Tokenizer, padded
from llmctl.tokenizer.patterns import EOT, QWEN2, byte_letters, pre_tokenizer, tokenizer_json

MIN_VOCAB = 3 * PAD_TO  # 256 bytes, <|endoftext|>, and some merges
MAX_TOKEN_BYTES = 64  # longer ones are rules and separators of single sites
MAX_WORD = 4096  # characters: the trainer's time grows with the square of a word's length


def check_vocab_size(vocab_size: int) -> None:
    """Refuse (2) a vocabulary that cannot be trained."""
    if not MIN_VOCAB <= vocab_size <= 1 << 20:
        raise UsageError(f"vocab_size={vocab_size:,} must be in {MIN_VOCAB:,}..{1 << 20:,}")


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn at most `vocab_size` ids (rounded up to a multiple of 128) from texts.

    A pure function of the texts and their order: threads do not change it.
    """
    import tokenizers
    from tokenizers import models, trainers

    check_vocab_size(vocab_size)
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = _pre_tokenizer(pre_tokenizer(QWEN2))
    trainer = trainers.BpeTrainer(
        vocab_size=padded(vocab_size) - 1,
        initial_alphabet=list(byte_letters()),
        max_token_length=MAX_TOKEN_BYTES,
        special_tokens=[],
        show_progress=False,
    )
    learner.train_from_iterator((piece for text in texts for piece in _bounded(text)), trainer)
    model = json.loads(learner.to_str())["model"]
    merges = [(a, b) for a, b in model["merges"]]
    merges = reachable_merges(merges)
    vocab = {letter: i for i, letter in enumerate(sorted(byte_letters()))}
    for a, b in merges:
        vocab[a + b] = len(vocab)
    parts = tokenizer_json(vocab, merges, QWEN2, {EOT: len(vocab)})
    return Tokenizer(json.dumps(parts, ensure_ascii=False, indent=1).encode() + b"\n")


def _pre_tokenizer(parts: dict) -> Any:
    """The pre-tokenizer that tokenizer.json describes."""
    import tokenizers

    empty = tokenizer_json({"a": 0}, [], QWEN2, {}) | {"pre_tokenizer": parts}
    return tokenizers.Tokenizer.from_str(json.dumps(empty)).pre_tokenizer


def _bounded(text: str) -> Iterable[str]:
    """A text without endless words: nothing is learned from a megabyte of one letter."""
    if len(text) <= MAX_WORD:
        return [text]
    if all(len(word) <= MAX_WORD for word in text.split()):
        return [text]
    return [word[:MAX_WORD] for word in text.split(" ")]


def reachable_merges(merges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The merges without those whose token is never produced or produced in two ways.

    What stays meets the two conditions of `llmctl.tokenizer.fast.ranks_equal_merges`, so encoders
    that merge by token rank and those that merge by merge rank give the same ids.
    """
    import tokenizers
    from tokenizers import models

    while True:
        vocab = {letter: i for i, letter in enumerate(byte_letters())}
        kept = []
        for a, b in merges:
            if a in vocab and b in vocab and a + b not in vocab:
                vocab[a + b] = len(vocab)
                kept.append((a, b))
        model = tokenizers.Tokenizer(models.BPE(vocab, kept)).model
        whole = [pair for pair in kept if len(model.tokenize("".join(pair))) == 1]
        if len(whole) == len(merges):
            return whole
        merges = whole


def check_sample(n_bytes: int) -> None:
    """Refuse (65) to train on nothing."""
    if not n_bytes:
        raise BadInput("no text to train a tokenizer on: every document is empty; check the input")
