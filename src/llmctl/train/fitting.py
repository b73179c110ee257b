"""What every training stage puts around the loop: machine, optimizer, meter, micro-batch.

Decisions about the machine are made once, by rank 0, and kept in run.json. `config` is a
train.settings.TrainConfig throughout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from llmctl.artifacts.checkpoint import Checkpoint
from llmctl.artifacts.store import Draft
from llmctl.core import console, hardware
from llmctl.core.distributed import World
from llmctl.model.config import ModelConfig
from llmctl.train import machine as machines
from llmctl.train.backward import Lanes, LossFn
from llmctl.train.loop import Batches, Hook, Loop, LoopSettings
from llmctl.train.machine import DTYPES, Machine
from llmctl.train.meter import BITS, Column, Meter
from llmctl.train.optim import Optimizers, OptimSettings
from llmctl.train.plan import Plan


def decide_once(
    config: Any, draft: Draft, world: World, shape: ModelConfig, plan: Plan, rows: int
) -> tuple[Machine, float]:
    """(the machine, FLOP/s of one thread or device): the same on every rank, at every resume.

    rows: of one step, on this rank.
    """
    measured = 0.0

    def peak(device: torch.device, dtype: torch.dtype) -> float:
        nonlocal measured
        if not measured:
            measured, _ = hardware.peak_flops(device, dtype)
        return measured

    with machines.one_thread():
        here = machines.decide(
            world,
            shape,
            seq_len=plan.seq_len,
            rows=rows,
            total_tokens=plan.tokens,
            workers=config.workers,
            dtype=config.dtype,
            compile=config.compile,
            micro_batch=config.micro_batch,
            peak=peak,
        )
        peak(world.device, DTYPES[here.dtype])
    if world.is_main:
        measured = draft.remember("peak", measured)
        recorded = Machine(**draft.remember("machine", dataclasses.asdict(here)))
        here = machines.take_up(recorded, here, rows)
    found = world.share({"peak": measured, "machine": dataclasses.asdict(here)})
    return Machine(**found["machine"]), found["peak"]


def settle(
    draft: Draft,
    machine: Machine,
    world: World,
    shape: ModelConfig,
    *,
    seq_len: int,
    rows: int,
    attempt: Callable[[int], None],
    sharded: bool = False,
) -> int:
    """The micro-batch that fits this device (machines.settle_micro_batch), kept in run.json."""
    micro = machine.micro_batch
    if not sharded:
        micro = machines.settle_micro_batch(
            machine, world, shape, seq_len=seq_len, rows=rows, attempt=attempt
        )
    if world.is_main and (before := draft.remember("micro_batch", micro)) != micro:
        console.warn(f"micro-batches of {micro} rows, {before} before: not bit-exact")
    return micro


def optim_settings(config: Any, kind: str, lr: float) -> OptimSettings:
    """The optimizer a config asks for. kind: 'adamw' or 'muon'."""
    return OptimSettings(
        kind=kind,
        lr=lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )


def make_meter(
    config: Any,
    world: World,
    shape: ModelConfig,
    plan: Plan,
    machine: Machine,
    peak: float,
    *,
    bytes_per_token: float = 0.0,
    columns: Sequence[Column] = (BITS,),
) -> Meter:
    """The run's meter; peak as of decide_once."""
    return Meter(
        steps=plan.steps,
        done=0,
        flops_per_token=shape.flops_per_token(plan.seq_len),
        peak=peak * machine.lanes * machine.threads * world.size,
        bytes_per_token=bytes_per_token,
        price=config.price * world.size,
        columns=columns,
    )


def make_loop(
    config: Any,
    draft: Draft,
    world: World,
    plan: Plan,
    *,
    model: nn.Module,
    batches: Batches,
    loss_fn: LossFn,
    optim: OptimSettings,
    micro_batch: int,
    meter: Meter,
    lanes: Lanes,
    facts: Mapping[str, Any],
    hooks: Sequence[Hook] = (),
    start: Checkpoint | None = None,
) -> Loop:
    """The loop over a built model; facts must be the same at resume."""
    return Loop(
        model=model,
        loss_fn=loss_fn,
        batches=batches,
        optimizer=Optimizers(model, optim, lanes.map, lanes.n),
        plan=plan,
        world=world,
        folder=draft.path,
        meter=meter,
        settings=LoopSettings(
            micro_batch=micro_batch,
            seed=config.seed,
            clip=config.clip,
            max_minutes=config.max_minutes,
            facts=facts,
        ),
        hooks=hooks,
        lanes=lanes,
        start=start,
    )
