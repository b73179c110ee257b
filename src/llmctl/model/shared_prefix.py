"""Attention of several continuations of one prompt, the prompt computed once.

Of the three attentions over shared prompts, the one for rm and its judges, whose responses are long
and unlike (model/group_attention.py is for rl's short answers, evals/tasks/likelihood.py for
measuring without gradients); on CUDA rm and rl repeat the prompt instead.

A flat row of N tokens holds groups: a prompt, then each of its continuations. A continuation sees
the prompt and itself, never another continuation or group, so K continuations of a prompt of P
tokens cost P + sum(R) tokens instead of K P + sum(R).

CPU only. Each stretch of queries takes its scores by plain matrix products; at these lengths that
is faster than the flash kernel, whose backward in bf16 takes 2.2 ms for 4 heads of 128 tokens on
one thread, where this takes 1.0. Query heads that share a key head are rows of one product, so
keys are never repeated. Probabilities are computed again in the backward pass, not kept.

Axes: N tokens, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from llmctl.model.attention import Attend, segment_bounds

STRETCH = 192  # queries at a time: what a causal block wastes against what a small product costs
Blocks = list[tuple[int, int, int, int, int]]
Groups = Sequence[tuple[int, Sequence[int]]]  # (tokens of the prompt, tokens of each continuation)


def blocks_of(groups: Groups) -> Tensor:
    """(n, 5) int32 of a flat row: queries [a, b) see keys [c, d) whole and [e, b) causally."""
    blocks: Blocks = []
    at = 0
    for prompt, continuations in groups:
        start, at = at, at + prompt
        blocks += _stretches(start, at, 0, 0)
        for length in continuations:
            blocks += _stretches(at, at + length, start, start + prompt)
            at += length
    return torch.tensor(blocks, dtype=torch.int32).reshape(-1, 5)


def _stretches(start: int, stop: int, c: int, d: int) -> Blocks:
    cuts = range(start, stop, STRETCH)
    return [(a, min(a + STRETCH, stop), c, d, start) for a in cuts]


def positions_of(groups: Groups) -> Tensor:
    """(N,) int64: each token's place in its own conversation, prompt included."""
    parts = []
    for prompt, continuations in groups:
        parts.append(torch.arange(prompt))
        parts += [torch.arange(prompt, prompt + n) for n in continuations]
    return torch.cat(parts)


def segments_of(groups: Groups) -> tuple[Tensor, Tensor]:
    """(segments (1, N), bounds) as attention.packed has them, each group a document: for a row in
    which every continuation has its own copy of the prompt."""
    lengths = torch.tensor([prompt + sum(rest) for prompt, rest in groups])
    numbers = torch.arange(len(lengths), dtype=torch.int32)
    segments = torch.repeat_interleave(numbers, lengths)[None]
    return segments, segment_bounds(segments)


def sharing(blocks: Tensor) -> Attend:
    """Attention over one flat row (B = 1) by these blocks."""
    plan: Blocks = [tuple(row) for row in blocks.tolist()]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = _BlockAttention.apply(q[0], k[0], v[0], plan)  # type: ignore[no-untyped-call]
        return out.flatten(1)[None]

    return attend


@cache
def _later(n: int) -> Tensor:
    """(n, n) bool: keys that come after a query."""
    return torch.ones(n, n, dtype=torch.bool).triu(1)


def _keys(x: Tensor, c: int, d: int, e: int, b: int) -> Tensor:
    """(G, d - c + b - e, K): the keys or values a stretch sees."""
    if c == d:
        return x[:, e:b]
    return x[:, c:b] if d == e else torch.cat((x[:, c:d], x[:, e:b]), 1)


def _rows(x: Tensor, a: int, b: int, n_groups: int) -> Tensor:
    """(G, H / G * (b - a), K) of x (H, N, K): query heads of one key head under one another."""
    return x[:, a:b].reshape(n_groups, -1, x.shape[-1])


def _probabilities(queries: Tensor, keys: Tensor, n: int) -> Tensor:
    """(G, H / G * n, S): softmax of scaled scores; the last n keys are the queries' own places."""
    scores = torch.bmm(queries, keys.transpose(1, 2))
    own = scores.view(keys.shape[0], -1, n, keys.shape[1])[..., -n:]
    own.masked_fill_(_later(n), -torch.inf)
    return torch.softmax(scores, -1)


class _BlockAttention(torch.autograd.Function):
    """q (H, N, K), k and v (G, N, K), plan -> (N, H, K)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Blocks) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.plan = plan
        out = q.new_empty(q.shape[1], q.shape[0], q.shape[2])
        scale = q.shape[-1] ** -0.5
        with torch.autocast(q.device.type, enabled=False):
            for a, b, c, d, e in plan:
                queries = _rows(q, a, b, k.shape[0]) * scale
                probs = _probabilities(queries, _keys(k, c, d, e, b), b - a)
                part = torch.bmm(probs, _keys(v, c, d, e, b))
                out[a:b] = part.view(q.shape[0], b - a, -1).transpose(0, 1)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        n_groups, scale = k.shape[0], q.shape[-1] ** -0.5
        grad_q = torch.empty_like(q)
        # several stretches add to the same keys: summed in fp32
        grad_k, grad_v = (torch.zeros(x.shape, dtype=torch.float32) for x in (k, v))
        grad = grad.transpose(0, 1)
        for a, b, c, d, e in ctx.plan:
            queries, keys = _rows(q, a, b, n_groups) * scale, _keys(k, c, d, e, b)
            probs = _probabilities(queries, keys, b - a)
            pull = _rows(grad, a, b, n_groups)
            of_probs = torch.bmm(pull, _keys(v, c, d, e, b).transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_probs, probs, -1, probs.dtype)
            part = torch.bmm(of_scores, keys) * scale
            grad_q[:, a:b] = part.view(q.shape[0], b - a, -1)
            for whole, rows, right in ((grad_k, of_scores, queries), (grad_v, probs, pull)):
                part = torch.bmm(rows.transpose(1, 2), right)
                whole[:, c:d] += part[:, : d - c]
                whole[:, e:b] += part[:, d - c :]
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None
