"""What a run says before its first step and after its last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmctl.core import console
from llmctl.core.files import atomic_write
from llmctl.data.batches import PackedRows
from llmctl.model.config import ModelConfig
from llmctl.train.curve import svg_curve, text_curve
from llmctl.train.estimate import describe
from llmctl.train.machine import Machine
from llmctl.train.plan import Plan


def say_plan(
    shape: ModelConfig,
    plan: Plan,
    machine: Machine,
    rows: PackedRows,
    *,
    epochs: float,
    optimizer: str,
    peak: float,
) -> None:
    """Four lines: model, data, plan, machine. peak: FLOP/s of one thread or device."""
    console.info(f"model {describe(shape)}; {shape.n_params():,} parameters")
    console.info(
        f"data {rows.bins.n_tokens:,} tokens in {len(rows):,} rows of {plan.seq_len:,}, "
        f"{rows.padding:.2%} padding"
    )
    console.info(
        f"plan {plan.steps:,} updates of {plan.batch_tokens:,} = {plan.tokens:,} tokens, "
        f"{epochs:.2f} epochs ({plan.reason}); lr {plan.lr:.2e}"
    )
    how = "compiled" if machine.compile else "eager"
    console.info(
        f"on {machine.name}: {machine.dtype}, {how}, {optimizer}, micro-batch "
        f"{machine.micro_batch} rows, {machine.ranks} ranks x {machine.lanes} lanes x "
        f"{machine.threads} threads; peak {peak / 1e9:,.0f} GFLOP/s each"
    )


def draw_loss(rows: list[dict[str, Any]], path: Path, per: str = "token") -> None:
    """The training loss in the terminal; with the validation loss as an SVG at `path`."""
    train = [(float(r["step"]), float(r["loss"])) for r in rows if r.get("loss") is not None]
    val = [(float(r["step"]), float(r["val_loss"])) for r in rows if r.get("val_loss")]
    console.info(f"training loss, nats a {per}\n" + text_curve(train))
    svg = svg_curve({"train": train, "validation": val}, title=f"loss, nats a {per}")
    with atomic_write(path) as handle:
        handle.write(svg.encode())
