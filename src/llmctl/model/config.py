"""The shape of a model: every number its computation depends on, and the counts that follow.

Axes used in this room: B rows, T tokens, V vocabulary, D model width, H query heads,
G key/value heads, K head width, F feed-forward width, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmctl.core.errors import UsageError

Family = Literal["gpt2", "llama", "qwen2", "qwen3"]
FAMILIES: tuple[Family, ...] = ("gpt2", "llama", "qwen2", "qwen3")

# Checked before any memory is asked for: a config file can hold any integer.
LIMITS = {
    "vocab_size": 1 << 22,
    "n_layers": 4096,
    "d_model": 1 << 17,
    "n_heads": 4096,
    "n_kv_heads": 4096,
    "head_dim": 1 << 14,
    "d_ff": 1 << 20,
    "max_seq_len": 1 << 24,
}


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained length.

    linear: every frequency divided by `factor` (arXiv:2306.15595).
    llama3: long wavelengths divided by `factor`, short ones kept, a ramp between (Llama 3.1).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_seq_len: int = 8192


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of one Transformer. `qwen3` is the default for new models.

    Families differ in: gpt2 learned positions, LayerNorm, GELU, biases everywhere; llama RoPE,
    RMSNorm, SwiGLU; qwen2 the same with biases on q, k and v; qwen3 the same with RMSNorm on each
    query and key head.
    """

    family: Family = "qwen3"
    vocab_size: int
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    max_seq_len: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    attention_bias: bool = False  # on q, k, v and o; qwen2 always has it on q, k, v only
    mlp_bias: bool = False
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built; UsageError names both numbers."""
        if self.family not in FAMILIES:
            raise UsageError(f"model family {self.family!r} is none of {', '.join(FAMILIES)}")
        for name, most in LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise UsageError(f"model {name}={value!r} is not a whole number from 1 to {most:,}")
        if self.n_heads % self.n_kv_heads:
            raise UsageError(
                f"model n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}"
            )
        if self.family == "gpt2":
            self._check_gpt2()
        elif self.head_dim % 2:
            raise UsageError(f"model head_dim={self.head_dim} is odd; rotary positions need pairs")
        if not 0 < self.norm_eps < 1:
            raise UsageError(f"model norm_eps={self.norm_eps} is not between 0 and 1")
        if not 1 <= self.rope_theta < 1e15:
            raise UsageError(f"model rope_theta={self.rope_theta} is not between 1 and 1e15")

    def _check_gpt2(self) -> None:
        if self.n_heads * self.head_dim != self.d_model or self.n_kv_heads != self.n_heads:
            raise UsageError(
                f"a gpt2 model has head_dim = d_model / n_heads and n_kv_heads = n_heads; got "
                f"head_dim={self.head_dim}, d_model={self.d_model}, n_heads={self.n_heads}, "
                f"n_kv_heads={self.n_kv_heads}"
            )

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias or self.family in ("gpt2", "qwen2")

    @property
    def out_bias(self) -> bool:
        return self.family == "gpt2" or (self.attention_bias and self.family != "qwen2")

    @property
    def qk_norm(self) -> bool:
        return self.family == "qwen3"

    def n_params(self) -> int:
        """Number of trainable parameters; a tied head counts once."""
        q_out, kv_out = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        attention = self.d_model * (2 * q_out + 2 * kv_out)
        attention += (q_out + 2 * kv_out) * self.qkv_bias + self.d_model * self.out_bias
        attention += 2 * self.head_dim * self.qk_norm
        if self.family == "gpt2":
            mlp = 2 * self.d_model * self.d_ff + self.d_ff + self.d_model
            norm = 2 * self.d_model
        else:
            mlp = 3 * self.d_model * self.d_ff + (2 * self.d_ff + self.d_model) * self.mlp_bias
            norm = self.d_model
        tables = self.vocab_size * self.d_model * (1 if self.tie_embeddings else 2)
        if self.family == "gpt2":
            tables += self.max_seq_len * self.d_model
        return tables + self.n_layers * (attention + mlp + 2 * norm) + norm

    def n_lookup_params(self) -> int:
        """Parameters that are only looked up, never multiplied: they cost no FLOPs."""
        lookup = 0 if self.tie_embeddings else self.vocab_size * self.d_model
        return lookup + (self.max_seq_len * self.d_model if self.family == "gpt2" else 0)

    def flops_per_token(self, seq_len: int) -> float:
        """Training FLOPs a token, forward and backward: 6 N + 12 L H K T.

        N leaves the looked-up tables out; the second term is attention over rows of `seq_len`
        tokens, not halved for causality (PaLM, arXiv:2204.02311, appendix B; 6 N from Kaplan et
        al., arXiv:2001.08361, section 2.1). The forward pass alone is a third of it.
        """
        matmul = 6 * (self.n_params() - self.n_lookup_params())
        return float(matmul + 12 * self.n_layers * self.n_heads * self.head_dim * seq_len)

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """Bytes of keys and values that one token of context takes."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * bytes_per_value

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], source: str = "config.json") -> ModelConfig:
        """Read a Hugging Face config; see hf_config.read for what is refused."""
        from llmctl.model import hf_config

        return hf_config.read(config, source)

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """The Hugging Face config of this shape, every key written out."""
        from llmctl.model import hf_config

        return hf_config.write(self, dtype)
