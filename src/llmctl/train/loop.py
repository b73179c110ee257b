"""THE training loop, for every stage that trains: accumulate, reduce, step, log, save, resume.

A stage hands it batches (a pure function of the step), a loss that returns (sum, count), an
optimizer, a plan and hooks. The loop's whole state is the number of updates done, the weights and
the optimizer's moments: killed at any moment and started again, it ends with the same bits.

Random numbers drawn inside a step come from a stream of (seed, step, rank), so there is no
generator's state to keep.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from llmctl.artifacts.checkpoint import Checkpoint, Checkpoints, copy_into
from llmctl.core import console, hardware
from llmctl.core.distributed import World
from llmctl.core.errors import Diverged, Mismatch
from llmctl.core.files import write_json
from llmctl.core.seeds import derive
from llmctl.core.signals import Stop, graceful_stop
from llmctl.train.backward import Lanes, LossFn, Movable
from llmctl.train.meter import Meter
from llmctl.train.metrics import MetricsFile
from llmctl.train.optim import Optimizers, gather, shard_like, whole
from llmctl.train.plan import Plan
from llmctl.train.schedule import multiplier

SKIP_BUDGET, SKIP_WINDOW = 3, 100  # steps without a finite gradient allowed, among the last so many
SPIKE_WINDOW, SPIKE_SIGMAS = 128, 6.0


class Batches(Protocol):
    """A step's data, drawn from nothing but the step's number (and, in RL, the live weights).

    A stage's own may have two methods more, both called on every rank when the step is done:
    tokens(step) -> tokens the step worked on, over all ranks, when its loss counts something else;
    metrics(step) -> what else to note of the step, for metrics.jsonl and the table's columns.
    """

    def take(self, step: int, micro_batch: int) -> Iterable[Movable]: ...

    def describe(self, step: int) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Hook:
    """Called on all ranks after every `every` updates and after the last; adds to the metrics."""

    every: int
    call: Callable[[int], Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the loop runs, beside the plan."""

    micro_batch: int
    seed: int = 0
    clip: float = 1.0  # largest gradient norm; 0: none
    max_minutes: float = 0.0  # 0: no limit
    facts: Mapping[str, Any] = field(default_factory=dict)  # must be the same at resume


@dataclass
class State:
    """All that a resumed run needs beside weights and moments."""

    step: int = 0  # updates done, skipped ones included
    skipped: list[int] = field(default_factory=list)  # steps without a finite gradient
    spikes: int = 0
    losses: list[float] = field(default_factory=list)  # the last ones, to tell a spike by


