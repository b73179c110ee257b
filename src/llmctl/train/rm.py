"""A reward model's training put together: model, rankings, loop, judgement on held-out rankings."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.artifacts.manifest import RUN
from llmctl.artifacts.store import Artifact, Draft
from llmctl.core import console
from llmctl.core.distributed import World
from llmctl.core.errors import Mismatch
from llmctl.core.files import read_json, write_json
from llmctl.core.seeds import derive
from llmctl.evals.pairwise import agreement
from llmctl.model.reward import RewardModel, pad_id_for, save_reward_model
from llmctl.reward.encode import Encoded, Encoder
from llmctl.reward.flat import n_tokens, score_all
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.train.backward import Lanes
from llmctl.train.loop import Hook, Loop
from llmctl.train.meter import Column
from llmctl.train.metrics import read_metrics
from llmctl.train.optim import gather
from llmctl.train.report import draw_loss
from llmctl.train.rm_batches import ROW, RankingBatches, make_loss
from llmctl.train.rm_data import Entry, Parted, encode_all, fold_parts, part, paths_of, read_all
from llmctl.train.rm_report import Judgement
from llmctl.train.sft_start import open_start, row_length
from llmctl.train.tuning import Tuning

ACCURACY = Column("right", 6, "accuracy", ".1%")  # share of the step's pairs


class RmTraining:
    """One run of `llmctl rm` on this rank."""

    def __init__(self, config: Any, model: Artifact, draft: Draft, world: World) -> None:
        """config: an RmConfig. Everything is opened and checked here, before any step."""
        self.config, self.draft, self.world = config, draft, world
        self.begin = open_start(model, config.seq_len)
        if self.begin.grown:
            console.info("the model knows no chat format: its tokenizer gets ours")
        self.seq_len = row_length(config, self.begin.shape)
        self.encoder = Encoder(self.begin.format, self.seq_len)
        rankings = read_all(paths_of(config.data, model), config.max_bad)
        self.entries = encode_all(rankings, self.encoder)
        self.tokenizer, self.pad_id = self._padding()

    def _padding(self) -> tuple[Tokenizer, int]:
        """The tokenizer with a pad token that ends no response, and its id."""
        tokenizer = self.begin.tokenizer

        def named(key: str) -> int | None:
            token = tokenizer.config.get(key)
            word = token.get("content") if isinstance(token, dict) else token
            return tokenizer.id_of(word) if isinstance(word, str) else None

        ending = {int(r[-1]) for e in self.entries for r in e.encoded.responses}
        ending.add(self.begin.format.end_id)  # for readers that stop at the end of the turn
        order = [named("pad_token"), tokenizer.eot_id, named("bos_token"), named("unk_token")]
        pad = pad_id_for([*order, *sorted(tokenizer.special_ids)], ending)
        word = tokenizer.token_bytes[pad].decode()
        config = {**tokenizer.config, "pad_token": word}
        return Tokenizer(tokenizer.raw, config, tokenizer.source), pad

    def train(self) -> dict[str, Any]:
        """Train, judge, write the model; the manifest's stats."""
        config = self.config
        if config.folds:
            judgement = Judgement(f"{config.folds} folds over prompts")
            for number, parted in enumerate(fold_parts(self.entries, config.folds, config.seed), 1):
                judgement.add(parted.train, parted.held_out, self._fold(number, parted))
            parted = Parted(self.entries, [], "all rankings, after the folds")
        else:
            parted = part(self.entries, config.val_fraction, config.seed)
            judgement = Judgement(parted.how)
        run = _Run(self, parted, self.draft)
        loop = run.train()
        if parted.held_out:
            judgement.add(parted.train, parted.held_out, run.scores(parted.held_out))
        return self._finish(run, loop, judgement)

    def model(self) -> RewardModel:
        """The model as it is before training, the same each time."""
        base = self.begin.load_model(self.config.seed)
        return RewardModel(base).to(self.world.device).train()

    def _fold(self, number: int, parted: Parted) -> list[list[float]]:
        """Scores of one fold's held-out rankings; kept, so that a rerun does not train it again."""
        folder = self.draft.path / "state" / f"fold-{number}"
        kept = folder / "scores.json"
        if not self.world.share(kept.is_file()):
            console.info(f"{parted.how}: {len(parted.train):,} rankings to train on")
            folder.mkdir(parents=True, exist_ok=True)
            begun = read_json(folder / RUN) if (folder / RUN).is_file() else {"decided": {}}
            draft = dataclasses.replace(self.draft, path=folder, run={**self.draft.run, **begun})
            run = _Run(self, parted, draft)
            run.train()
            scores = run.scores(parted.held_out)
            if self.world.is_main:
                write_json(kept, scores)
            self.world.wait()
        if self.world.is_main:
            shutil.rmtree(folder / "state", ignore_errors=True)
        found = read_json(kept)
        if not isinstance(found, list) or len(found) != len(parted.held_out):
            raise Mismatch(f"{kept}: scores of other rankings; start anew with --force")
        return found

    def _finish(self, run: _Run, loop: Loop, judgement: Judgement) -> dict[str, Any]:
        weights = gather(loop.model.state_dict(), self.world)
        report = judgement.report() if judgement.entries else {}
        if self.world.is_main:
            path = Path(self.draft.path)
            save_reward_model(weights, run.shape, path, self.tokenizer, pad_id=self.pad_id)
            draw_loss(read_metrics(path / "metrics.jsonl"), path / "loss.svg", per="ranking")
            if report:
                judgement.write(path, report)
            loop.checkpoints.keep_only(run.tuning.plan.steps)  # the folds' scores stay as well
        self.world.wait()
        return {
            "head": "reward",
            "parameters": run.n_params,
            "family": run.shape.family,
            "steps": run.tuning.plan.steps,
            "rankings": len(run.parted.train),
            "pairs": sum(len(e.encoded.pairs) for e in run.parted.train),
            "seq_len": self.seq_len,
            "skipped_steps": len(loop.state.skipped),
            **_summary(report),
        }


