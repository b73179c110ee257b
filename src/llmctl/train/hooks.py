"""What training does between steps: validation bits per byte, and a sample of the model's text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from llmctl.core import console
from llmctl.core.distributed import World
from llmctl.core.errors import Cancelled, Interrupted
from llmctl.data.batches import Batch, PackedRows
from llmctl.evals.bpb import bits_per_byte
from llmctl.train.backward import Lanes
from llmctl.train.meter import Meter

T = TypeVar("T")
Loss = Callable[[Batch], tuple[Tensor, Tensor]]


def eval_bits_per_byte(
    loss_fn: Loss,
    rows: PackedRows,
    *,
    n_bytes: int,
    eot_id: int,
    micro_batch: int,
    world: World,
    meter: Meter,
    lanes: Lanes,
) -> Callable[[int], dict[str, Any]]:
    """A hook's call: the whole validation split, shared by the ranks."""

    def call(step: int) -> dict[str, Any]:
        found = bits_per_byte(
            loss_fn,
            rows,
            n_bytes=n_bytes,
            eot_id=eot_id,
            micro_batch=micro_batch,
            device=world.device,
            rank=world.rank,
            world_size=world.size,
            add=world.sum,
            run=lanes.map,
        )
        row = {"val_loss": found.loss}
        said = f"loss {found.loss:.4f}"
        if n_bytes:
            row["val_bits_per_byte"] = found.bits_per_byte
            said = f"bits per byte {found.bits_per_byte:.4f}, {said}"
        meter.say(f"step {step:,}: validation {said}")
        return row

    return call


def attempt(generate: Callable[[], T], step: int) -> T | None:
    """What `generate` makes, without touching training's random numbers. A sample that fails
    costs a warning only (None); being stopped is no failure."""
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            return generate()
    except (Interrupted, Cancelled):
        raise
    except Exception as error:  # training is worth more than its illustration
        console.warn(f"step {step:,}: no sample ({type(error).__name__}: {error})")
        return None


def show_sample(
    generate: Callable[[], str], world: World, meter: Meter
) -> Callable[[int], dict[str, Any] | None]:
    """A hook's call: a line of the model's own text."""

    def call(step: int) -> dict[str, Any] | None:
        if not world.is_main:
            return None
        text = attempt(generate, step)
        if text is None:
            return {"sample_failed": 1}
        meter.say(f"step {step:,}: {' '.join(text.split())}")
        return {"sample": text}

    return call
