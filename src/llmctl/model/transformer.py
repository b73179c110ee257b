"""One Transformer for GPT-2, Llama, Qwen2 and Qwen3, with Hugging Face's parameter names.

Axes: B rows, T tokens, V vocabulary, D model width, H query heads, G key/value heads, K head width.
How tokens attend is a function handed down to the blocks (attention.Attend): training passes causal
or packed attention, inference its KV cache; the blocks know of neither.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.model import attention, rope
from llmctl.model.attention import Attend
from llmctl.model.config import ModelConfig

Rotation = tuple[Tensor, Tensor] | None  # cosine and sine tables (B, 1, T, K)


class RMSNorm(nn.Module):
    """x / rms(x) * weight (arXiv:1910.07467); the mean is taken in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class GPT2Attention(nn.Module):
    """Self-attention with q, k and v in one matrix, as GPT-2's files have it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.n_heads, config.head_dim
        self.c_attn = nn.Linear(config.d_model, 3 * config.d_model)
        self.c_proj = nn.Linear(config.d_model, config.d_model)

    def forward(self, x: Tensor, layer: int, attend: Attend) -> Tensor:
        qkv = self.c_attn(x).unflatten(-1, (3, *self.heads)).permute(2, 0, 3, 1, 4)
        return self.c_proj(attend(layer, qkv[0], qkv[1], qkv[2]))


class GPT2MLP(nn.Module):
    """Two matrices around GELU in its tanh form."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.d_model, config.d_ff)
        self.c_proj = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class GPT2Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.d_model, config.norm_eps)
        self.attn = GPT2Attention(config)
        self.ln_2 = nn.LayerNorm(config.d_model, config.norm_eps)
        self.mlp = GPT2MLP(config)

    def forward(self, x: Tensor, layer: int, rotation: Rotation, attend: Attend) -> Tensor:
        x = x + self.attn(self.ln_1(x), layer, attend)
        return x + self.mlp(self.ln_2(x))


class GPT2Trunk(nn.Module):
    """Token and learned position embeddings, blocks, final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.d_model)
        self.wpe = nn.Embedding(config.max_seq_len, config.d_model)
        self.h = nn.ModuleList(GPT2Block(config) for _ in range(config.n_layers))
        self.ln_f = nn.LayerNorm(config.d_model, config.norm_eps)

    def forward(self, ids: Tensor, positions: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        x = self.wte(ids) + self.wpe(positions)
        for layer, block in enumerate(self.h):
            x = block(x, layer, rotation, attend)
        return self.ln_f(x)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; Qwen3 also norms each q and k head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        q_out, kv_out = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.d_model, q_out, config.qkv_bias)
        self.k_proj = nn.Linear(config.d_model, kv_out, config.qkv_bias)
        self.v_proj = nn.Linear(config.d_model, kv_out, config.qkv_bias)
        self.o_proj = nn.Linear(q_out, config.d_model, config.out_bias)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, layer: int, rotation: Rotation, attend: Attend) -> Tensor:
        assert rotation is not None
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        cos, sin = (table.to(q.dtype) for table in rotation)
        return self.o_proj(attend(layer, rope.rotate(q, cos, sin), rope.rotate(k, cos, sin), v))


class MLP(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.d_ff, config.mlp_bias)
        self.up_proj = nn.Linear(config.d_model, config.d_ff, config.mlp_bias)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps)

    def forward(self, x: Tensor, layer: int, rotation: Rotation, attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), layer, rotation, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """Token embedding, blocks, final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)

    def forward(self, ids: Tensor, positions: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        x = self.embed_tokens(ids)
        for layer, block in enumerate(self.layers):
            x = block(x, layer, rotation, attend)
        return self.norm(x)


class Transformer(nn.Module):
    """A causal language model. The trunk is called `transformer` (gpt2) or `model` (the others),
    as in Hugging Face's files."""

    rope_frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        if config.family == "gpt2":
            self.transformer = GPT2Trunk(config)
        else:
            self.model = Trunk(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.tie()
        frequencies = None if config.family == "gpt2" else rope.inverse_frequencies(config)
        self.register_buffer("rope_frequencies", frequencies, persistent=False)

    def tie(self) -> None:
        """Make a tied head the embedding itself; needed again after `to_empty` or a load."""
        if self.config.tie_embeddings:
            self.lm_head.weight = self.embedding.weight

    @property
    def trunk(self) -> GPT2Trunk | Trunk:
        return self.transformer if self.config.family == "gpt2" else self.model

    @property
    def blocks(self) -> nn.ModuleList:
        trunk = self.trunk
        return trunk.h if isinstance(trunk, GPT2Trunk) else trunk.layers

    @property
    def embedding(self) -> nn.Embedding:
        trunk = self.trunk
        return trunk.wte if isinstance(trunk, GPT2Trunk) else trunk.embed_tokens

    @property
    def head_weight(self) -> Tensor:
        """(V, D), the embedding itself when tied."""
        return self.lm_head.weight

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        bounds: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Logits (B, T, V) in the weights' dtype; the arguments are those of `hidden`."""
        hidden = self.hidden(
            ids, positions=positions, segments=segments, bounds=bounds, attend=attend
        )
        return self.lm_head(hidden)

    def hidden(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        bounds: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """The final norm's output (B, T, D).

        ids (B, T) int64. positions (B, T) int64, by default 0.. in each row or document. segments
        (B, T) int32: number of the document a token belongs to, -1 for padding; attention stays
        within it. bounds: attention.segment_bounds(segments), made ahead by a loader so that a
        compiled step has no data-dependent shape; only long rows and CUDA use it. attend replaces
        attention altogether (a KV cache) and wants positions.
        """
        if attend is None:
            dtype = self.embedding.weight.dtype
            if torch.is_autocast_enabled(ids.device.type):
                dtype = torch.get_autocast_dtype(ids.device.type)
            attend = (
                attention.causal if segments is None else attention.packed(segments, bounds, dtype)
            )
        if positions is None:
            positions = (
                torch.arange(ids.shape[1], device=ids.device)[None]
                if segments is None
                else attention.segment_positions(segments)
            )
        rotation: Rotation = None
        if self.config.family != "gpt2":
            rotation = rope.cos_sin(self.rope_frequencies, positions, self.embedding.weight.dtype)
        return self.trunk(ids, positions, rotation, attend)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw all weights anew; see init.py. Also fills a model made on the meta device."""
        from llmctl.model.init import init_weights

        init_weights(self, seed)

    def n_params(self) -> int:
        """Trainable parameters, a tied head once."""
        return sum(parameter.numel() for parameter in self.parameters())
