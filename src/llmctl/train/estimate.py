"""What a run will cost before it starts: parameters, FLOPs, memory, hours, money. No torch."""

from __future__ import annotations

from typing import Any

from llmctl.core.hardware import Gpu
from llmctl.model.config import ModelConfig
from llmctl.train.meter import duration
from llmctl.train.plan import Plan, auto_micro_batch, memory_per_rank

CHECKPOINT_BYTES = 12  # a parameter: fp32 weight and two moments


def estimate(
    model: ModelConfig,
    plan: Plan,
    *,
    gpu: Gpu,
    gpus: int,
    mfu: float,
    price: float,
    micro_batch: int = 0,
    sharded: bool = False,
    muon: bool = False,
) -> list[tuple[str, Any]]:
    """(what, value) rows: a table for --dry-run. price: money an hour and GPU; mfu: assumed."""
    rows = max(1, plan.rows_per_step // gpus)
    micro_batch = micro_batch or auto_micro_batch(model, rows, plan.seq_len, gpu.memory)
    memory = memory_per_rank(
        model, micro_batch, plan.seq_len, ranks=gpus, sharded=sharded, muon=muon
    )
    per_token = model.flops_per_token(plan.seq_len)
    total = per_token * plan.tokens
    step_seconds = per_token * plan.batch_tokens / (gpus * gpu.peak * mfu)
    hours = step_seconds * plan.steps / 3600
    gigabytes = 1e9
    wire = 0 if gpus == 1 else 2 * (gpus - 1) / gpus * 4 * model.n_params()
    return [
        ("model", describe(model)),
        ("parameters", model.n_params()),
        ("tokens an update", plan.batch_tokens),
        ("updates", plan.steps),
        ("tokens", plan.tokens),
        ("horizon", plan.reason),
        ("FLOPs a token", f"{per_token:.4g}"),
        ("FLOPs in all", f"{total:.4g}"),
        ("device", f"{gpus} x {gpu.name}, {gpu.peak / 1e12:,.3g} TFLOP/s each"),
        ("MFU (assumed)", f"{mfu:.1%}"),
        ("seconds an update", f"{step_seconds:,.3g}"),
        ("tokens/s", f"{plan.batch_tokens / step_seconds:,.0f}"),
        ("hours", f"{hours:,.3g} ({duration(hours * 3600)})"),
        ("device hours", f"{hours * gpus:,.4g}"),
        ("money", f"${hours * gpus * price:,.2f} at ${price:,.2f} a device hour" if price else "-"),
        ("micro-batch", f"{micro_batch} rows of {plan.seq_len:,} tokens"),
        ("memory a rank: weights", f"{memory.weights / gigabytes:,.2f} GB"),
        ("memory a rank: gradients", f"{memory.gradients / gigabytes:,.2f} GB"),
        ("memory a rank: optimizer", f"{memory.optimizer / gigabytes:,.2f} GB"),
        ("memory a rank: activations", f"{memory.activations / gigabytes:,.2f} GB"),
        ("memory a rank: all", f"{memory.total / gigabytes:,.2f} of {gpu.memory / 1e9:,.0f} GB"),
        ("on the wire a rank and update", f"{wire / gigabytes:,.2f} GB"),
        ("a checkpoint on disk", f"{CHECKPOINT_BYTES * model.n_params() / gigabytes:,.2f} GB"),
    ]


def describe(model: ModelConfig) -> str:
    """'qwen3: 4 layers, 256 wide, 4 heads (2 key/value), feed-forward 704, 4,096 ids'."""
    return (
        f"{model.family}: {model.n_layers} layers, {model.d_model} wide, {model.n_heads} heads "
        f"({model.n_kv_heads} key/value), feed-forward {model.d_ff}, {model.vocab_size:,} ids, "
        f"context {model.max_seq_len:,}"
    )
