"""Ranks: who this process is, and the few things ranks say to each other.

Started by torchrun a process is one rank of many; otherwise it is rank 0 of 1 and every reduction
is the identity. Only rank 0 writes files and talks. torch is imported inside the functions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import LlmctlError, Mismatch, RankLost, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BUCKET = 32 << 20  # values reduced in one collective: 128 MB of fp32
# what libraries say when the other side has gone; anything else is a fault of this rank
LOST = ("by peer", "timed out", "timeout", "remote process", "broken pipe", "connection refused")


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this rank writes and talks."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all ranks, in float64."""
        if self.size == 1:
            return list(values)
        import torch

        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return [float(v) for v in tensor.tolist()]

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype by their sums over all ranks, some 100 MB at a time."""
        if self.size == 1:
            return
        import torch

        bucket: list[Tensor] = []
        for i, tensor in enumerate(tensors):
            bucket.append(tensor)
            if sum(t.numel() for t in bucket) < BUCKET and i + 1 < len(tensors):
                continue
            flat = torch.cat([t.reshape(-1) for t in bucket])
            torch.distributed.all_reduce(flat)
            parts = flat.split([t.numel() for t in bucket])
            torch._foreach_copy_(bucket, [p.view_as(t) for p, t in zip(parts, bucket)])
            bucket = []

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank. The value must be plain data."""
        if self.size == 1:
            return value
        import torch

        held = [value]
        torch.distributed.broadcast_object_list(held, src=0, device=self.device)
        return held[0]

    def agree(self, what: str, value: Any) -> None:
        """Mismatch (78) on every rank unless all ranks hold the same value."""
        if self.size == 1:
            return
        import torch

        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise Mismatch(
                    f"{what} differs between rank 0 ({values[0]}) and rank {rank} ({other}); "
                    "start all ranks with the same command, files and version"
                )

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            import torch

            torch.distributed.barrier()


def pick_device(wanted: str, local_rank: int = 0) -> torch.device:
    """'auto', 'cpu', 'cuda' or 'cuda:1' as a device that exists here."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UsageError(f"device {wanted!r} is none of auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {wanted!r} asked for, but torch sees no CUDA device here")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank)
    return device


@contextmanager
def session(device: str = "auto", timeout: float = 300.0) -> Iterator[World]:
    """Join the other ranks (none unless torchrun started us), and leave them at the end.

    timeout: seconds a rank waits for the others before it gives up with RankLost (79).
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    where = pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if size == 1:
        yield World(0, 1, where)
        return
    import torch

    if where.type == "cuda":
        torch.cuda.set_device(where)
    backend = "nccl" if where.type == "cuda" else "gloo"
    try:
        torch.distributed.init_process_group(backend, timeout=timedelta(seconds=timeout))
        yield World(rank, size, where)
    except LlmctlError:
        raise
    except (RuntimeError, ConnectionError) as error:
        lost = isinstance(error, ConnectionError | torch.distributed.DistNetworkError)
        if lost or any(word in str(error).lower() for word in LOST):
            first = str(error).strip().split("\n")[0]
            raise RankLost(
                f"rank {rank} of {size} lost another rank ({first}); the last checkpoint stands, "
                "run the same command again"
            ) from error
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
