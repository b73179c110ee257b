"""Attention within short documents packed into rows, by plain matrix products on a CPU.

A document's scores fit the caches, and a few batched products over them beat the flash kernel,
whose backward is slow on short sequences: measured on one Zen 4 thread in bf16, rows of 512 tokens,
4 query and 2 key/value heads of 64, forward and backward: documents of 170 tokens 8.1 ms, as a loop
over the flash kernel 11.5, with a dense mask 15.5; of 60 tokens 4.7, 8.8, 14.2. Neighbours that are
shorter still share a block. Documents beyond LONGEST go through the flash kernel.

Axes: N tokens of the flattened batch, H query heads, G key/value heads, R = H / G, K head width,
n tokens of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl.model.attention import Attend

LONGEST = 320  # tokens; from about here on the flash kernel is as fast
TOGETHER = 128  # tokens that neighbours may have to share a block
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Block:
    """Tokens [start, stop) of the flattened batch. hidden (n, n) bool: what a token may not see;
    None for one document that the flash kernel takes."""

    start: int
    stop: int
    hidden: Tensor | None


def blocks_of(segments: Tensor) -> list[Block]:
    """The blocks of packed rows; segments (B, T) as of Transformer.hidden. Padding is in none."""
    flat = segments.flatten()
    row = torch.arange(segments.shape[0]).repeat_interleave(segments.shape[1])
    number = torch.unique_consecutive(torch.stack((row, flat)), dim=1, return_counts=True)
    real = (number[0][1] >= 0).tolist()
    blocks: list[Block] = []
    lengths: list[int] = []
    at = 0
    for length, counts in zip(number[1].tolist(), real):
        if lengths and (not counts or sum(lengths) + length > TOGETHER):
            blocks.append(_block(at, lengths))
            lengths = []
        if counts and length > TOGETHER:
            blocks.append(_block(at + length, [length]))
        elif counts:
            lengths.append(length)
        at += length
    return [*blocks, _block(at, lengths)] if lengths else blocks


def _block(stop: int, lengths: Sequence[int]) -> Block:
    n = sum(lengths)
    if n > LONGEST:
        return Block(stop - n, stop, None)
    order = torch.arange(n)
    hidden = order[None, :] > order[:, None]
    if len(lengths) > 1:
        owner = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        hidden |= owner[None, :] != owner[:, None]
    return Block(stop - n, stop, hidden)


def within(segments: Tensor) -> Attend:
    """Causal attention that stays within documents, for rows on a CPU."""
    blocks = blocks_of(segments)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        flat = [x.transpose(1, 2).flatten(0, 1) for x in (q, k.to(q.dtype), v.to(q.dtype))]
        out: Tensor = _BlockAttention.apply(*flat, blocks)
        return out.reshape(q.shape[0], q.shape[2], -1)

    return attend


def _fold(x: Tensor, n_kv: int) -> Tensor:
    """(n, H, K) -> (G, R n, K): query heads stacked on the key/value head they share."""
    n, n_heads, width = x.shape
    return x.view(n, n_kv, n_heads // n_kv, width).permute(1, 2, 0, 3).reshape(n_kv, -1, width)


def _unfold(x: Tensor, n_heads: int) -> Tensor:
    """(G, R n, K) -> (n, H, K)."""
    n_kv, rows, width = x.shape
    share = n_heads // n_kv
    return x.view(n_kv, share, rows // share, width).permute(2, 0, 1, 3).reshape(-1, n_heads, width)


class _BlockAttention(torch.autograd.Function):
    """q (N, H, K), k and v (N, G, K), blocks -> (N, H, K); tokens in no block get zeros.

    Scores, softmax and its gradient are fp32; the products with them are in the dtype of q.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: list[Block]) -> Tensor:
        out = torch.zeros(q.shape, dtype=q.dtype)
        kept = []
        for block in blocks:
            part = slice(block.start, block.stop)
            if block.hidden is None:
                out[part], lse = _flash_forward(q[part], k[part], v[part])
                kept.append(lse)
            else:
                found, weights = _forward(q[part], k[part], v[part], block.hidden)
                out[part] = found
                kept.append(weights)
        ctx.save_for_backward(q, k, v, out, *kept)
        ctx.blocks = blocks
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, *kept = ctx.saved_tensors
        grads = [torch.zeros(x.shape, dtype=x.dtype) for x in (q, k, v)]
        for block, saved in zip(ctx.blocks, kept):
            part = slice(block.start, block.stop)
            run = _flash_gradients if block.hidden is None else _gradients
            found = run(grad[part], q[part], k[part], v[part], out[part], saved)
            for whole, piece in zip(grads, found):
                whole[part] = piece
        return (*grads, None)


def _forward(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """One block: (out (n, H, K), weights (G, R n, n) in the dtype of q)."""
    n, n_heads, width = q.shape
    n_kv = k.shape[1]
    queries = _fold(q, n_kv).float().mul_(width**-0.5)
    scores = torch.bmm(queries, k.permute(1, 2, 0).float()).view(n_kv, -1, n, n)
    weights = scores.masked_fill_(hidden, -torch.inf).softmax(-1).to(q.dtype).view(n_kv, -1, n)
    return _unfold(torch.bmm(weights, v.transpose(0, 1)), n_heads), weights


def _gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    n_heads, width = q.shape[1:]
    grad, out, queries = (_fold(x, k.shape[1]) for x in (grad, out, q))
    to_v = torch.bmm(weights.transpose(1, 2), grad)
    to_weights = torch.bmm(grad, v.permute(1, 2, 0)).float()
    mean = (grad.float() * out.float()).sum(-1, keepdim=True)
    to_scores = to_weights.sub_(mean).mul_(weights).mul_(width**-0.5).to(q.dtype)
    to_q = torch.bmm(to_scores, k.transpose(0, 1))
    to_k = torch.bmm(to_scores.transpose(1, 2), queries)
    return _unfold(to_q, n_heads), to_k.transpose(0, 1), to_v.transpose(0, 1)


def _heads_first(x: Tensor, n_heads: int) -> Tensor:
    """(n, G, K) -> (1, H, n, K)."""
    return x.repeat_interleave(n_heads // x.shape[1], 1).transpose(0, 1)[None]


def _flash_forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """One long document: (out (n, H, K), log-sum-exp)."""
    out, lse = _flash(*(_heads_first(x, q.shape[1]) for x in (q, k, v)), 0.0, True)
    return out[0].transpose(0, 1), lse


def _flash_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    n_heads, n_kv = q.shape[1], k.shape[1]
    parts = [_heads_first(x, n_heads) for x in (grad, q, k, v, out)]
    found = _flash_backward(*parts, lse, 0.0, True)
    to_q, to_k, to_v = (x[0].transpose(0, 1) for x in found)
    summed = (x.unflatten(1, (n_kv, -1)).sum(2) for x in (to_k, to_v))
    return (to_q, *summed)  # type: ignore[return-value]
