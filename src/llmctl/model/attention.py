"""Causal attention over whole rows and over documents packed into rows.

A row may hold several documents; attention never crosses from one to the next. Three ways, chosen
by device and row length (choose_packing; measured, forward and backward, fp32, one thread): rows of
256 tokens 59 ms with a dense mask, 104 ms as a loop over documents; rows of 2048 tokens 1645 ms and
446 ms. On CUDA the variable-length flash kernel does it in one call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

DENSE_MASK_TOKENS = 512  # rows up to this long take a (B, 1, T, T) mask on CPU

# attend(layer, q, k, v): q (B, H, T, K), k and v (B, G, T, K) -> (B, T, H * K)
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def merge_heads(out: Tensor) -> Tensor:
    """(B, H, T, K) -> (B, T, H * K)."""
    return out.transpose(1, 2).flatten(2)


def causal(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token sees itself and what stands before it in its row."""
    gqa = q.shape[1] != k.shape[1]
    return merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa))


def masked(mask: Tensor) -> Attend:
    """Attention where `mask` (B or 1, 1, T, S), bool, is true."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        gqa = q.shape[1] != k.shape[1]
        return merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=gqa))

    return attend


def segment_mask(segments: Tensor) -> Tensor:
    """(B, 1, T, T) bool from segments (B, T): same document, and not later. Padding (-1) sees
    padding, so that no row of the softmax is empty."""
    n_tokens = segments.shape[1]
    order = torch.arange(n_tokens, device=segments.device)
    same = segments[:, :, None] == segments[:, None, :]
    return (same & (order[:, None] >= order[None, :]))[:, None]


def segment_positions(segments: Tensor) -> Tensor:
    """(B, T) int64: each token's place in its own document."""
    order = torch.arange(segments.shape[1], device=segments.device).expand(segments.shape)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    first = torch.where(starts, order, torch.zeros_like(order)).cummax(1).values
    return order - first


def segment_bounds(segments: Tensor, size: int | None = None) -> Tensor:
    """int32 offsets, in the flattened batch, where documents begin, and at last B * T.

    Rows end documents too. `size` pads with further B * T (empty documents), so that a compiled
    step sees one shape; it is at least the number of documents + 1.
    """
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    bounds = starts.flatten().nonzero().flatten().to(torch.int32)
    extra = 1 if size is None else size - bounds.numel()
    if extra < 1:
        raise ValueError(f"{bounds.numel()} documents do not fit bounds of size {size}")
    return F.pad(bounds, (0, extra), value=segments.numel())


def choose_packing(device: torch.device, dtype: torch.dtype, n_tokens: int) -> str:
    """'mask' or 'documents': how rows of n_tokens with several documents are best attended."""
    if device.type == "cuda":
        half = dtype in (torch.bfloat16, torch.float16)
        return "documents" if half and varlen_kernel() is not None else "mask"
    return "mask" if n_tokens <= DENSE_MASK_TOKENS else "documents"


def packed(segments: Tensor, bounds: Tensor | None, dtype: torch.dtype) -> Attend:
    """Attention that stays within documents; `bounds` as of segment_bounds, made here if absent."""
    if choose_packing(segments.device, dtype, segments.shape[1]) == "mask":
        return masked(segment_mask(segments))
    bounds = segment_bounds(segments) if bounds is None else bounds
    return _varlen(bounds) if segments.device.type == "cuda" else _by_document(bounds)


@cache
def varlen_kernel() -> Callable[..., Tensor] | None:
    """torch's variable-length attention, None where this torch has none (before 2.10)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    names = inspect.signature(varlen_attn).parameters
    # 2.10 has is_causal; 2.11 replaced it by window_size; grouped heads only since 2.12
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in names else {}
    if not options:
        options["is_causal"] = True
    if "enable_gqa" in names:
        options["enable_gqa"] = True
    grouped = "enable_gqa" in names

    def call(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
        if not grouped and k.shape[1] != q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        out = varlen_attn(q, k, v, bounds, bounds, longest, longest, **options)
        assert isinstance(out, Tensor)
        return out

    return call


def _varlen(bounds: Tensor) -> Attend:
    kernel = varlen_kernel()
    assert kernel is not None

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n_rows, _, n_tokens, _ = q.shape
        flat = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]
        out = kernel(*flat, bounds, n_tokens)
        return out.view(n_rows, n_tokens, -1)

    return attend


def _by_document(bounds: Tensor) -> Attend:
    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if k.shape[1] != q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        flat = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]  # (B * T, H, K)
        out, _ = document_attention(*flat, bounds)
        return out.view(q.shape[0], q.shape[2], -1)

    return attend


def _documents(bounds: Tensor) -> list[tuple[int, int]]:
    ends = bounds.tolist()
    return [(a, b) for a, b in zip(ends, ends[1:]) if b > a]


def _heads_first(x: Tensor, start: int, stop: int) -> Tensor:
    return x[start:stop].transpose(0, 1)[None]


# One opaque operator, so that torch.compile neither unrolls the loop nor breaks the graph on the
# documents' lengths; each document goes through the CPU flash kernel that SDPA itself uses.
@torch.library.custom_op("llmctl::document_attention", mutates_args=())
def document_attention(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """Causal attention within each document. q, k, v (N, H, K); bounds int32 from segment_bounds.

    Returns the output (N, H, K) and the log-sum-exp (N, H), fp32, which the backward needs.
    """
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    for start, stop in _documents(bounds):
        qkv = [_heads_first(x, start, stop) for x in (q, k, v)]
        part, part_lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*qkv, 0.0, True)
        out[start:stop] = part[0].transpose(0, 1)
        lse[start:stop] = part_lse[0].transpose(0, 1) if part_lse.dim() == 3 else part_lse
    return out, lse


@document_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)


@torch.library.custom_op("llmctl::document_attention_backward", mutates_args=())
def document_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of document_attention with respect to q, k and v."""
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    for start, stop in _documents(bounds):
        parts = [_heads_first(x, start, stop) for x in (grad, q, k, v, out)]
        part_lse = lse[start:stop].transpose(0, 1)[None]
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *parts, part_lse, 0.0, True
        )
        for whole, part in zip(grads, found):
            whole[start:stop] = part[0].transpose(0, 1)
    return grads


@document_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, bounds = inputs
    ctx.save_for_backward(q, k, v, *output, bounds)


def _backward(ctx: Any, grad: Tensor, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, bounds = ctx.saved_tensors
    found = document_attention_backward(grad.contiguous(), q, k, v, out, lse, bounds)
    return (*found, None)


document_attention.register_autograd(_backward, setup_context=_save_for_backward)
