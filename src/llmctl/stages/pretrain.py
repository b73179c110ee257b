"""llmctl pretrain: token bins -> a base model, as a Hugging Face folder.

Reads tokens (ours, or llm.c's bins), packs documents into rows, trains, and writes a folder that
transformers, vLLM and llama.cpp open. `depth` is the one dial: it sets width, heads, context,
batch, learning rate and horizon; each of them can be given instead. Killed and started again, the
run goes on from its last checkpoint and ends with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmctl.core.config import setting
from llmctl.core.errors import UsageError
from llmctl.core.stage import Stage
from llmctl.train.settings import TrainConfig

SHAPES = ("qwen3", "llama", "gpt2")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Train a base model on token bins."""

    depth: int = setting(4, "the one dial: layers; 4 a laptop, 12 GPT-2 124M, 24 a node")
    shape: str = setting("qwen3", "family of the model", choices=SHAPES)
    width: int = setting(0, "model width; 0: 64 x depth", unit="channels")
    heads: int = setting(0, "query heads; 0: width / 64")
    kv_heads: int = setting(0, "key/value heads; 0: half the heads, gpt2 all of them")
    d_ff: int = setting(0, "feed-forward width; 0: 8/3 x width (SwiGLU), gpt2 4 x")
    vocab_size: int = setting(0, "rows of the embedding; 0: the tokens' own", unit="ids")
    seq_len: int = setting(0, "context length; 0: from depth (256 at 4, 1024 at 12)", unit="tokens")
    batch_tokens: int = setting(0, "an update, over all ranks; 0: from depth", unit="tokens")
    steps: int = setting(
        0, "updates; 0: 20 tokens a parameter, at most 4 epochs of the data", unit="updates"
    )
    lr: float = setting(
        0.0, "peak learning rate; 0: 6e-3 (adamw 3e-3) at 256 wide, falling as 1/width"
    )
    optimizer: str = setting(
        "auto",
        "auto: muon for hidden matrices, adamw under fsdp",
        choices=("auto", "adamw", "muon"),
    )
    parallel: str = setting(
        "ddp",
        "several ranks: whole weights on each, or sharded (FSDP2; then auto means adamw)",
        choices=("ddp", "fsdp"),
    )
    init: str = setting("", "model folder whose weights and shape to start from")
    extend: str = setting("", "finished run to train on, to `steps` in all, from where it decayed")
    sample_prompt: str = setting("The", "what the samples continue", payload=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1:
            raise UsageError(f"depth must be at least 1, got {self.depth}")
        if self.init and self.extend:
            raise UsageError(
                "init and extend exclude each other: new run, or an old one trained on"
            )


def run(config: PretrainConfig, inputs: list[Any], draft: Any) -> dict[str, Any]:
    """Train a base model on token bins until the plan's steps are done."""
    from llmctl.core.distributed import session
    from llmctl.train.pretraining import Pretraining

    with session(config.device, config.rank_timeout) as world:
        return Pretraining(config, inputs[0], draft, world).train()


def dry_run(config: PretrainConfig, inputs: list[Any]) -> None:
    """Say what the run would take: parameters, FLOPs, memory, hours, money."""
    from llmctl.core import console
    from llmctl.core.hardware import wanted_gpu
    from llmctl.train.estimate import estimate
    from llmctl.train.shape import plan_of, shape_from, shape_of, uses_muon

    gpu = wanted_gpu(config.gpu)
    stats = inputs[0].stats if inputs else {}
    if given := config.extend or config.init:
        from llmctl.model.hf import load_config

        model = shape_from(config, load_config(given), vocab_size=stats.get("vocab_size", 0))
    else:
        model = shape_of(config, vocab_size=stats.get("vocab_size", 0), eot_id=stats.get("eot_id"))
    rows = estimate(
        model,
        plan_of(config, model, stats.get("train_tokens", 0)),
        gpu=gpu,
        gpus=config.nproc,
        mfu=config.mfu,
        price=config.price,
        micro_batch=config.micro_batch,
        sharded=config.parallel == "fsdp",
        muon=uses_muon(config),
    )
    console.table("pretrain would take", ["what", "value"], rows, left=2)


STAGE = Stage(
    name="pretrain",
    version=1,
    summary="token bins -> base model",
    config=PretrainConfig,
    run=run,
    dry_run=dry_run,
    reads=("tokens", "foreign"),
    writes="model",
    upstream="tokenize",
    path_settings=("init", "extend"),
    volatile=("metrics.jsonl", "loss.svg", "state", "train.log"),
)
