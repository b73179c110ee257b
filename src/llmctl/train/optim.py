"""Parameter groups and optimizers: AdamW for everything, or Muon for the hidden matrices.

Weight decay pulls on matrices only: not on embeddings, norms or biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llmctl.core.distributed import World
from llmctl.core.errors import Mismatch, UsageError
from llmctl.train.muon import Muon, Run


@dataclass(frozen=True)
class OptimSettings:
    """What an optimizer is made of. kind: 'adamw' or 'muon'."""

    kind: str = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    momentum: float = 0.95  # Muon's


class Optimizers:
    """The optimizers of one model, stepped together, their state known by parameter names."""

    def __init__(
        self, model: nn.Module, settings: OptimSettings, run: Run = map, parts: int = 1
    ) -> None:
        """run, parts: how Muon's work is shared by threads; see there."""
        self.names: dict[Tensor, str] = {
            p: name for name, p in model.named_parameters() if p.requires_grad
        }
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        head = getattr(model, "lm_head", None)
        if head is not None:
            tables.add(id(head.weight))
        matrices = [p for p in self.names if p.ndim == 2 and id(p) not in tables]
        rest = [p for p in self.names if p.ndim != 2 or id(p) in tables]
        decay = settings.weight_decay
        self.each: list[torch.optim.Optimizer] = []
        groups = [dict(params=rest, weight_decay=0.0)] if rest else []
        if settings.kind == "muon":
            if any(hasattr(p, "placements") for p in matrices):
                raise UsageError(
                    "optimizer=muon does not work on sharded weights; use adamw or ddp"
                )
            if matrices:
                muon = Muon(matrices, settings.lr, settings.momentum, decay, run, parts)
                self.each.append(muon)
        elif matrices:
            groups.insert(0, dict(params=matrices, weight_decay=decay))
        if groups:
            self.each.append(
                torch.optim.AdamW(groups, settings.lr, settings.betas, settings.eps, fused=True)
            )

    @property
    def params(self) -> list[Tensor]:
        """Every trained parameter, in the model's order."""
        return list(self.names)

    def step(self, lr: float) -> None:
        """One update at this learning rate."""
        for optimizer in self.each:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.names:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """'parameter.key' -> tensor, of what has been stepped."""
        return {
            f"{self.names[p]}.{key}": value
            for optimizer in self.each
            for p, entry in optimizer.state.items()
            for key, value in entry.items()
        }

    def load(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take the state back; Mismatch (78) when it belongs to another model."""
        owner = {
            self.names[p]: (optimizer, p)
            for optimizer in self.each
            for group in optimizer.param_groups
            for p in group["params"]
        }
        for name, tensor in tensors.items():
            param, _, key = name.rpartition(".")
            if param not in owner:
                raise Mismatch(f"{where}: optimizer state of an unknown parameter {param!r}")
            optimizer, p = owner[param]
            if tensor.ndim and tensor.shape != p.shape:
                raise Mismatch(
                    f"{where}: {name} is {tuple(tensor.shape)}, the parameter {tuple(p.shape)}"
                )
            optimizer.state[p][key] = shard_like(p, tensor) if tensor.ndim else tensor.to(p.device)


def shard_like(like: Tensor, tensor: Tensor) -> Tensor:
    """A whole tensor laid out as `like`: on its device, and split as it is split (FSDP)."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor.to(like.device, copy=True)


def gather(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Whole tensors on rank 0, those that are sharded brought together one by one and to the CPU;
    {} on the others. Every rank must call it."""
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if world.is_main:
            found[name] = full if full is tensor or world.size == 1 else full.cpu()
    return found


def whole(tensor: Tensor) -> Tensor:
    """The full tensor behind a sharded one; every rank must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