def _summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report's main numbers, for the manifest."""
    if not report:
        return {}
    return {
        "accuracy": report["model"]["accuracy"],
        "accuracy95": report["model"]["wilson95"],
        "held_out_pairs": report["model"]["pairs"],
        "floors": {name: floor["accuracy"] for name, floor in report["floors"].items()},
        "below_floor": report["below_floor"],
        "val_loss": report["loss"],
        "score_mean": report["score_mean"],
        "score_std": report["score_std"],
    }


class _Run:
    """One training, of a fold or of the artifact itself."""

    def __init__(self, whole: RmTraining, parted: Parted, draft: Draft) -> None:
        self.parted, self.world = parted, whole.world
        config, world = whole.config, whole.world
        self.config = config
        self.model = whole.model()
        self.shape, self.n_params = self.model.config, self.model.n_params()
        encoded = [e.encoded for e in parted.train]
        shared = world.device.type == "cpu"
        sizes = [n_tokens(r, shared) for r in encoded]
        total = max(1, round(config.epochs * len(encoded)))
        per_step = min(config.batch, total)
        tokens = math.ceil(sum(sizes) / len(sizes) * per_step)
        self.tuning = Tuning(
            config,
            draft,
            world,
            shape=self.shape,
            steps=config.steps or math.ceil(total / per_step),
            tokens_per_step=tokens,
            seq_len=ROW,
            rows_per_step=world.size * max(1, round(tokens / ROW / world.size)),
            facts={"data": [len(encoded), sum(sizes)], "per_step": per_step},
            reason=f"{config.epochs:g} epochs of {len(encoded):,} rankings",
        )
        self.batches = RankingBatches(
            encoded,
            per_step=per_step,
            total=config.steps * per_step or total,
            seed=derive(config.seed, "order"),
            shared=shared,
            lanes=self.tuning.machine.lanes,
            world=world,
        )

    def train(self) -> Loop:
        """To the end of the plan."""
        config = self.config
        loss_fn = make_loss(
            self.model,
            self.tuning.dtype,
            self.batches.tally,
            margin=config.margin,
            centering=config.centering,
        )
        hooks = [Hook(self.tuning.plan.eval_steps, self._validate)] if self.parted.held_out else []
        self.tuning.say()
        return self.tuning.fit(self.model, self.batches, loss_fn, hooks, [ACCURACY])

    def _validate(self, step: int) -> dict[str, Any]:
        judgement = Judgement("", list(self.parted.held_out), self.scores(self.parted.held_out))
        found, loss = agreement(judgement.outcomes(judgement.scores)), judgement.loss()
        self.tuning.meter.say(
            f"step {step:,}: held out {found.accuracy:.1%} of {found.pairs:,} pairs right, "
            f"loss {loss:.4f}"
        )
        return {"val_loss": loss, "val_accuracy": found.accuracy}

    def scores(self, entries: Sequence[Entry]) -> list[list[float]]:
        """Every response's score; ranks share the work, lanes too."""
        world, lanes = self.world, Lanes(self.tuning.machine.lanes)  # the loop ends its own
        mine = [e.encoded for e in entries][world.rank :: world.size]
        parts = [mine[i :: lanes.n] for i in range(lanes.n)]

        def score(part: list[Encoded]) -> list[list[float]]:
            return score_all(self.model, part, self.tuning.dtype)

        with self.tuning.prepared():
            self.model.eval()
            done = lanes.map(score, parts)
            self.model.train()
        lanes.close()
        own = [done[i % lanes.n][i // lanes.n] for i in range(len(mine))]
        offsets = [0]
        for entry in entries:
            offsets.append(offsets[-1] + len(entry.encoded.responses))
        flat = [0.0] * offsets[-1]
        for n, values in enumerate(own):
            at = offsets[world.rank + n * world.size]
            flat[at : at + len(values)] = values
        every = world.sum(flat)
        return [every[a:b] for a, b in zip(offsets, offsets[1:])]
