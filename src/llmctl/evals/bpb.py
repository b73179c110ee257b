"""Bits per byte on a validation split: how well a model compresses text it has not seen.

Nats of every token of the split, the ends of documents left out, over ln 2 and the text's UTF-8
bytes. Bytes do not depend on the tokenizer, so models with different vocabularies compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llmctl.data.batches import IGNORE, Batch, PackedRows


@dataclass(frozen=True)
class BitsPerByte:
    """nats over `targets` tokens that stand for `n_bytes` bytes of text."""

    nats: float
    targets: int
    n_bytes: int

    @property
    def bits_per_byte(self) -> float:
        """The figure; infinite when the split holds no byte."""
        return self.nats / math.log(2) / self.n_bytes if self.n_bytes else math.inf

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / max(1, self.targets)


def bits_per_byte(
    loss_fn: Callable[[Batch], tuple[Tensor, Tensor]],
    rows: PackedRows,
    *,
    n_bytes: int,
    eot_id: int,
    micro_batch: int,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
    add: Callable[[Sequence[float]], Sequence[float]] = lambda values: values,
    run: Callable[[Callable[[int], tuple[float, float]], range], Iterable[Any]] = map,
) -> BitsPerByte:
    """Every row of the split once, shared by the ranks; `add` sums numbers over them.

    loss_fn(batch) -> (sum of nats, targets counted). n_bytes: UTF-8 bytes of the split's text.
    run: how to go through the micro-batches (threads' map, on a CPU). The last one is filled with
    rows that count nothing: its shape stays the same.
    """
    rows.members(0)  # opens the epoch here, before `run` may use threads

    @torch.no_grad()
    def measure(start: int) -> tuple[float, float]:
        numbers = range(start, min(start + micro_batch, len(rows)))
        filled = [*numbers, *[numbers[0]] * (micro_batch - len(numbers))]
        batch = rows.read(filled)
        targets = batch.targets.masked_fill(batch.targets == eot_id, IGNORE)
        targets[len(numbers) :] = IGNORE
        loss, n = loss_fn(replace(batch, targets=targets).to(device))
        return float(loss), float(n)

    found = list(run(measure, range(rank * micro_batch, len(rows), world_size * micro_batch)))
    nats, count = add((math.fsum(f[0] for f in found), math.fsum(f[1] for f in found)))
    return BitsPerByte(nats, int(count), n_bytes)
