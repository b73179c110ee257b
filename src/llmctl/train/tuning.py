"""Tuning: an existing model trained on, in one way for sft, rm and rl.

A stage brings the model, batches (of any class with .to(device)) and a loss; what the machine is
asked for, how the run is planned, saved, resumed and shown is the same as in pretraining.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from llmctl.artifacts.store import Draft
from llmctl.core import console
from llmctl.core.distributed import World
from llmctl.core.errors import UsageError
from llmctl.model.config import ModelConfig
from llmctl.train import fitting
from llmctl.train import machine as machines
from llmctl.train.backward import Lanes, LossFn
from llmctl.train.estimate import describe
from llmctl.train.loop import Batches, Hook, Loop
from llmctl.train.machine import DTYPES
from llmctl.train.meter import Column
from llmctl.train.plan import Plan, lr_at
from llmctl.train.settings import TuningConfig

LR_SHARE = 0.1  # of pretraining's rate: weights that know something move little
F = TypeVar("F", bound=Callable[..., Any])


def uses_muon(config: TuningConfig) -> bool:
    """Whether hidden matrices get Muon; in tuning only when it is asked for."""
    return config.optimizer == "muon"


def tuning_plan(
    config: TuningConfig,
    shape: ModelConfig,
    *,
    steps: int,
    tokens_per_step: int,
    seq_len: int,
    lr_share: float = LR_SHARE,
    reason: str = "as given",
) -> Plan:
    """The plan of a tuning run. No torch is used: --dry-run makes it too."""
    return Plan(
        steps=steps,
        seq_len=seq_len,
        batch_tokens=tokens_per_step,
        lr=config.lr or lr_share * lr_at(shape.d_model, uses_muon(config)),
        min_lr=config.min_lr,
        warmup_steps=min(steps, math.ceil(config.warmup * steps)),
        decay_steps=min(steps, round(config.decay * steps)),
        save_steps=config.save_steps or min(500, max(10, steps // 20)),
        eval_steps=config.eval_steps or max(1, steps // 5),
        reason=reason,
    )


class Tuning:
    """One tuning run on this rank; every rank makes one and calls the same methods.

    plan, machine, dtype (of matrix products), device, lanes (threads that share micro-batches),
    meter, sample_steps and `share` (rows of a step on this rank) are there once it is made;
    micro_batch is what the machine planned, and from `build` on what has been found to fit.
    """

    def __init__(
        self,
        config: TuningConfig,
        draft: Draft,
        world: World,
        *,
        shape: ModelConfig,
        steps: int,
        tokens_per_step: int,
        seq_len: int,
        rows_per_step: int,
        facts: Mapping[str, Any],
        lr_share: float = LR_SHARE,
        reason: str = "as given",
    ) -> None:
        """tokens_per_step: token positions of one update over all ranks; rows_per_step the same in
        rows, of at most seq_len tokens, of which a micro-batch takes some. facts: what must be the
        same when the run is resumed, beside the plan. lr_share: of pretraining's rate, for lr=0.

        Raises UsageError (2) when rows_per_step cannot be shared by the ranks or micro-batches.
        """
        if rows_per_step % world.size:
            raise UsageError(
                f"{rows_per_step:,} rows a step cannot be shared by {world.size} ranks; choose a "
                f"multiple of {world.size}"
            )
        self.config, self.draft, self.world, self.shape = config, draft, world, shape
        self.device, self.share = world.device, rows_per_step // world.size
        self.plan = tuning_plan(
            config,
            shape,
            steps=steps,
            tokens_per_step=tokens_per_step,
            seq_len=seq_len,
            lr_share=lr_share,
            reason=reason,
        )
        self.machine, self.peak = fitting.decide_once(
            config, draft, world, shape, self.plan, self.share
        )
        self.dtype, self.micro_batch = DTYPES[self.machine.dtype], self.machine.micro_batch
        self.facts = {"seed": config.seed, "steps": steps, "lr": self.plan.lr, **facts}
        world.agree("the run's settings", [draft.run.get("fingerprint"), self.facts])
        self.sample_steps = config.sample_steps or max(1, steps // 5)
        self.lanes = Lanes(self.machine.lanes)
        self.meter = fitting.make_meter(
            config, world, shape, self.plan, self.machine, self.peak, columns=()
        )

    def compiled(self, function: F) -> F:
        """The function, compiled where this run decided to; shapes must not vary."""
        if not self.machine.compile:
            return function
        return torch.compile(function, dynamic=False)  # type: ignore[return-value]

    def prepared(self) -> Any:
        """A context with this run's threads and precision: for what is computed outside of fit."""
        return machines.prepared(self.machine)

    def fit(
        self,
        model: nn.Module,
        batches: Batches,
        loss_fn: LossFn,
        hooks: Sequence[Hook] = (),
        meter_columns: Sequence[Column] = (),
    ) -> Loop:
        """Train `model` (on self.device, fp32 weights) to the end of the plan; returns the loop.

        Batches may have probe(micro_batch) -> micro-batch of the size a step has, tried on CUDA
        for whether it fits; else step 0's first is taken. Raises what Loop.run raises.
        """
        with self.prepared():
            loop = self.build(model, batches, loss_fn, hooks, meter_columns)
            loop.run()
        return loop

    def build(
        self,
        model: nn.Module,
        batches: Batches,
        loss_fn: LossFn,
        hooks: Sequence[Hook] = (),
        meter_columns: Sequence[Column] = (),
    ) -> Loop:
        """fit without running it."""
        probe = getattr(batches, "probe", None)

        def attempt(micro_batch: int) -> None:
            batch = probe(micro_batch) if probe else next(iter(batches.take(0, micro_batch)))
            loss_fn(batch.to(self.device))[0].backward()
            model.zero_grad(set_to_none=True)

        self.micro_batch = micro = fitting.settle(
            self.draft,
            self.machine,
            self.world,
            self.shape,
            seq_len=self.plan.seq_len,
            rows=self.share,
            attempt=attempt,
        )
        if self.machine.compile:
            attempt(micro)  # compiled here, once, before lanes share it
        self.meter.columns = tuple(meter_columns)
        return fitting.make_loop(
            self.config,
            self.draft,
            self.world,
            self.plan,
            model=model,
            batches=batches,
            loss_fn=loss_fn,
            optim=fitting.optim_settings(self.config, self.optimizer, self.plan.lr),
            micro_batch=micro,
            meter=self.meter,
            lanes=self.lanes,
            facts=self.facts,
            hooks=hooks,
        )

    @property
    def optimizer(self) -> str:
        """'adamw' or 'muon'."""
        return "muon" if uses_muon(self.config) else "adamw"

    def say(self) -> None:
        """Model, plan and machine, before the first step."""
        plan, machine = self.plan, self.machine
        how = "compiled" if machine.compile else "eager"
        console.info(f"model {describe(self.shape)}; {self.shape.n_params():,} parameters")
        console.info(
            f"plan {plan.steps:,} updates of at most {plan.batch_tokens:,} tokens "
            f"({plan.reason}); lr {plan.lr:.2e}"
        )
        console.info(
            f"on {machine.name}: {machine.dtype}, {how}, {self.optimizer}, micro-batch "
            f"{machine.micro_batch} rows, {machine.ranks} ranks x {machine.lanes} lanes x "
            f"{machine.threads} threads; peak {self.peak / 1e9:,.0f} GFLOP/s each"
        )
