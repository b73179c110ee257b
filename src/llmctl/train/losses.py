"""Losses as (sum, count): the loop divides once, over all micro-batches and ranks.

A mean per micro-batch would weigh tokens by how full their micro-batch happens to be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmctl.data.batches import Batch
from llmctl.model.loss_head import loss_head

Hidden = Callable[..., Tensor]


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
