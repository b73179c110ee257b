"""Settings that training stages have in common. No torch: --help and --dry-run read them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from llmctl.core.config import setting
from llmctl.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What every training stage asks; a stage's own config redeclares what it means otherwise."""

    lr: float = setting(0.0, "peak learning rate; 0: from the model's width")
    min_lr: float = setting(0.0, "at the end of the decay", unit="share of lr")
    warmup: float = setting(0.04, "linear learning-rate warmup", unit="share of the steps")
    decay: float = setting(0.3, "decay at the end, along 1 - sqrt", unit="share of the steps")
    optimizer: str = setting(
        "auto", "auto: adamw; muon for hidden matrices", choices=("auto", "adamw", "muon")
    )
    beta1: float = setting(0.9, "AdamW's memory of gradients")
    beta2: float = setting(0.95, "AdamW's memory of squared gradients")
    weight_decay: float = setting(0.1, "decoupled, on matrices; not embeddings, norms, biases")
    clip: float = setting(1.0, "largest gradient norm; 0: no clipping")
    dtype: str = setting(
        "auto",
        "of matrix products; auto: bf16 where the machine has it",
        choices=("auto", "fp32", "bf16"),
    )
    seed: int = setting(0, "of everything that is drawn: data order, and first weights")
    micro_batch: int = setting(0, "rows at once; 0: what fits", unit="rows", payload=False)
    compile: str = setting(
        "auto",
        "torch.compile; auto: when the run is long enough to pay for it",
        choices=("auto", "on", "off"),
        payload=False,
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:N", payload=False)
    workers: int = setting(0, "CPU threads; 0: all cores", payload=False)
    nproc: int = setting(1, "ranks on this machine, one a GPU (starts torchrun)", payload=False)
    rank_timeout: int = setting(300, "wait for other ranks", unit="seconds", payload=False)
    save_steps: int = setting(
        0, "checkpoint every so many updates; 0: about 20 a run", payload=False
    )
    eval_steps: int = setting(0, "validation every so many updates; 0: 5 a run", payload=False)
    sample_steps: int = setting(0, "sample text every so many updates; 0: 5 a run", payload=False)
    max_minutes: float = setting(0.0, "save and exit 75 after; 0: no limit", payload=False)
    price: float = setting(0.0, "of a device hour, to count the cost", unit="$", payload=False)
    gpu: str = setting("auto", "device --dry-run reckons with; auto: this machine's", payload=False)
    mfu: float = setting(0.4, "share of the peak --dry-run assumes", payload=False)

    def __post_init__(self) -> None:
        """UsageError (2) for nonsense, naming the numbers."""
        for name in ("nproc", "rank_timeout"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if type(value) in (int, float) and value < 0:
                raise UsageError(f"{name} must not be negative, got {value}")
        if self.warmup + self.decay > 1:
            raise UsageError(f"warmup={self.warmup} and decay={self.decay} are more than the run")
        for name in ("beta1", "beta2"):
            if getattr(self, name) >= 1:
                raise UsageError(f"{name} must be below 1, got {getattr(self, name)}")
        if not 0 < self.mfu <= 1 or self.min_lr > 1:
            raise UsageError(f"mfu={self.mfu} and min_lr={self.min_lr} are shares of 1")


@dataclass(frozen=True, kw_only=True)
class TuningConfig(TrainConfig):
    """Base of the stages that train an existing model on: sft, rm, rl."""

    lr: float = setting(
        0.0, "peak learning rate; 0: 3e-4 at 256 wide, falling as 1/width (muon: twice that)"
    )
    beta2: float = setting(0.999, "AdamW's memory of squared gradients")
    weight_decay: float = setting(0.0, "decoupled, on matrices; not embeddings, norms, biases")
