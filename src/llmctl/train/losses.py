"""Losses as (sum, count): the loop divides once, over all micro-batches and ranks.

A mean per micro-batch would weigh tokens by how full their micro-batch happens to be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl.data.batches import IGNORE, Batch
from llmctl.data.masked import MaskedBatch
from llmctl.model.attention import segment_positions
from llmctl.model.block_attention import within
from llmctl.model.loss_head import loss_head
from llmctl.model.transformer import Transformer

WHOLE_LOGITS = 1 << 24  # values: 64 MB in fp32
Hidden = Callable[..., Tensor]
LossFn = Callable[[Batch], tuple[Tensor, Tensor]]


def next_token_loss(
    batch: Batch, hidden: Hidden, head_weight: Callable[[], Tensor], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each next token within its document: (sum in nats, targets counted).

    hidden(ids, segments=..., bounds=...) -> (B, T, D), perhaps compiled; computed in `dtype` by
    autocast, weights and sums staying fp32. head_weight() -> (V, D).
    """
    extra: dict[str, Any] = {"segments": batch.segments}
    if batch.bounds is not None:
        extra["bounds"] = batch.bounds
    device = batch.ids.device.type
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        out = hidden(batch.ids, **extra)
    return loss_head(out.flatten(0, 1).to(dtype), head_weight(), batch.targets.flatten())


def trained_token_loss(
    batch: MaskedBatch,
    hidden: Hidden,
    head_weight: Callable[[], Tensor],
    dtype: torch.dtype,
    *,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """next_token_loss where few tokens are targets: the head sees only the places that count.

    Of a conversation a third is trained on, and a head over a small model's vocabulary is a
    quarter of a step. On a CPU attention goes by blocks (model/block_attention.py) unless `hidden`
    is compiled.
    """
    assert batch.places is not None and batch.segments is not None
    device = batch.ids.device.type
    extra: dict[str, Any] = {"segments": batch.segments, "bounds": batch.bounds}
    if device == "cpu" and not compiled:
        positions = segment_positions(batch.segments)
        extra = {"attend": within(batch.segments), "positions": positions}
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        out = hidden(batch.ids, **extra)
    rows = out.flatten(0, 1).index_select(0, batch.places).to(dtype)
    return loss_head(rows, head_weight(), batch.targets.flatten()[batch.places])


def compiled_next_token_loss(model: Transformer, dtype: torch.dtype) -> LossFn:
    """next_token_loss with the trunk compiled, and the head too while its logits are few.

    Logits of a small vocabulary fit the caches, and inductor then fuses the softmax with what comes
    before and after it; beyond WHOLE_LOGITS the chunked head stays outside the graph.
    """
    hidden = torch.compile(model.hidden, dynamic=False)

    def whole(
        ids: Tensor, segments: Tensor | None, bounds: Tensor | None, targets: Tensor
    ) -> Tensor:
        with torch.autocast(ids.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(ids, segments=segments, bounds=bounds)
        return F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum"
        )

    compiled = torch.compile(whole, dynamic=False)

    def loss_fn(batch: Batch) -> tuple[Tensor, Tensor]:
        if batch.ids.numel() * model.config.vocab_size > WHOLE_LOGITS:
            return next_token_loss(batch, hidden, lambda: model.head_weight, dtype)
        loss = compiled(batch.ids, batch.segments, batch.bounds, batch.targets)
        return loss, (batch.targets != IGNORE).sum()

    return loss_fn
