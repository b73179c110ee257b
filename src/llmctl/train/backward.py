"""One step's gradient: micro-batches through loss and backward, summed, over lanes and ranks.

On a CPU with several cores each lane is a thread that takes every n-th micro-batch through forward
and backward with single-threaded operators. Cores then meet once a step instead of some hundred
times, which on a machine shared with others is several times faster, and the sum is still taken in
a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor


class Movable(Protocol):
    """A micro-batch, as far as training knows one: what its loss makes of it is its own matter."""

    def to(self, device: torch.device) -> Any: ...


LossFn = Callable[[Any], tuple[Tensor, Tensor]]  # micro-batch -> (sum, count), scalars


def sum_gradients(
    batches: Iterable[Movable], loss_fn: LossFn, params: list[Tensor], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Add the gradients of every micro-batch's loss sum to `.grad`; (loss sum, count), detached."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = torch.zeros((), dtype=torch.float64, device=device)
    for batch in batches:
        loss, n = loss_fn(batch.to(device))
        loss.backward()
        total += loss.detach()
        count += n
    return total, count


class Lanes:
    """Threads that share a step's micro-batches on a CPU."""

    def __init__(self, n: int) -> None:
        self.n = n
        self._pool = ThreadPoolExecutor(n, thread_name_prefix="lane") if n > 1 else None

    def sum_gradients(
        self,
        batches: Iterable[Movable],
        loss_fn: LossFn,
        params: list[Tensor],
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """As sum_gradients, by all lanes; lane i takes micro-batches i, i + n, i + 2n, …"""
        if self._pool is None:
            return sum_gradients(batches, loss_fn, params, device)
        work = list(batches)
        jobs = [self._pool.submit(_lane, work[i :: self.n], loss_fn, params) for i in range(self.n)]
        done = [job.result() for job in jobs]
        total = torch.zeros((), dtype=torch.float64)
        count = torch.zeros((), dtype=torch.float64)
        for grads, loss, n in done:  # in the lanes' order, whoever came first
            total, count = total + loss, count + n
            for p, grad in zip(params, grads):
                if grad is not None:
                    p.grad = grad if p.grad is None else p.grad.add_(grad)
        return total, count

    def map(self, call: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """call(item) for each, by all lanes; results in the items' order."""
        return list(map(call, items) if self._pool is None else self._pool.map(call, items))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _lane(
    batches: list[Movable], loss_fn: LossFn, params: list[Tensor]
) -> tuple[list[Tensor | None], Tensor, Tensor]:
    """Gradients, loss sum and count of one lane; `.grad` belongs to all lanes and stays alone."""
    sums: list[Tensor | None] = [None] * len(params)
    total, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for batch in batches:
        loss, n = loss_fn(batch)
        for i, grad in enumerate(torch.autograd.grad(loss, params, allow_unused=True)):
            held = sums[i]
            if grad is not None:
                sums[i] = grad if held is None else held.add_(grad)
        total += loss.detach()
        count += n
    return sums, total, count
