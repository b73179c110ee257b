"""Batches that are sampled from the model they train: RL as a data stream for the loop.

An update u of a rollout batch r is step r * updates + u. Only the first of them samples, and only
its row of the metrics says what was drawn; the log-probabilities that it finds, unless the
sampler's are taken, are the "old" ones of the others. A run that is stopped between two updates of
one batch finds the batch again (rl_held.py), on as many ranks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmctl.artifacts.checkpoint import Checkpoints
from llmctl.core.distributed import World
from llmctl.core.seeds import derive
from llmctl.data.packing import permutation
from llmctl.data.problems import Problem
from llmctl.train.meter import Column
from llmctl.train.policy_loss import Objective
from llmctl.train.rl_held import Held, read_held, write_held
from llmctl.train.rl_rows import RolloutBatch, micro_batches
from llmctl.train.rl_watch import Watch, worst_drift
from llmctl.train.rollouts import (
    Grading,
    Group,
    Rollout,
    Sampler,
    grade,
    measures,
    summary,
    write_rollouts,
)


def percent(value: float) -> str:
    """'12%'."""
    return f"{value:.0%}"


COLUMNS = (
    Column("reward", 7, "reward", ".3f"),
    Column("pass@1", 6, "pass_1", percent),
    Column("pass@k", 6, "pass_k", percent),
    Column("length", 6, "length", ".1f"),
    Column("entropy", 7, "entropy", ".3f"),
    Column("KL", 8, "kl", ".5f"),
    Column("dead", 5, "dead", percent),
    Column("drift", 7, "drift", ".4f"),
    Column("rolled/s", 8, "rollout_tokens_per_s", ",.0f"),
    Column("learned/s", 9, "learn_tokens_per_s", ",.0f"),
)


@dataclass(frozen=True)
class Drawing:
    """What is sampled for a step."""

    prompts_per_step: int
    group_size: int
    max_tokens: int
    temperature: float = 1.0
    resample: int = 0  # further rounds of problems, at most, while groups are dead
    updates: int = 1  # made with one batch of rollouts
    kl_budget: float = 0.0  # nats an answer; 0: none
    dead_stop: int = 0  # steps in a row without a live group that end the run; 0: never
    seed: int = 0

    @property
    def sampling(self) -> dict[str, Any]:
        """For SamplingParams: no cut, since the policy that is trained has none."""
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "logprobs": True,
        }


class RlBatches:
    """The loop's batches. Prompts are shared out over the ranks."""

    def __init__(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[list[int]],
        sampler: Sampler,
        grading: Grading,
        drawing: Drawing,
        objective: Objective,
        *,
        world: World,
        folder: Path,
        seq_len: int,
        shared: bool,
    ) -> None:
        """prompts: the ids of each problem. seq_len: tokens of the longest answer with its prompt;
        a micro-batch of n rows is a flat row of n times as many. shared: see micro_batches."""
        self.problems, self.prompts, self.sampler = problems, prompts, sampler
        self.grading, self.drawing, self.objective = grading, drawing, objective
        self.world, self.folder, self.seq_len, self.shared = world, folder, seq_len, shared
        self.held: Held | None = None
        self.evaluated = False  # on held-out problems, before the first step
        self.look_back: Callable[[int], None] | None = None  # what earlier steps say of the end
        self.before_end: Callable[[], None] | None = None  # called where the run ends early
        self._learning = time.perf_counter()
        self._micro = 1
        self.watch = Watch(drawing.kl_budget, drawing.dead_stop)
        self._begun = False

    # -- what the loop calls

    def take(self, step: int, micro_batch: int) -> Iterator[RolloutBatch]:
        """The micro-batches of an update. Raises Finished when the run is to end here."""
        self.begin(step)
        if self.watch.finished is not None:
            if self.before_end is not None:
                self.before_end()
            raise self.watch.finished
        number, update = divmod(step, self.drawing.updates)
        self._micro = micro_batch
        if update == 0:
            self.held = self._sample(number)
        elif self.held is None or self.held.number != number:
            self.held = self._load(number)
        self._learning = time.perf_counter()
        yield from self.held.batches

    def begin(self, step: int) -> None:
        """Once, before anything else: learn what the steps before this one said of the end."""
        if self._begun:
            return
        self._begun = True
        self.watch.begin(self.folder, step)
        if self.look_back is not None:
            self.look_back(step)

    def probe(self, micro_batch: int) -> RolloutBatch:
        """A micro-batch as large as any can be, to see whether it fits."""
        length = self.seq_len
        rollout = Rollout(
            [0] * (length // 2), [True] * (length // 2), [0.0] * (length // 2), "", "", ""
        )
        rollout.trained = True
        group = Group(0, [0] * (length - length // 2), [rollout] * max(2, micro_batch))
        budget = micro_batch * length
        return next(micro_batches([group], self.objective, budget=budget, shared=self.shared))

    def describe(self, step: int) -> dict[str, Any]:
        """Which problems a step's rollouts were for."""
        return {"step": step, "problems": self._problems(step // self.drawing.updates, 0)}

    def sample(self) -> str:
        """A question of the step that is done, and the first answer drawn to it on this rank."""
        assert self.held is not None
        if not self.held.groups:
            return "no answers that differ in reward"
        group = self.held.groups[0]
        first = group.rollouts[0]
        asked = self.problems[group.problem].question
        return f"{asked[-80:]} → {first.reply[-120:]} (drawn; reward {first.reward})"

    def tokens(self, step: int) -> int:
        """Tokens drawn for the step's batch, over all ranks: the same at each of its updates."""
        assert self.held is not None
        return int(self.world.sum([self.held.sums["tokens"]])[0])

    def metrics(self, step: int) -> dict[str, Any]:
        """What there is to say of an update that is done."""
        held = self.held
        assert held is not None
        learning = time.perf_counter() - self._learning
        first = step % self.drawing.updates == 0
        row = self._learned(held, learning)
        if first:
            sums = dict(zip(held.sums, self.world.sum(list(held.sums.values()))))
            row = summary(sums) | row
            row["rollout_tokens_per_s"] = round(sums["tokens"] / max(held.seconds, 1e-9), 1)
            row |= {"rounds": held.rounds} if held.rounds > 1 else {}
            self.watch.dead(row["dead"])
            if step == 0 and not self.evaluated:
                self.watch.start(row.get("pass_1"))
        if self.drawing.updates > 1 and first:
            self._save(held)
        self.watch.kl(step + 1, row.get("kl_answer"))
        return row

    # -- sampling

    def _problems(self, number: int, round: int) -> list[int]:
        """The problems of a rollout batch: epochs in an order drawn by the seed. Further rounds
        take others, from an order of their own, so that what later steps see does not change."""
        n, each = len(self.problems), self.drawing.prompts_per_step
        if round:
            order = permutation(n, derive(self.drawing.seed, "again", number, round))
            return [int(order[i % n]) for i in range(each)]
        found = []
        for position in range(number * each, (number + 1) * each):
            epoch, index = divmod(position, n)
            found.append(int(permutation(n, derive(self.drawing.seed, "order", epoch))[index]))
        return found

    def _sample(self, number: int) -> Held:
        started = time.perf_counter()
        self.sampler.refresh()
        share = self.drawing.prompts_per_step // self.world.size
        sampled: list[Group] = []
        live: list[Group] = []
        rounds = 0
        while rounds <= self.drawing.resample and len(live) < share:
            groups = self._draw(number, rounds)
            grade(groups, self.problems, self.grading)
            sampled += groups
            live += [g for g in groups if not g.dead]
            rounds += 1
        for group in live[share:]:  # more than a step wants
            for rollout in group.rollouts:
                rollout.trained = False
        held = Held(number, live[:share], measures(sampled, self.grading.judge), rounds=rounds)
        held.batches = self._split(held.groups)
        held.seconds = time.perf_counter() - started
        step = number * self.drawing.updates + 1
        rank = f"-rank{self.world.rank}" if self.world.rank else ""
        path = self.folder / "rollouts" / f"step-{step:06d}{rank}.jsonl"
        write_rollouts(path, sampled, self.problems)
        return held

    def _draw(self, number: int, round: int) -> list[Group]:
        mine = self._problems(number, round)[self.world.rank :: self.world.size]
        k = self.drawing.group_size
        prompts = [self.prompts[i] for i in mine for _ in range(k)]
        seed = derive(self.drawing.seed, "rollouts", number, round, self.world.rank)
        rollouts = self.sampler.draw(prompts, self.drawing.sampling, seed)
        return [
            Group(problem, self.prompts[problem], rollouts[i * k : (i + 1) * k])
            for i, problem in enumerate(mine)
        ]

    def _split(self, groups: Sequence[Group]) -> list[RolloutBatch]:
        budget = self._micro * self.seq_len
        return list(micro_batches(groups, self.objective, budget=budget, shared=self.shared))

    # -- what is measured

    def _learned(self, held: Held, seconds: float) -> dict[str, Any]:
        """Entropy, KL, drift, clipping and speed of the pass that has just been made."""
        names = ("tokens", "entropy", "kl", "kl_tokens", "kl_answers", "clipped")
        notes = [b.note for b in held.batches]
        mine = [math.fsum(n.sums.get(name, 0.0) for n in notes) for name in names]
        drifts = [n.drift for n in notes if n.drift is not None]
        drift = torch.cat(drifts) if drifts else torch.zeros(0)
        mine += [float(drift.sum()), float(drift.numel())]
        sums = dict(zip((*names, "drift", "drifts"), self.world.sum(mine)))
        row: dict[str, Any] = {}
        if sums["tokens"]:
            row["entropy"] = sums["entropy"] / sums["tokens"]
            row["clipped"] = sums["clipped"] / sums["tokens"]
            row["learn_tokens_per_s"] = round(sums["tokens"] / max(seconds, 1e-9), 1)
        if sums["kl_tokens"]:
            row["kl"] = sums["kl"] / sums["kl_tokens"]
            row["kl_answer"] = sums["kl"] / sums["kl_answers"]
        if sums["drifts"]:
            row["drift"] = sums["drift"] / sums["drifts"]
            row["drift_p99"] = worst_drift(drift)
        return row

    # -- the state between two updates of one batch

    def _save(self, held: Held) -> None:
        """Checkpoints made in the middle of a batch's updates count on it."""
        state, updates = self.folder / "state", self.drawing.updates
        steps = [c.step for c in Checkpoints(state)]
        write_held(held, state, self.world, {s // updates for s in steps if s % updates})

    def _load(self, number: int) -> Held:
        held, every = read_held(number, self.folder / "state", self.world)
        held.batches = self._split(held.groups)
        for batch, old in zip(held.batches, every, strict=True):
            batch.note.old = torch.tensor(old, dtype=torch.float32, device=self.world.device)
        return held