class Loop:
    """One training run; `run` brings it to its end or raises."""

    def __init__(
        self,
        *,
        model: nn.Module,
        loss_fn: LossFn,
        batches: Batches,
        optimizer: Optimizers,
        plan: Plan,
        world: World,
        folder: Path,
        meter: Meter,
        settings: LoopSettings,
        hooks: Sequence[Hook] = (),
        lanes: Lanes | None = None,
        start: Checkpoint | None = None,
    ) -> None:
        """folder: the artifact's; state/ and metrics.jsonl are written there by rank 0.

        start: another run's checkpoint to go on from when this one has none yet.
        """
        self.model, self.loss_fn, self.batches = model, loss_fn, batches
        self.optimizer, self.plan, self.world = optimizer, plan, world
        self.folder, self.meter, self.settings, self.hooks = folder, meter, settings, hooks
        self.checkpoints = Checkpoints(folder / "state")
        self.lanes = lanes or Lanes(1)
        self.start = start
        self.sharded = any(hasattr(p, "placements") for p in optimizer.params)
        self.state = State()
        self._metrics: MetricsFile | None = None

    def run(self) -> State:
        """Train to the end of the plan.

        Raises Interrupted (75) or Cancelled (130) after a signal or the time limit, the state
        saved; Diverged (76) when gradients stay non-finite; IoError_ (74) when a save fails.
        """
        self.resume()
        if self.world.is_main:
            self._metrics = MetricsFile(self.folder / "metrics.jsonl", self.state.step)
            self.meter.before = float((self._metrics.last or {}).get("seconds") or 0.0)
        started = time.monotonic()
        self.meter.pause()
        try:
            with graceful_stop() as stop:
                while self.state.step < self.plan.steps:
                    limit = self.settings.max_minutes * 60
                    late = bool(limit) and time.monotonic() - started >= limit
                    if self._step(stop.requested or late):
                        self._stop(stop)
        finally:
            self.lanes.close()
            if self._metrics is not None:
                self._metrics.close()
        return self.state

    def _step(self, wants_stop: bool) -> bool:
        """One update with all that follows it; whether any rank wants to stop."""
        step = self.state.step
        lr = self.plan.lr * multiplier(
            step,
            steps=self.plan.steps,
            warmup=self.plan.warmup_steps,
            decay=self.plan.decay_steps,
            floor=self.plan.min_lr,
        )
        loss, norm, count, stop = self._update(step, lr, wants_stop)
        self.state.step = step + 1
        done = self.state.step
        row: dict[str, Any] = {"step": done, "loss": loss, "lr": lr, "grad_norm": norm}
        row |= {"tokens": done * self.plan.batch_tokens, "targets": int(count)}
        row |= self._facts_of(step, int(count))
        if self.meter.bytes_per_token and loss is not None:
            row["bits_per_byte"] = loss / math.log(2) / self.meter.bytes_per_token
        row |= self.meter.facts(done)
        row["memory"] = hardware.memory_used(self.world.device)
        last = done == self.plan.steps
        for hook in self.hooks:
            if done % hook.every == 0 or last:
                row |= hook.call(done) or {}
                self.meter.pause()
        if self._metrics is not None:
            self._metrics.append(row)
        self.meter.show(row, stay=last or stop)
        if stop or last or done % self.plan.save_steps == 0 or done == self.plan.stable_end:
            self.save()
            self.meter.pause()
        return stop and not last

    def _facts_of(self, step: int, count: int) -> dict[str, Any]:
        """What the batches say of a step that has just been done; measures its speed."""
        tokens = getattr(self.batches, "tokens", None)
        self.meter.measure(count if tokens is None else tokens(step))
        metrics = getattr(self.batches, "metrics", None)
        return {} if metrics is None else dict(metrics(step))

    def _update(
        self, step: int, lr: float, wants_stop: bool
    ) -> tuple[float | None, float, float, bool]:
        """Gradients of the global batch, one optimizer step: (mean loss, norm, count, stop).

        A step with nothing to learn from (count 0) changes nothing, moments and weights included.
        """
        device, params = self.world.device, self.optimizer.params
        torch.manual_seed(derive(self.settings.seed, "step", step, self.world.rank))
        self.optimizer.zero_grad()
        work = self.batches.take(step, self.settings.micro_batch)
        total, n = self.lanes.sum_gradients(work, self.loss_fn, params, device)
        some = [float(p.grad is not None) for p in params] if self.world.size > 1 else []
        sums = self.world.sum([float(total), float(n), float(wants_stop), *some])
        for p, ranks in zip(params, sums[3:]):
            if ranks and p.grad is None:  # this rank had no row, others had: all sum alike
                p.grad = torch.zeros_like(p)
        if not sums[1]:
            self.optimizer.zero_grad()
            return None, 0.0, 0.0, sums[2] > 0
        loss, count = sums[0] / sums[1], sums[1]
        grads = [p.grad for p in params if p.grad is not None]
        if not self.sharded:
            self.world.sum_tensors(grads)
        share = self.world.size if self.sharded else 1  # FSDP has averaged over the ranks
        norm = float(whole(torch.nn.utils.get_total_norm(grads))) * share / count
        if math.isfinite(loss) and math.isfinite(norm):
            clip = self.settings.clip
            scale = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
            torch._foreach_mul_(grads, scale * share / count)
            self.optimizer.step(lr)
            self._watch(loss)
        else:
            self._skip(step, loss, norm)
        self.optimizer.zero_grad()
        return loss, norm, sums[1], sums[2] > 0

    def _watch(self, loss: float) -> None:
        """Count a spike: a loss more than 6 standard deviations above the last 128."""
        losses = self.state.losses
        if len(losses) == SPIKE_WINDOW:
            mean, deviation = statistics.fmean(losses), statistics.pstdev(losses)
            if loss > mean + SPIKE_SIGMAS * deviation:
                self.state.spikes += 1
                console.warn(f"loss spike: {loss:.4f} after a mean of {mean:.4f}")
        self.state.losses = [*losses, loss][-SPIKE_WINDOW:]

    def _skip(self, step: int, loss: float, norm: float) -> None:
        """A gradient that is no number changes nothing; too many of them end the run."""
        self.state.skipped.append(step)
        recent = [s for s in self.state.skipped if s > step - SKIP_WINDOW]
        what = f"step {step + 1}: loss {loss}, gradient norm {norm}"
        if len(recent) <= SKIP_BUDGET:
            console.warn(f"{what}; update skipped ({len(recent)} of {SKIP_BUDGET} allowed)")
            return
        where = self.folder / "state" / f"diverged-{step + 1:08d}.json"
        if self.world.is_main:
            rows = [self.batches.describe(s) for s in recent]
            where.parent.mkdir(parents=True, exist_ok=True)
            write_json(where, {"seed": self.settings.seed, "batches": rows})
        raise Diverged(
            f"{what}: {len(recent)} of the last {SKIP_WINDOW} steps had no finite gradient; their "
            f"batches are listed in {where}, the last good checkpoint stands; lower lr"
        )

    def _stop(self, stop: Stop) -> None:
        self.world.wait()
        raise stop.error(f"state saved at step {self.state.step:,} of {self.plan.steps:,}")

    def _model_tensors(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters())

    def save(self) -> None:
        """Write a checkpoint; all ranks must call it. Diverged (76) when a weight is no number."""
        weights = gather(self._model_tensors(), self.world)
        moments = gather(self.optimizer.state(), self.world)
        good = self.world.share(all(bool(torch.isfinite(w).all()) for w in weights.values()))
        if self.world.is_main:
            if self._metrics is not None:
                self._metrics.sync()
            loop = {
                **dataclasses.asdict(self.state),
                "facts": dict(self.settings.facts),
                "plan": dataclasses.asdict(self.plan),
            }
            self.checkpoints.save(
                self.state.step,
                {"model": weights, "optimizer": moments},
                loop,
                kept=self.state.step == self.plan.stable_end,
                suffix="" if good else ".nan",
            )
        if not good:
            raise Diverged(
                f"step {self.state.step}: a weight is not a finite number; the state is set aside "
                "as *.nan, the last good checkpoint stands; lower lr"
            )

    def resume(self) -> None:
        """Take up this run's newest whole checkpoint, else `start`; all ranks must call it."""
        found = None
        if self.world.is_main:
            self.checkpoints.clean()
            newest = self.checkpoints.latest()
            found = newest.step if newest else None
        found = self.world.share(found)
        if found is None:
            if self.start is not None:
                self._take_up(self.start)
            return
        checkpoint = next(c for c in self.checkpoints if c.step == found)
        loop, where = checkpoint.loop, str(checkpoint.path)
        held, facts = loop["facts"], dict(self.settings.facts)
        if different := sorted(k for k in {*held, *facts} if held.get(k) != facts.get(k)):
            said = ", ".join(f"{k} ({held.get(k)} there, {facts.get(k)} here)" for k in different)
            raise Mismatch(f"{where} belongs to another run: {said}; start anew with --force")
        self._take_up(checkpoint)

    def _take_up(self, checkpoint: Checkpoint) -> None:
        where = str(checkpoint.path)
        self.load(checkpoint.tensors("model"), checkpoint.tensors("optimizer"), where)
        loop, names = checkpoint.loop, [f.name for f in dataclasses.fields(State)]
        self.state = State(**{name: loop[name] for name in names})
        console.info(f"going on after step {self.state.step:,} of {self.plan.steps:,}")

    def load(
        self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], where: str
    ) -> None:
        """Put weights and optimizer state in place; Mismatch (78) when they do not fit."""
        mine = self._model_tensors()
        if self.sharded:
            weights = {k: shard_like(mine[k], t) if k in mine else t for k, t in weights.items()}
        copy_into(mine, weights, where)
        self.optimizer.load(moments, where)
