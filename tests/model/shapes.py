"""Small shapes of every family, and a folder of each on disk."""

import torch

from llmctl.model.config import ModelConfig, RopeScaling
from llmctl.model.transformer import Transformer

BASE = {
    "vocab_size": 96,
    "n_layers": 2,
    "d_model": 32,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 16,
    "d_ff": 64,
    "max_seq_len": 64,
    "eos_ids": (1,),
}
GPT2 = {"family": "gpt2", "n_kv_heads": 4, "head_dim": 8}
LLAMA3 = RopeScaling("llama3", 8.0, 1.0, 4.0, 32)

SHAPES = {
    "qwen3, tied": {},
    "qwen3, untied, biased": {"tie_embeddings": False, "attention_bias": True, "rope_theta": 5e5},
    "gpt2, tied": GPT2,
    "gpt2, untied": GPT2 | {"tie_embeddings": False, "d_ff": 80},
    "llama, llama3 rope, biased": {
        "family": "llama",
        "head_dim": 8,
        "rope_scaling": LLAMA3,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "llama, linear rope, wide heads": {
        "family": "llama",
        "rope_scaling": RopeScaling("linear", 2.0),
        "tie_embeddings": False,
        "norm_eps": 1e-5,
    },
    "qwen2": {"family": "qwen2", "head_dim": 8},
}


def config(name: str) -> ModelConfig:
    return ModelConfig(**(BASE | SHAPES[name]))


def model(name: str, seed: int = 1) -> Transformer:
    """Random weights, biases and norms included, so that leaving one out shows."""
    made = Transformer(config(name))
    made.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return made.eval()


def ids(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, BASE["vocab_size"], (rows, tokens), generator=generator)
