"""llmctl rm: model + rankings -> a reward model, as a Hugging Face folder with one label.

Reads a model and preferences (ranked responses, chosen/rejected, HH-RLHF, OASST, Auto-J, PandaLM,
LLaMA-Factory; the form is detected and said), trains Bradley-Terry over all pairs of each ranking,
and writes a folder that AutoModelForSequenceClassification opens with the same scores. On rankings
held out by prompt it reports how often the model agrees with people, beside two rules that need no
model: prefer the longer, and a linear model of words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmctl.core.config import setting
from llmctl.core.errors import NoInput, UsageError
from llmctl.core.stage import Stage
from llmctl.train.settings import TuningConfig

CHARS_PER_TOKEN = 4  # for --dry-run, which encodes nothing


@dataclass(frozen=True, kw_only=True)
class RmConfig(TuningConfig):
    """Train a reward model on rankings."""

    data: tuple[str, ...] = setting(
        (), "preferences: file, folder or web artifact, repeatable; none: the model's own web"
    )
    batch: int = setting(16, "of an update, each with all of its responses", unit="rankings")
    epochs: float = setting(1.0, "passes over the rankings; a second one soon overfits")
    steps: int = setting(0, "updates; 0: from epochs", unit="updates")
    seq_len: int = setting(
        0, "longest prompt with a response; 0: what the model reads, at most 2,048", unit="tokens"
    )
    val_fraction: float = setting(
        0.1, "held out where the data has no split of its own", unit="share of the prompts"
    )
    folds: int = setting(
        0, "0: none; K: judge by K trainings, each holding out 1/K, then train on everything"
    )
    margin: float = setting(0.0, "by which the better response must win", unit="score")
    centering: float = setting(
        0.0, "pull of scores towards zero, times (better + worse)^2; 0.01 is usual"
    )
    max_bad: float = setting(0.01, "damaged rows that are tolerated", unit="share of the rows")
    warmup: float = setting(0.1, "linear learning-rate warmup", unit="share of the steps")
    decay: float = setting(0.9, "decay at the end, along 1 - sqrt", unit="share of the steps")
    sample_steps: int = setting(0, "no use here: a reward model writes no text", payload=False)
    compile: str = setting(
        "off", "rows are as long as their rankings, so nothing is compiled", choices=("off",)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_steps:
            raise UsageError(
                f"sample_steps={self.sample_steps}: a reward model writes no text to sample; leave "
                "it at 0"
            )
        if self.batch < 1:
            raise UsageError(f"batch must be at least 1, got {self.batch}")
        if not self.steps and not self.epochs:
            raise UsageError("epochs=0 and steps=0: give one of them")
        if not self.val_fraction < 1 or not self.max_bad <= 1:
            raise UsageError(
                f"val_fraction={self.val_fraction} and max_bad={self.max_bad} are shares of 1"
            )
        if self.folds == 1:
            raise UsageError("folds=1 would hold out everything; give 0, or 2 and more")


def run(config: RmConfig, inputs: list[Any], draft: Any) -> dict[str, Any]:
    """Train on rankings, judge on held-out ones, write the folder."""
    from llmctl.core.distributed import session
    from llmctl.train.rm import RmTraining

    with session(config.device, config.rank_timeout) as world:
        return RmTraining(config, inputs[0], draft, world).train()


def dry_run(config: RmConfig, inputs: list[Any]) -> None:
    """Say what would be read and what the run would take."""
    from llmctl.core import console
    from llmctl.core.hardware import wanted_gpu
    from llmctl.data.preferences import read_preferences
    from llmctl.model.hf import load_config
    from llmctl.train.estimate import estimate
    from llmctl.train.rm_data import paths_of
    from llmctl.train.tuning import tuning_plan, uses_muon

    if not inputs:
        raise NoInput("rm --dry-run needs a model; train one first or name it")
    gpu = wanted_gpu(config.gpu)
    shape = load_config(inputs[0].path)
    chars, rankings = 0, 0
    for path in paths_of(config.data, inputs[0]):
        found = read_preferences(path, max_bad=config.max_bad)
        console.info(
            f"{path}: {found.format}, {len(found.rows):,} rankings, {found.n_pairs:,} pairs"
        )
        rankings += len(found.rows)
        chars += sum(len(r.prompt_key) for r in found.rows)
        chars += sum(len(r.text(i)) for r in found.rows for i in range(len(r.responses)))
    tokens = chars // CHARS_PER_TOKEN // rankings + 1
    steps = (1 + config.folds) * config.steps  # each fold takes as many as the last training
    if not steps:
        runs = 1 + config.folds * (1 - 1 / config.folds) if config.folds else 1
        steps = max(1, round(runs * config.epochs * rankings / config.batch))
    passes = f"{config.epochs:g} epochs of " if not config.steps else ""
    plan = tuning_plan(
        config,
        shape,
        steps=steps,
        tokens_per_step=tokens * config.batch,
        seq_len=tokens,
        reason=f"{passes}{rankings:,} rankings of about {tokens:,} tokens",
    )
    rows = estimate(
        shape,
        plan,
        gpu=gpu,
        gpus=config.nproc,
        mfu=config.mfu,
        price=config.price,
        muon=uses_muon(config),
    )
    console.table("rm would take", ["what", "value"], rows, left=2)


STAGE = Stage(
    name="rm",
    version=1,
    summary="model + rankings -> reward model",
    config=RmConfig,
    run=run,
    dry_run=dry_run,
    reads=("model", "foreign"),
    writes="model",
    upstream="sft",
    path_settings=("data",),
    volatile=("metrics.jsonl", "loss.svg", "state", "train.log"),
)
