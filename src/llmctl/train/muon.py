"""Muon: momentum whose matrix is replaced by the nearest orthogonal one (Jordan et al. 2024).

Matrices of equal shape are stacked and orthogonalised together: a few batched products instead of
fifteen small ones a matrix. Steps are scaled to AdamW's size (Liu et al. 2025, arXiv:2502.16982,
equation 4), so both share one learning rate. Agrees with torch.optim.Muon (tested where it exists).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic with the steepest slope at zero
ITERATIONS = 5
Run = Callable[[Callable[[list[Tensor]], None], list[list[Tensor]]], Iterable[None]]


def orthogonalize(stack: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """(N, A, B) -> (N, A, B): singular values of every matrix brought near 1, in bf16."""
    a, b, c = COEFFICIENTS
    x = stack.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For the hidden matrices of a model; embeddings, heads and vectors belong to AdamW."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        run: Run = map,
        parts: int = 1,
    ) -> None:
        """Nesterov momentum; decoupled weight decay, as AdamW's.

        Each stack is cut into `parts`, and `run` (a pool's map) goes through all of them.
        """
        self.run, self.parts = run, parts
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(f"Muon takes matrices, got a parameter of shape {p.shape}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            cut = [
                stack[i :: self.parts]
                for stack in by_shape.values()
                for i in range(min(self.parts, len(stack)))
            ]
            list(self.run(partial(self._update, group=group), cut))

    @torch.no_grad()
    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        lr, beta, shape = group["lr"], group["momentum"], params[0].shape
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum_buffer"] for p in params]
        grads = [p.grad for p in params if p.grad is not None]
        torch._foreach_lerp_(momenta, grads, 1 - beta)
        ahead = torch._foreach_lerp(grads, momenta, beta)
        updates = orthogonalize(torch.stack(ahead)).to(params[0].dtype)
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        size = 0.2 * max(shape) ** 0.5  # root mean square of an update, as AdamW's
        torch._foreach_add_(params, list(updates.unbind()), alpha=-lr * size)
