"""Reinforcement learning put together: policy, start model, judges, rollouts, loop, and its end.

The frozen start model is kept in fp32 beside the policy, so that the KL is exactly 0 before the
first update. It is asked about every rollout where KL is penalised or budgeted, else about the
first micro-batch of each step: enough to watch the KL by, at a small share of its cost.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from llmctl.artifacts.store import Artifact, Draft
from llmctl.core import console
from llmctl.core.distributed import World
from llmctl.core.errors import UsageError
from llmctl.infer.engine import KV_SHARE, free_bytes
from llmctl.infer.prompts import start_record
from llmctl.model import hf
from llmctl.reward.judges import Judge, ModelJudge, VerifierJudge, is_model
from llmctl.train import rl_data
from llmctl.train.hooks import show_sample
from llmctl.train.loop import Hook, Loop
from llmctl.train.metrics import read_metrics
from llmctl.train.optim import gather
from llmctl.train.policy_loss import Drawable, Objective
from llmctl.train.rl_batches import COLUMNS, Drawing, RlBatches
from llmctl.train.rl_end import Best, draw_rewards, drop_state, save_end, stats_of
from llmctl.train.rl_eval import Evaluation
from llmctl.train.rl_rows import PolicyLoss
from llmctl.train.rl_start import extent, open_start
from llmctl.train.rl_watch import OVER_OPTIMISED, Finished, over_optimised
from llmctl.train.rollouts import Grading, Sampler
from llmctl.train.tuning import Tuning

TRAINING_BYTES = 12  # a parameter: its gradient and two moments, which come later


class Reinforcement:
    """One run of `llmctl rl` on this rank."""

    def __init__(self, config: Any, source: Artifact, draft: Draft, world: World) -> None:
        """config: an RlConfig. Everything is opened and checked here, before any step."""
        self.config, self.source, self.draft, self.world = config, source, draft, world
        if config.prompts_per_step % world.size:
            raise UsageError(
                f"prompts_per_step={config.prompts_per_step} cannot be shared by {world.size} "
                f"ranks; choose a multiple of {world.size}"
            )
        self.start = start = open_start(config, source)
        self.format, self.shape, self.held_out = start.format, start.shape, start.held_out
        self.record = start_record(source, start.format.tokenizer)
        self.shared = world.device.type == "cpu"
        self.judge = self._open_judge(config.reward, "reward")
        self.gold = self._open_judge(config.gold, "gold") if config.gold else None
        self.tuning = self._tuning()
        self.model = hf.load_model(source.path, torch.float32, world.device).train()
        self.reference = hf.load_model(source.path, torch.float32, world.device)
        self.reference.requires_grad_(False)

    def _open_judge(self, reward: str, name: str) -> Judge:
        if not is_model(reward):
            weight = self.config.format_weight if name == "reward" else 0.0
            every = [*self.start.problems, *self.held_out.problems]
            return VerifierJudge(reward, every, format_weight=weight)
        copy = rl_data.own_copy(Path(reward), name, self.draft, self.world)
        return ModelJudge(copy, name=reward, device=self.world.device)

    def _tuning(self) -> Tuning:
        config = self.config
        return Tuning(
            config,
            self.draft,
            self.world,
            shape=self.shape,
            rows_per_step=config.prompts_per_step * config.group_size,
            facts={"model": self.source.id, "prompts": config.prompts_per_step},
            **extent(config, self.start),
        )

    # -- the run

    def train(self) -> dict[str, Any]:
        """Train to the end of the plan, or to where it had better stop; the manifest's stats."""
        self.tuning.say()
        with self.tuning.prepared():
            sampler = self._sampler()
            best = Best(self.model, self.draft.path, self.world)
            evaluation = self._evaluation(sampler, best)
            batches = self._batches(sampler)
            hooks = [Hook(self.tuning.plan.eval_steps, evaluation)] if evaluation else []
            if evaluation and evaluation.gold:
                guard = self._guard(evaluation, batches)
                hooks.append(Hook(self.tuning.plan.eval_steps, guard))
                batches.look_back = lambda step: guard(step, back=True)
            sample = show_sample(batches.sample, self.world, self.tuning.meter)
            hooks.append(Hook(self.tuning.sample_steps, sample))
            loop = self.tuning.build(self.model, batches, self._loss(sampler), hooks, COLUMNS)
            batches.before_end = lambda: save_end(loop, self.world)
            if evaluation:
                batches.evaluated = True
                batches.watch.start(evaluation(0).get("eval_pass_1"))
            with contextlib.suppress(Finished):
                loop.run()
            batches.begin(loop.state.step)  # a run killed after its last step has taken none
            if evaluation and loop.state.step not in evaluation.rows:
                evaluation(loop.state.step)
            sampler.close()
            if batches.watch.finished:
                console.info(batches.watch.finished.said)
            return self._finish(loop, best, evaluation, batches.watch.finished)

    def _sampler(self) -> Sampler:
        return Sampler(
            self.model,
            self.format,
            dtype=self.tuning.dtype,
            lanes=self.tuning.machine.lanes,
            max_rows=self._rollout_rows(),
            kv_bytes=self._kv_bytes(),
            tools=self.start.tools,
        )

    def _rollout_rows(self) -> int:
        """As when the run began: batches of another size would draw other bits."""
        wanted, rows = self.config.rollout_rows, 0
        if self.world.is_main and (rows := self.draft.remember("rollout_rows", wanted)) != wanted:
            console.warn(f"rollout_rows={wanted}: the run began with {rows} and keeps to that")
        return int(self.world.share(rows))

    def _kv_bytes(self) -> int:
        """Memory for keys and values on this rank, as when the run began: less of it may mean
        fewer rows at once. On a CPU the ranks share what is free."""
        ranks = self.world.size if self.shared else 1
        free = free_bytes(self.world.device) // ranks - TRAINING_BYTES * self.shape.n_params()
        wanted = kept = int(KV_SHARE * max(0, free))
        if self.world.is_main and (kept := self.draft.remember("kv_bytes", wanted)) > max(0, free):
            console.warn(
                f"{kept:,} bytes for keys and values when the run began, {wanted:,} now: not "
                "bit-exact where that makes fewer rows"
            )
            kept = wanted
        return int(self.world.share(kept))

    def _batches(self, sampler: Sampler) -> RlBatches:
        config = self.config
        grading = Grading(
            self.judge,
            overlong=config.overlong,
            penalty=config.overlong_penalty,
            scale=config.scale,
            leave_one_out=config.leave_one_out,
        )
        drawing = Drawing(
            prompts_per_step=config.prompts_per_step,
            group_size=config.group_size,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            resample=config.resample,
            updates=config.updates,
            kl_budget=config.kl_budget,
            dead_stop=config.dead_stop,
            seed=config.seed,
        )
        return RlBatches(
            self.start.problems,
            self.start.prompts,
            sampler,
            grading,
            drawing,
            self._objective(),
            world=self.world,
            folder=self.draft.path,
            seq_len=self.tuning.plan.seq_len,
            shared=self.shared,
        )

    def _objective(self) -> Objective:
        config = self.config
        return Objective(
            loss=config.loss,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            kl_coef=config.kl_coef,
            max_tokens=config.max_tokens,
        )

    def _loss(self, sampler: Sampler) -> PolicyLoss:
        config = self.config
        return PolicyLoss(
            self.model,
            self.reference,
            self._objective(),
            dtype=self.tuning.dtype,
            drawable=drawable(sampler, config.temperature),
            old_from_sampler=config.old == "sampler",
            ask_reference=config.kl_coef > 0 or config.kl_budget > 0,
        )

    # -- evaluation, guard, end

    def _evaluation(self, sampler: Sampler, best: Best) -> Evaluation | None:
        if not self.held_out.problems:
            console.warn("no held-out problems, so nothing is measured on unseen ones")
            return None
        return Evaluation(
            held_out=self.held_out,
            sampler=sampler,
            judge=self.judge,
            gold=self.gold,
            world=self.world,
            folder=self.draft.path,
            meter=self.tuning.meter,
            max_tokens=self.config.max_tokens,
            keep_best=best.keep,
        )

    def _guard(self, evaluation: Evaluation, batches: RlBatches) -> Any:
        """A hook that ends the run when the reward model is over-optimised."""
        plan = self.tuning.plan

        def call(step: int, back: bool = False) -> None:
            # the evaluation after an early end is none that the guard was asked about
            asked = step if step == plan.steps else step - step % plan.eval_steps
            verdict = evaluation.look(asked) if back else evaluation.verdict
            if verdict is not None and verdict.over_optimised:
                batches.watch.finished = over_optimised(step, verdict)

        return call

    def _finish(
        self, loop: Loop, best: Best, evaluation: Evaluation | None, stopped: Finished | None
    ) -> dict[str, Any]:
        """Write the model; the manifest's stats."""
        step, taken = loop.state.step, 0
        if stopped is not None and stopped.reason == OVER_OPTIMISED:
            assert evaluation is not None and evaluation.verdict is not None
            step = taken = evaluation.verdict.best.step
            best.take_back(step, self.reference)
        weights = gather(self.model.state_dict(), self.world)
        rows: list[dict[str, Any]] = []
        if self.world.is_main:
            hf.save_state(weights, self.shape, self.draft.path, self.format.tokenizer)
            rows = read_metrics(self.draft.path / "metrics.jsonl")
            draw_rewards(rows, self.draft.path / "reward.svg")
            drop_state(loop, best, taken)
        self.world.wait()
        evals = evaluation.rows if evaluation else {}
        return {
            "parameters": self.shape.n_params(),
            "family": self.shape.family,
            "reward_by": self.config.reward,
            **self.record,
            **stats_of(loop, rows, evals, stopped, step),
        }


def drawable(sampler: Sampler, temperature: float) -> Drawable:
    """What the sampler draws from, for the loss."""
    engine = sampler.engines[0]
    holes = engine.holes if engine.holes.numel() else None
    return Drawable(engine.tokenizer.n_ids, holes, temperature)
