"""Attention of several continuations of one prompt, the prompt computed once.

A flat row of N tokens holds groups: a prompt, then each of its continuations. A continuation sees
the prompt and itself, never another continuation or group. Two kinds of block make that up: a
segment attending causally to itself, and all continuations of a group attending to the whole of
its prompt. Where both fall on a token their softmaxes are joined by the log-sum-exp, and the
kernel's own backward, given the joined output and log-sum-exp, yields each block's exact share of
the gradient (as in ring attention, arXiv:2310.01889). K continuations of a prompt of P tokens cost
P + sum(R) tokens instead of K P + sum(R).

CPU only: it calls the flash kernel that scaled_dot_product_attention itself uses there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmctl.model.attention import Attend

Blocks = list[list[int]]
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward_of = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def blocks_of(groups: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
    """(n, 4) int32 blocks of a flat row: queries [a, b) see keys [c, d); causally where a == c.

    groups: for each, in row order, the length of its prompt (0: none) and of each continuation.
    """
    blocks: Blocks = []
    at = 0
    for prompt, continuations in groups:
        start, after = at, at + prompt
        if prompt:
            blocks.append([start, after, start, after])
        at = after
        for length in continuations:
            blocks.append([at, at + length, at, at + length])
            at += length
        if prompt:
            blocks.append([after, at, start, after])
    return torch.tensor(blocks, dtype=torch.int32).reshape(-1, 4)


def positions_of(groups: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
    """(N,) int64: each token's place in its own conversation, prompt included."""
    parts = []
    for prompt, continuations in groups:
        parts.append(torch.arange(prompt))
        parts += [torch.arange(prompt, prompt + n) for n in continuations]
    return torch.cat(parts)


def sharing(blocks: Tensor) -> Attend:
    """Attention over one flat row (B = 1) by these blocks."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if k.shape[1] != q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        out, _ = block_attention(q, k, v, blocks)
        return out.transpose(1, 2).flatten(2)

    return attend


@torch.library.custom_op("llmctl::block_attention", mutates_args=())
def block_attention(q: Tensor, k: Tensor, v: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Attention by blocks as of `blocks_of`. q, k, v (1, H, N, K).

    Returns the output, (1, H, N, K) laid out as (1, N, H, K), and the log-sum-exp (1, N, H), fp32.
    """
    n_heads, n_tokens, width = q.shape[1:]
    out = q.new_empty(1, n_tokens, n_heads, width).transpose(1, 2)
    lse = q.new_empty(1, n_tokens, n_heads, dtype=torch.float32).transpose(1, 2)
    for a, b, c, d in blocks.tolist():
        part, part_lse = _forward(q[:, :, a:b], k[:, :, c:d], v[:, :, c:d], 0.0, a == c)
        if a == c:
            out[:, :, a:b], lse[:, :, a:b] = part, part_lse
            continue
        before = lse[:, :, a:b].clone()
        joined = torch.logaddexp(before, part_lse)
        mine, other = (torch.exp(x - joined)[..., None] for x in (before, part_lse))
        out[:, :, a:b] = (out[:, :, a:b] * mine + part * other).to(out.dtype)
        lse[:, :, a:b] = joined
    return out, lse


@block_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
    n_heads, n_tokens, width = q.shape[1:]
    out = q.new_empty(1, n_tokens, n_heads, width).transpose(1, 2)
    return out, q.new_empty(1, n_tokens, n_heads, dtype=torch.float32).transpose(1, 2)


@torch.library.custom_op("llmctl::block_attention_backward", mutates_args=())
def block_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, blocks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of block_attention with respect to q, k and v."""
    grads = tuple(torch.zeros_like(x) for x in (q, k, v))
    for a, b, c, d in blocks.tolist():
        mine, theirs = slice(a, b), slice(c, d)
        found = _backward_of(
            grad[:, :, mine],
            q[:, :, mine],
            k[:, :, theirs],
            v[:, :, theirs],
            out[:, :, mine],
            lse[:, :, mine],
            0.0,
            a == c,
        )
        for whole, part, where in zip(grads, found, (mine, theirs, theirs)):
            whole[:, :, where] += part
    return grads[0], grads[1], grads[2]


@block_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, blocks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, blocks = inputs
    ctx.save_for_backward(q, k, v, *output, blocks)


def _backward(ctx: Any, grad: Tensor, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, blocks = ctx.saved_tensors
    return (*block_attention_backward(grad, q, k, v, out, lse, blocks), None)


block_attention.register_autograd(_backward, setup_context=_save_for_backward)
