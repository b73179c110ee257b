"""The forward pass of inference: the Transformer's arithmetic over a flat list of tokens.

Training wants rows, autograd and module hooks; a decode step wants few, large operations. So the
weights are taken out of the Transformer once, products that share an input are joined, and on CPU
laid out for reading (packed.py). test_runner.py holds the two to the same logits.

Axes: N tokens (of any rows), D model width, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl.infer.kv_cache import KVCache
from llmctl.infer.packed import Linear, fewest_rows
from llmctl.model import rope
from llmctl.model.transformer import Block, GPT2Block, Transformer

PREFILL_TOKENS = 2048  # tokens of prompts taken through the layers at once, to bound memory
Norm = Callable[[Tensor], Tensor]
Rotation = tuple[Tensor, Tensor] | None  # cosine and sine tables (N, 1, K)
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """One block, taken apart. `gate` is None for GPT-2's two-matrix MLP."""

    attention_norm: Norm
    qkv: Linear
    head_norm: Tensor | None  # (H + G, K): Qwen3's weights of the query and key norms
    out: Linear
    mlp_norm: Norm
    gate: Linear | None
    up: Linear
    down: Linear


class Runner:
    """A model ready to run: `prefill` takes prompts in, `decode` adds one token to every row.

    dtype: cast the weights to it (None: as they are). block: lay them out for the CPU. Where
    neither copies a weight it is shared with `model`, so use the runner before training goes on.
    consume: free the model's own memory as its weights are copied; it is unusable afterwards.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        dtype: torch.dtype | None = None,
        consume: bool = False,
        block: bool = True,
    ) -> None:
        self.config = model.config
        embedding = model.embedding.weight.detach()
        self.device, self.dtype = embedding.device, dtype or embedding.dtype
        self.block = block
        self.embedding = embedding.to(self.dtype)
        self.positions = None
        if self.config.family == "gpt2":
            self.positions = model.transformer.wpe.weight.detach().to(self.dtype)
        self.frequencies = model.rope_frequencies
        self.head = self._linear(model.lm_head)
        self.fewest = fewest_rows(self.head, self.dtype)
        self.layers: list[Layer] = []
        for block_module in model.blocks:
            self.layers.append(self._layer(block_module))
            if consume:
                for parameter in block_module.parameters():
                    parameter.data = parameter.data.new_empty(0)
        final = model.transformer.ln_f if self.config.family == "gpt2" else model.model.norm
        self.final_norm = self._norm(final)

    def _linear(self, *modules: torch.nn.Linear) -> Linear:
        weights = [module.weight.detach().to(self.dtype) for module in modules]
        biases = [m.bias if m.bias is None else m.bias.detach().to(self.dtype) for m in modules]
        return Linear(weights, biases, block=self.block)

    def _norm(self, module: torch.nn.Module) -> Norm:
        weight = module.weight.detach().to(self.dtype, copy=True)  # type: ignore[operator]
        shape, eps = tuple(weight.shape), self.config.norm_eps
        if isinstance(module, torch.nn.LayerNorm):
            bias = module.bias.detach().to(self.dtype, copy=True)
            return lambda x: F.layer_norm(x, shape, weight, bias, eps)
        if self.device.type != "cpu":
            return lambda x: F.rms_norm(x, shape, weight, eps)
        # The RMSNorm of x is the first half of the LayerNorm of (x, -x), whose mean is 0: one
        # kernel, where the CPU's rms_norm is six.
        twice, width = torch.cat((weight, torch.zeros_like(weight))), shape[0]
        return lambda x: F.layer_norm(torch.cat((x, -x), -1), (2 * width,), twice, None, eps)[
            ..., :width
        ]

    def _layer(self, block: torch.nn.Module) -> Layer:
        if isinstance(block, GPT2Block):
            return Layer(
                attention_norm=self._norm(block.ln_1),
                qkv=self._linear(block.attn.c_attn),
                head_norm=None,
                out=self._linear(block.attn.c_proj),
                mlp_norm=self._norm(block.ln_2),
                gate=None,
                up=self._linear(block.mlp.c_fc),
                down=self._linear(block.mlp.c_proj),
            )
        assert isinstance(block, Block)
        attention, mlp = block.self_attn, block.mlp
        head_norm = None
        if attention.q_norm is not None and attention.k_norm is not None:
            head_norm = torch.cat(
                (
                    attention.q_norm.weight.detach().expand(self.config.n_heads, -1),
                    attention.k_norm.weight.detach().expand(self.config.n_kv_heads, -1),
                )
            ).to(self.dtype)
        return Layer(
            attention_norm=self._norm(block.input_layernorm),
            qkv=self._linear(attention.q_proj, attention.k_proj, attention.v_proj),
            head_norm=head_norm,
            out=self._linear(attention.o_proj),
            mlp_norm=self._norm(block.post_attention_layernorm),
            gate=self._linear(mlp.gate_proj),
            up=self._linear(mlp.up_proj),
            down=self._linear(mlp.down_proj),
        )

    def new_cache(self, max_rows: int, columns: int) -> KVCache:
        """An empty cache for this model."""
        return KVCache(self.config, max_rows, columns, self.dtype, self.device)

    @torch.inference_mode()
    def prefill(
        self,
        cache: KVCache,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        at_once: int | None = None,
    ) -> Tensor:
        """Take prompts into rows; returns the logits (len(rows), V) after each one's last token.

        Prompts go through the layers side by side, without padding, at most `at_once` tokens
        (PREFILL_TOKENS) at once; a longer prompt is continued in the next call of the layers. A
        row that holds tokens already is continued.
        """
        cache.reserve(max(cache.lengths[row] + len(ids) for row, ids in zip(rows, prompts)))
        last: dict[int, Tensor] = {}
        for batch in _batches([len(ids) for ids in prompts], at_once or PREFILL_TOKENS):
            pieces = [(rows[i], prompts[i][start:stop]) for i, start, stop in batch]
            hidden = self._prefill(cache, pieces)
            end = 0
            for i, start, stop in batch:
                end += stop - start
                last[i] = hidden[end - 1]
        return self.logits(torch.stack([last[i] for i in range(len(prompts))]))

    def _prefill(self, cache: KVCache, pieces: list[tuple[int, Sequence[int]]]) -> Tensor:
        """Hidden states (N, D) of pieces of prompts, one after the other."""
        starts = [cache.lengths[row] for row, _ in pieces]
        sizes = [len(ids) for _, ids in pieces]
        ids = torch.tensor([i for _, piece in pieces for i in piece], device=self.device)
        positions = torch.cat(
            [torch.arange(s, s + n, device=self.device) for s, n in zip(starts, sizes)]
        )

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            parts = zip(q.split(sizes), k.split(sizes), v.split(sizes), pieces)
            out = [cache.prefill(row, layer, *qkv) for *qkv, (row, _) in parts]
            return out[0] if len(out) == 1 else torch.cat(out)

        hidden = self.forward(ids, positions, attend)
        for (row, _), size in zip(pieces, sizes):
            cache.lengths[row] += size
        return hidden

    @torch.inference_mode()
    def decode(self, cache: KVCache, ids: Tensor) -> Tensor:
        """Append one token to each row, ids (N,) int64; returns the logits (N, V) that follow."""
        positions = torch.tensor(cache.lengths, device=self.device)
        n_rows = len(ids)
        if n_rows < self.fewest:
            ids, positions = (
                torch.cat((x, x[:1].expand(self.fewest - n_rows))) for x in (ids, positions)
            )
        step = cache.step()
        hidden = self.forward(ids, positions, step.attend)
        step.done()
        return self.logits(hidden)[:n_rows]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (N, V), fp32, of hidden states (N, D)."""
        return self.head(hidden).float()

    def forward(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """The final norm's output (N, D) of N tokens; attend decides what each one sees."""
        x = F.embedding(ids, self.embedding)
        rotation: Rotation = None
        if self.positions is not None:
            x = x + F.embedding(positions, self.positions)
        else:
            cos, sin = rope.cos_sin(self.frequencies, positions[:, None], self.dtype)
            rotation = cos[:, 0], sin[:, 0]
        for number, layer in enumerate(self.layers):
            q, k, v = self._heads(layer, layer.qkv(layer.attention_norm(x)), rotation)
            x = layer.out.plus(attend(number, q, k, v), x)
            y = layer.mlp_norm(x)
            if layer.gate is None:
                y = layer.up.gelu_tanh(y)
            else:
                y = layer.up.times(y, layer.gate.silu(y))
            x = layer.down.plus(y, x)
        return self.final_norm(x)

    def _heads(self, layer: Layer, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, ...]:
        """qkv (N, (H + 2 G) K) -> q (N, H, K) and k (N, G, K), rotated, and v (N, G, K)."""
        n_heads, n_kv = self.config.n_heads, self.config.n_kv_heads
        width = self.config.head_dim
        qk, v = qkv.view(qkv.shape[0], -1, width).split((n_heads + n_kv, n_kv), 1)
        if layer.head_norm is not None:
            qk = F.rms_norm(qk, (width,), None, self.config.norm_eps) * layer.head_norm
        if rotation is not None:
            qk = torch.addcmul(qk * rotation[0], qk.roll(width // 2, -1), rotation[1])
        q, k = qk.split((n_heads, n_kv), 1)
        return q, k, v


def _batches(lengths: Sequence[int], at_once: int) -> list[list[tuple[int, int, int]]]:
    """Prompts of such lengths cut into batches of (prompt, start, stop), `at_once` tokens each."""
    batches: list[list[tuple[int, int, int]]] = [[]]
    room = at_once
    for i, length in enumerate(lengths):
        start = 0
        while start < length:
            if room == 0:
                batches.append([])
                room = at_once
            stop = min(length, start + room)
            batches[-1].append((i, start, stop))
            room -= stop - start
            start = stop
    return batches
