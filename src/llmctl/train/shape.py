"""A stage's settings as a model shape and a plan. No torch: --dry-run uses it too."""

from __future__ import annotations

import dataclasses
from typing import Any

from llmctl.core.errors import Mismatch, UsageError
from llmctl.model.config import ModelConfig
from llmctl.train.plan import Plan, dial, lr_at, make_plan

DEFAULT_VOCAB = 32_768  # for --dry-run before there are tokens


def shape_of(config: Any, *, vocab_size: int, eot_id: int | None) -> ModelConfig:
    """The model a PretrainConfig asks for, over the tokens' vocabulary (0: unknown yet)."""
    if config.vocab_size and config.vocab_size < vocab_size:
        raise UsageError(
            f"vocab_size={config.vocab_size:,} is less than the tokens' own {vocab_size:,}"
        )
    return dial(
        config.shape,
        config.vocab_size or vocab_size or DEFAULT_VOCAB,
        config.depth,
        width=config.width,
        heads=config.heads,
        kv_heads=config.kv_heads,
        d_ff=config.d_ff,
        seq_len=config.seq_len,
        eot_id=eot_id,
    )


def shape_from(config: Any, given: ModelConfig, *, vocab_size: int) -> ModelConfig:
    """The shape of a model trained on from (`init`), its context at least the run's."""
    if given.vocab_size < vocab_size:
        raise Mismatch(
            f"{config.init or config.extend}: {given.vocab_size:,} ids, but the tokens have "
            f"{vocab_size:,}; "
            f"tokenize with this model's tokenizer (--tokenizer {config.init})"
        )
    if config.seq_len <= given.max_seq_len:
        return given
    if given.family == "gpt2":
        raise UsageError(
            f"seq_len={config.seq_len:,}: {config.init} has {given.max_seq_len:,} positions"
        )
    return dataclasses.replace(given, max_seq_len=config.seq_len)


def refuse_ignored(config: Any, source: str, shape: ModelConfig, plan: Plan | None) -> None:
    """UsageError (2) for a setting that the model or run trained on from decides otherwise.

    plan: the old run's, for `extend`; `init` begins a schedule of its own.
    """
    decided: dict[str, Any] = {
        "depth": shape.n_layers,
        "shape": shape.family,
        "width": shape.d_model,
        "heads": shape.n_heads,
        "kv_heads": shape.n_kv_heads,
        "d_ff": shape.d_ff,
        "vocab_size": shape.vocab_size,
    }
    if plan is not None:
        for name in ("seq_len", "batch_tokens", "lr", "min_lr"):
            decided[name] = getattr(plan, name)
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    for name, value in decided.items():
        if (given := getattr(config, name)) not in (defaults[name], value):
            raise UsageError(f"{name}={given} is not open: {source} has {value}; leave it out")


def uses_muon(config: Any) -> bool:
    """Whether hidden matrices get Muon; it cannot work on weights that FSDP has split."""
    return config.optimizer == "muon" or (config.optimizer == "auto" and config.parallel != "fsdp")


def plan_of(config: Any, model: ModelConfig, train_tokens: int) -> Plan:
    """The plan of a run over so many tokens (0: unknown)."""
    lr, muon = config.lr, uses_muon(config)
    if config.init and not lr:
        lr = lr_at(model.d_model, muon) / 10  # weights that know something move little
    return make_plan(
        model,
        train_tokens=train_tokens,
        seq_len=config.seq_len,
        steps=config.steps,
        batch_tokens=config.batch_tokens,
        lr=lr,
        muon=muon,
        min_lr=config.min_lr,
        warmup=config.warmup,
        decay=config.decay,
        save_steps=config.save_steps,
        eval_steps=config.eval_steps,
    )
