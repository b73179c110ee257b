"""First weights. Each parameter has a generator of its own, seeded by (seed, name), and is drawn on
the CPU in fp32: the same seed gives the same weights on any device, in any order of modules."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from llmctl.model import rope
from llmctl.model.config import ModelConfig

if TYPE_CHECKING:
    from llmctl.model.transformer import Transformer

EMBEDDING_STD = 0.02
RESIDUAL = ("c_proj.weight", "o_proj.weight", "down_proj.weight")  # they write to the residual
TABLES = ("wte.weight", "wpe.weight", "embed_tokens.weight", "lm_head.weight")


def std_of(name: str, shape: torch.Size, config: ModelConfig) -> float:
    """Standard deviation of a weight matrix's first values.

    gpt2: 0.02 everywhere, residual projections over sqrt(2 L) (GPT-2's report, section 2.3). The
    others: 1 / sqrt(fan in) keeps unit variance at any width (0.02 is too small below 2,500 wide),
    residual projections again over sqrt(2 L); tables 0.02.
    """
    base = EMBEDDING_STD
    if config.family != "gpt2" and not name.endswith(TABLES):
        base = shape[1] ** -0.5
    return base / (2 * config.n_layers) ** 0.5 if name.endswith(RESIDUAL) else base


def generator_for(seed: int, name: str) -> torch.Generator:
    """The generator of one parameter."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@torch.no_grad()
def init_weights(model: Transformer, seed: int) -> None:
    """Matrices and tables normal, norms one, biases zero, rotary frequencies computed anew."""
    model.tie()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            values = torch.empty(parameter.shape, dtype=torch.float32)
            std = std_of(name, parameter.shape, model.config)
            values.normal_(0.0, std, generator=generator_for(seed, name))
            parameter.copy_(values)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    if model.config.family != "gpt2":
        model.rope_frequencies.copy_(rope.inverse_frequencies(model.config))
