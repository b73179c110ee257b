"""Supervised tuning put together: a base or chat model, conversations, the loop, samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmctl.artifacts.store import Artifact, Draft
from llmctl.core import console
from llmctl.core.distributed import World
from llmctl.data.conversations import SourceSpec
from llmctl.data.masked import MaskedBatch, MaskedBatches, without_targets
from llmctl.model import hf
from llmctl.model.transformer import Transformer
from llmctl.train.hooks import show_sample
from llmctl.train.loop import Hook, Loop
from llmctl.train.losses import trained_token_loss
from llmctl.train.meter import Column
from llmctl.train.metrics import read_metrics
from llmctl.train.report import draw_loss
from llmctl.train.sft_samples import Samples
from llmctl.train.sft_start import lr_share, open_start, read_chats, rows_a_step, steps_of
from llmctl.train.tuning import Tuning


class Sft:
    """One run of `llmctl sft` on this rank."""

    def __init__(
        self, config: Any, model: Artifact, specs: list[SourceSpec], draft: Draft, world: World
    ) -> None:
        """config: a SftConfig. Everything is opened and checked here, before any step."""
        self.config, self.draft, self.world = config, draft, world
        self.start = open_start(model, config.seq_len)
        self.chats = read_chats(config, self.start, specs)
        self.rows = self.chats.train
        n_rows = rows_a_step(config, self.rows.seq_len)
        steps, reason = steps_of(config, self.chats, n_rows)
        chat = {"template": self.start.format.hash, "tokenizer": self.start.tokenizer.hash}
        self.tuning = Tuning(
            config,
            draft,
            world,
            shape=self.start.shape,
            steps=steps,
            tokens_per_step=n_rows * self.rows.seq_len,
            seq_len=self.rows.seq_len,
            rows_per_step=n_rows,
            facts={"model": model.id, "conversations": self.chats.hash, **chat},
            lr_share=lr_share(self.start.shape.d_model),
            reason=reason,
        )
        self.batches = MaskedBatches(
            self.rows, rows_per_step=n_rows, rank=world.rank, world_size=world.size
        )

    def train(self) -> dict[str, Any]:
        """Load the model, train it, write the folder; the manifest's stats."""
        start, tuning = self.start, self.tuning
        self._say()
        model = self._model()
        hidden, head = tuning.compiled(model.hidden), lambda: model.head_weight
        compiled = tuning.machine.compile

        def plain_loss(batch: MaskedBatch) -> tuple[Tensor, Tensor]:
            return trained_token_loss(batch, model.hidden, head, tuning.dtype)

        def loss_fn(batch: MaskedBatch) -> tuple[Tensor, Tensor]:
            return trained_token_loss(batch, hidden, head, tuning.dtype, compiled=compiled)

        prompts = self.config.sample_prompts if self.world.is_main else ()
        with tuning.prepared():
            samples = Samples(
                model, start.tokenizer, start.format, prompts, self.config.sample_tokens
            )
            samples.keep(self.draft.path, "before", 0)
        loop = tuning.fit(
            model,
            self.batches,
            loss_fn,
            self._hooks(plain_loss, samples),
            [Column("epoch", 7, "epoch", ".2f"), Column("targets", 8, "targets", ",")],
        )
        with tuning.prepared():
            samples.keep(self.draft.path, "after", tuning.plan.steps)
        if self.world.is_main:
            samples.show(self.draft.path)
            hf.save_state(
                model.state_dict(),
                start.shape,
                self.draft.path,
                start.tokenizer if start.grown else start.folder,
            )
        return self._finish(loop)

    def _model(self) -> Transformer:
        return self.start.load_model(self.config.seed).to(self.world.device).train()

    def _say(self) -> None:
        start = self.start
        if start.grown:
            n = start.tokenizer.n_ids - start.known
            console.info(f"{start.folder}: a base model; it gets a chat format, {n} control tokens")
        else:
            console.info(f"{start.folder}: chat format {start.format.name}")
        self.chats.say()
        self.tuning.say()

    def _hooks(self, loss_fn: Any, samples: Samples) -> list[Hook]:
        hooks = []
        if self.chats.val is not None:
            hooks.append(Hook(self.tuning.plan.eval_steps, self._validation(loss_fn)))
        if samples.prompts:
            call = show_sample(samples.next_one, self.world, self.tuning.meter)
            hooks.append(Hook(self.tuning.sample_steps, call))
        return hooks

    def _validation(self, loss_fn: Any) -> Any:
        """A hook's call: mean loss over the targets held out, shared by ranks and lanes."""
        rows, tuning, world = self.chats.val, self.tuning, self.world
        assert rows is not None
        rows.members(0)  # packed here, before lanes share it

        @torch.no_grad()
        def measure(first: int) -> tuple[float, float]:
            micro = tuning.micro_batch
            numbers = range(first, min(first + micro, len(rows)))
            filled = [*numbers, *[numbers[0]] * (micro - len(numbers))]
            batch = without_targets(rows.read(filled), len(numbers))
            loss, n = loss_fn(batch.to(world.device))
            return float(loss), float(n)

        def call(step: int) -> dict[str, Any]:
            micro = tuning.micro_batch  # what training settled on: what it planned may not fit
            mine = range(world.rank * micro, len(rows), world.size * micro)
            found = tuning.lanes.map(measure, mine)
            total, n = world.sum([sum(f[0] for f in found), sum(f[1] for f in found)])
            loss = total / max(1.0, n)
            tuning.meter.say(f"step {step:,}: validation loss {loss:.4f} on {int(n):,} targets")
            return {"val_loss": loss}

        return call

    def _finish(self, loop: Loop) -> dict[str, Any]:
        plan, rows = self.tuning.plan, self.rows
        metrics: list[dict[str, Any]] = []
        if self.world.is_main:
            metrics = read_metrics(self.draft.path / "metrics.jsonl")
            draw_loss(metrics, self.draft.path / "loss.svg")
            loop.checkpoints.keep_only(plan.steps)
        self.world.wait()
        n_rows, format = plan.rows_per_step, self.start.format
        stats: dict[str, Any] = {
            "parameters": self.start.shape.n_params(),
            "family": self.start.shape.family,
            "vocab_size": self.start.shape.vocab_size,
            "seq_len": plan.seq_len,
            "steps": plan.steps,
            "epochs": round(rows.epoch_at(plan.steps * n_rows), 4),
            "tokens": rows.tokens_at(range(plan.steps * n_rows)),
            "targets": sum(int(row.get("targets") or 0) for row in metrics),
            "skipped_steps": len(loop.state.skipped),
            "loss_spikes": loop.state.spikes,
            **self.chats.stats(),
        }
        stats["chat"] = {"name": format.name, "own": format.own, "template": format.hash}
        stats["chat"]["tokenizer"] = self.start.tokenizer.hash
        stats |= self.start.record
        for row in metrics[-1:]:
            keep = ("loss", "val_loss", "seconds", "cost")
            stats |= {name: row[name] for name in keep if name in row}
        return stats
