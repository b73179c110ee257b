"""A model's vocabulary made larger, for control tokens that its tokenizer did not have."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from llmctl.core.errors import Mismatch
from llmctl.model.init import generator_for
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.bpe import padded

NOISE = 0.1  # of the old rows' own spread, so that new tokens are not one and the same


@torch.no_grad()
def grow_embedding(
    model: Transformer, n_ids: int, *, known: int | None = None, seed: int = 0
) -> Transformer:
    """The model, changed in place, with a row for each of n_ids ids.

    known: ids below it are tokens already; rows above it were padding and are made anew (None: all
    of the model's rows are known). A new row is the mean of the known ones plus a little noise,
    drawn by (seed, name of the table): near every token, so that it neither stands out in the
    logits nor starts far from where it will be (Hewitt 2021, "Initializing new word embeddings").
    Tied heads stay tied. Mismatch (78) when the tokenizer already had more ids than the model.
    """
    config = model.config
    known = config.vocab_size if known is None else known
    if known > config.vocab_size:
        raise Mismatch(
            f"the tokenizer has {known:,} ids, the model only {config.vocab_size:,}; take both "
            "from one place"
        )
    size = max(config.vocab_size, padded(n_ids))
    if n_ids <= known:
        return model
    tables: list[tuple[str, nn.Embedding | nn.Linear]] = [("embedding", model.embedding)]
    if not config.tie_embeddings:
        tables.append(("lm_head", model.lm_head))
    for name, table in tables:
        table.weight = nn.Parameter(_grown(table.weight, known, n_ids, size, seed, name))
    model.embedding.num_embeddings = model.lm_head.out_features = size
    model.config = dataclasses.replace(config, vocab_size=size)
    model.tie()
    return model


def _grown(old: Tensor, known: int, n_ids: int, size: int, seed: int, name: str) -> Tensor:
    """(size, D): the old rows, new ones from `known` to n_ids, and padding that nobody looks up."""
    rows = old[:known].float()
    noise = torch.randn(size - known, old.shape[1], generator=generator_for(seed, f"grow {name}"))
    fresh = rows.mean(0) + NOISE * rows.std(0) * noise.to(old.device)
    new = torch.empty(size, old.shape[1], dtype=old.dtype, device=old.device)
    new[: old.shape[0]] = old
    new[known:n_ids] = fresh[: n_ids - known].to(old.dtype)
    new[max(n_ids, old.shape[0]) :] = fresh[max(n_ids, old.shape[0]) - known :].to(old.dtype)
    return new
