"""Pretraining put together: corpus, model, optimizer, loop, hooks; the model folder at its end."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmctl.artifacts.checkpoint import Checkpoint, Checkpoints
from llmctl.artifacts.store import Artifact, Draft
from llmctl.core.distributed import World
from llmctl.core.errors import Mismatch, NoInput, UsageError
from llmctl.core.seeds import derive
from llmctl.data.batches import Batch, PackedBatches, PackedRows
from llmctl.model import hf
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer
from llmctl.train import fitting
from llmctl.train import machine as machines
from llmctl.train.backward import Lanes
from llmctl.train.corpus import open_corpus
from llmctl.train.hooks import eval_bits_per_byte, show_sample
from llmctl.train.loop import Hook, Loop
from llmctl.train.losses import compiled_next_token_loss, next_token_loss
from llmctl.train.machine import DTYPES
from llmctl.train.meter import Meter
from llmctl.train.metrics import read_metrics
from llmctl.train.optim import OptimSettings, gather
from llmctl.train.plan import Plan
from llmctl.train.report import draw_loss, say_plan
from llmctl.train.shape import plan_of, refuse_ignored, shape_from, shape_of, uses_muon

SAMPLE_TOKENS = 48


class Pretraining:
    """One run of `llmctl pretrain` on this rank."""

    def __init__(self, config: Any, tokens: Artifact, draft: Draft, world: World) -> None:
        """config: a PretrainConfig. Everything is opened and checked here, before any step."""
        self.config, self.draft, self.world = config, draft, world
        self.corpus = open_corpus(tokens, config.vocab_size)
        self.start = self._old_run() if config.extend else None
        self.shape = self._shape()
        self.plan = self._plan()
        self.rows = PackedRows(
            self.corpus.train,
            seq_len=self.plan.seq_len,
            eot_id=self.corpus.eot_id,
            vocab_size=self.shape.vocab_size,
            seed=derive(config.seed, tokens.id),
        )
        self.batches = PackedBatches(
            self.rows,
            rows_per_step=self.plan.rows_per_step,
            rank=world.rank,
            world_size=world.size,
        )
        self.machine, self.peak = fitting.decide_once(
            config, draft, world, self.shape, self.plan, self.batches.share
        )
        self.facts = {"tokens": tokens.id, "seed": config.seed, "model": self.shape.to_hf()}
        self.facts |= {k: getattr(self.plan, k) for k in ("steps", "seq_len", "batch_tokens", "lr")}
        world.agree("the run's settings", [draft.run.get("fingerprint"), self.facts])

    def _old_run(self) -> Checkpoint:
        """The checkpoint of the run to extend: where its decay began."""
        folder = Path(self.config.extend)
        kept = [c for c in Checkpoints(folder / "state") if c.kept]
        if not kept:
            raise NoInput(f"{folder}: no state to train on from (dropped, or no llmctl run)")
        if damage := kept[-1].damage():
            raise Mismatch(f"{kept[-1].path}: {damage}; restore it from a copy")
        if (made_of := kept[-1].loop["facts"]["tokens"]) != self.corpus.artifact.id:
            raise Mismatch(
                f"{folder} was trained on other tokens ({made_of[:12]}) than "
                f"{self.corpus.artifact.path} ({self.corpus.artifact.id[:12]}); name the same ones"
            )
        return kept[-1]

    def _shape(self) -> ModelConfig:
        given = self.config.extend or self.config.init
        if given:
            shape = hf.load_config(given)
            old = Plan(**self.start.loop["plan"]) if self.start else None
            refuse_ignored(self.config, given, shape, old)
            shape = shape_from(self.config, shape, vocab_size=self.corpus.vocab_size)
            return dataclasses.replace(shape, bos_id=self.corpus.eot_id)  # it begins documents
        return shape_of(self.config, vocab_size=self.corpus.vocab_size, eot_id=self.corpus.eot_id)

    def _plan(self) -> Plan:
        if self.start is None:
            return plan_of(self.config, self.shape, self.corpus.train.n_tokens)
        old = Plan(**self.start.loop["plan"])
        steps = self.config.steps or 2 * old.steps
        if steps <= old.steps:
            raise UsageError(f"steps={steps:,} in all, but {self.config.extend} has {old.steps:,}")
        decay_steps = min(round(self.config.decay * steps), steps - self.start.step)
        return dataclasses.replace(
            old,
            steps=steps,
            decay_steps=decay_steps,
            save_steps=self.config.save_steps or old.save_steps,
            eval_steps=self.config.eval_steps or old.eval_steps,
            reason=f"{self.config.extend} trained on",
        )

    def train(self) -> dict[str, Any]:
        """Build what is trained, train it, write the model; the manifest's stats."""
        with machines.prepared(self.machine):
            loop = self._build()
            self._say_plan()
            loop.run()
            return self._finish(loop)

    def _build(self) -> Loop:
        config, plan, world, machine = self.config, self.plan, self.world, self.machine
        model = self._model()
        if config.parallel == "fsdp" and world.size > 1:
            machines.shard(model, world)
        dtype = DTYPES[machine.dtype]

        def plain_loss(batch: Batch) -> tuple[Tensor, Tensor]:
            return next_token_loss(batch, model.hidden, lambda: model.head_weight, dtype)

        loss_fn = compiled_next_token_loss(model, dtype) if machine.compile else plain_loss

        def attempt(micro_batch: int) -> None:
            batch = next(iter(self.batches.take(0, micro_batch)))
            loss_fn(batch.to(world.device))[0].backward()
            model.zero_grad(set_to_none=True)

        micro = fitting.settle(
            self.draft,
            machine,
            world,
            self.shape,
            seq_len=plan.seq_len,
            rows=self.batches.share,
            attempt=attempt,
            sharded=config.parallel == "fsdp" and world.size > 1,
        )
        if machine.compile:
            attempt(micro)  # compiled here, once, before lanes share it
        lanes, meter = Lanes(machine.lanes), self._meter()
        loop = fitting.make_loop(
            config,
            self.draft,
            world,
            plan,
            model=model,
            batches=self.batches,
            loss_fn=loss_fn,
            optim=self._optim(),
            micro_batch=micro,
            meter=meter,
            lanes=lanes,
            facts=self.facts,
            hooks=self._hooks(model, plain_loss, micro, meter, lanes),
            start=self.start,
        )
        self._copy_metrics()
        return loop

    def _model(self) -> Transformer:
        world, config = self.world, self.config
        if config.init:
            model = hf.load_model(config.init, torch.float32)
            model.config = self.shape
        else:
            with torch.device("meta"):
                model = Transformer(self.shape)
            model.to_empty(device="cpu")
            model.init_weights(config.seed)
        return model.to(world.device).train()

    def _optim(self) -> OptimSettings:
        kind = "muon" if uses_muon(self.config) else "adamw"
        return fitting.optim_settings(self.config, kind, self.plan.lr)

    def _meter(self) -> Meter:
        return fitting.make_meter(
            self.config,
            self.world,
            self.shape,
            self.plan,
            self.machine,
            self.peak,
            bytes_per_token=self.corpus.bytes_per_token,
        )

    def _hooks(
        self, model: Transformer, loss_fn: Any, micro_batch: int, meter: Meter, lanes: Lanes
    ) -> list[Hook]:
        hooks = []
        if self.corpus.val is not None:
            rows = PackedRows(
                self.corpus.val,
                seq_len=self.plan.seq_len,
                eot_id=self.corpus.eot_id,
                vocab_size=self.shape.vocab_size,
            )
            call = eval_bits_per_byte(
                loss_fn,
                rows,
                n_bytes=self.corpus.val_bytes,
                eot_id=self.corpus.eot_id,
                micro_batch=micro_batch,
                world=self.world,
                meter=meter,
                lanes=lanes,
            )
            hooks.append(Hook(self.plan.eval_steps, call))
        sharded = self.config.parallel == "fsdp" and self.world.size > 1
        if self.corpus.tokenizer is not None and not sharded:
            tokenizer, prompt = self.corpus.tokenizer, self.config.sample_prompt

            def generate() -> str:
                from llmctl.train.sample import sample_text

                return sample_text(model, tokenizer, prompt, SAMPLE_TOKENS)

            every = self.config.sample_steps or max(1, self.plan.steps // 5)
            hooks.append(Hook(every, show_sample(generate, self.world, meter)))
        return hooks

    def _copy_metrics(self) -> None:
        """An extended run's curve begins with the old run's."""
        mine, old = self.draft.path / "metrics.jsonl", Path(self.config.extend) / "metrics.jsonl"
        if self.config.extend and self.world.is_main and old.is_file() and not mine.exists():
            shutil.copyfile(old, mine)

    def _say_plan(self) -> None:
        say_plan(
            self.shape,
            self.plan,
            self.machine,
            self.rows,
            epochs=self.batches.epochs(self.plan.steps),
            optimizer=self._optim().kind,
            peak=self.peak,
        )

    def _finish(self, loop: Loop) -> dict[str, Any]:
        weights = gather(loop.model.state_dict(), self.world)
        rows: list[dict[str, Any]] = []
        if self.world.is_main:
            hf.save_state(weights, self.shape, self.draft.path, self.corpus.tokenizer)
            rows = read_metrics(self.draft.path / "metrics.jsonl")
            draw_loss(rows, self.draft.path / "loss.svg")
            loop.checkpoints.keep_only(self.plan.stable_end, self.plan.steps)
        self.world.wait()
        last = rows[-1] if rows else {}
        stats = {
            "parameters": self.shape.n_params(),
            "family": self.shape.family,
            "steps": self.plan.steps,
            "tokens": self.plan.tokens,
            "epochs": round(self.batches.epochs(self.plan.steps), 4),
            "loss": last.get("loss"),
            "skipped_steps": len(loop.state.skipped),
            "loss_spikes": loop.state.spikes,
        }
        for name in ("val_loss", "val_bits_per_byte", "seconds", "cost"):
            if name in last:
                stats[name] = last[name]
        return stats
