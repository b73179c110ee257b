"""llmctl sft: a model and conversations -> a model that answers.

Reads a model: ours, or a Hugging Face folder (GPT-2, Llama, Qwen2, Qwen3). One that has a chat
template keeps it; a base model gets ours, and rows for its control tokens. Reads conversations
(--data): messages as TRL and `datasets` have them, ShareGPT, Alpaca, OASST trees, GSM8K, ours.
Loss is taken on what the assistant says, the end of its turns included, and on nothing else.
Several conversations share a row without seeing each other. Writes a Hugging Face folder with the
template in it, samples.jsonl with answers before and after, metrics.jsonl. --show-mask N trains
nothing: it prints conversations with what is trained on marked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core.config import setting
from llmctl.core.errors import NoInput, UsageError
from llmctl.core.stage import Stage
from llmctl.train.settings import TuningConfig

if TYPE_CHECKING:
    from llmctl.artifacts.store import Artifact, Draft
    from llmctl.data.conversations import SourceSpec

PROMPTS = (
    "Hello! Who are you?",
    "Who was Abraham Lincoln?",
    "Tom has 3 apples and buys 4 more. How many apples has he now?",
    "Tell me a short story about a fox.",
)


@dataclass(frozen=True, kw_only=True)
class SftConfig(TuningConfig):
    """Teach a model to answer, from conversations."""

    data: tuple[str, ...] = setting(
        (),
        "conversations: PATH, PATH=WEIGHT (passes of it in an epoch; 0.5: half of it in each), "
        "PATH#COLUMN=VALUE,… for some rows; none: those of the synthetic web behind the model",
    )
    epochs: float = setting(3.0, "passes over the mixture; `steps` overrides it")
    steps: int = setting(0, "updates; 0: from epochs", unit="updates")
    lr: float = setting(
        0.0, "peak learning rate; 0: 1e-3 at 256 wide, falling as width^-1.5 (muon: twice that)"
    )
    seq_len: int = setting(
        0, "longest conversation and row; 0: the model's context, at most 2,048", unit="tokens"
    )
    batch_tokens: int = setting(0, "an update, over all ranks; 0: 8 rows", unit="tokens")
    val_fraction: float = setting(0.02, "share of the conversations held out for validation")
    max_bad: float = setting(0.01, "share of unusable rows of a file that is accepted")
    sample_prompts: tuple[str, ...] = setting(
        PROMPTS, "questions answered before, during and after", payload=False
    )
    sample_tokens: int = setting(96, "longest sample", unit="tokens", payload=False)
    show_mask: int = setting(
        0, "print so many conversations with what is trained on marked, and train nothing"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epochs and not self.steps:
            raise UsageError("epochs=0 and steps=0: nothing would be trained; give one of them")
        for name in ("val_fraction", "max_bad"):
            if getattr(self, name) >= 1:
                raise UsageError(f"{name}={getattr(self, name)} is a share below 1")
        if self.sample_tokens < 1:
            raise UsageError(f"sample_tokens must be at least 1, got {self.sample_tokens}")


def run(config: SftConfig, inputs: list[Artifact], draft: Draft | None) -> dict[str, Any]:
    """Tune a model on conversations until the plan's steps are done, or show their masks."""
    if draft is None:
        show(config, inputs)
        return {}
    from llmctl.core.distributed import session
    from llmctl.train.sft import Sft

    [model] = inputs
    with session(config.device, config.rank_timeout) as world:
        return Sft(config, model, sources(config, model), draft, world).train()


def sources(config: SftConfig, model: Artifact) -> list[SourceSpec]:
    """The --data given, else the conversations of the web behind the model."""
    from llmctl.artifacts.lineage import find_upstream
    from llmctl.data.conversations import SourceSpec, parse_source

    if config.data:
        return [parse_source(word) for word in config.data]
    try:
        web = find_upstream(
            model,
            "web",
            "name conversations with --data PATH (JSONL with messages, ShareGPT, Alpaca, GSM8K, …)",
        )
    except NoInput as error:
        raise UsageError(str(error)) from None
    return [SourceSpec(web, 1.0, {})]


def show(config: SftConfig, inputs: list[Artifact]) -> None:
    """Print `show_mask` conversations of each source with their masks on stdout."""
    import os
    import sys

    from llmctl.train.sft_start import masked_texts
    from llmctl.view.mask import legend

    if not inputs:
        raise NoInput("sft --show-mask needs a model, for its tokenizer; name one")
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(legend(colour))
    for text in masked_texts(config, inputs[0], sources(config, inputs[0]), colour=colour):
        print(f"\n{text}", flush=True)


def dry_run(config: SftConfig, inputs: list[Artifact]) -> None:
    """Say what would be trained on and what it would take: FLOPs, memory, hours, money."""
    from llmctl.core import console
    from llmctl.core.hardware import wanted_gpu
    from llmctl.train.estimate import estimate
    from llmctl.train.sft_start import lr_share, open_start, read_chats, rows_a_step, steps_of
    from llmctl.train.tuning import tuning_plan, uses_muon

    if not inputs:
        raise NoInput("sft --dry-run needs a model; train one first or name it")
    gpu = wanted_gpu(config.gpu)
    start = open_start(inputs[0], config.seq_len)
    chats = read_chats(config, start, sources(config, inputs[0]))
    chats.say()
    seq_len = chats.train.seq_len
    n_rows = rows_a_step(config, seq_len)
    steps, reason = steps_of(config, chats, n_rows)
    plan = tuning_plan(
        config,
        start.shape,
        steps=steps,
        tokens_per_step=n_rows * seq_len,
        seq_len=seq_len,
        lr_share=lr_share(start.shape.d_model),
        reason=reason,
    )
    rows = estimate(
        start.shape,
        plan,
        gpu=gpu,
        gpus=config.nproc,
        mfu=config.mfu,
        price=config.price,
        micro_batch=config.micro_batch,
        muon=uses_muon(config),
    )
    console.table("sft would take", ["what", "value"], rows, left=2)


STAGE = Stage(
    name="sft",
    version=1,
    summary="model + conversations -> chat model",
    config=SftConfig,
    run=run,
    dry_run=dry_run,
    reads=("model", "foreign"),
    writes="model",
    upstream="pretrain",
    path_settings=("data",),
    volatile=("metrics.jsonl", "loss.svg", "state", "samples.jsonl"),
    text_mode=lambda config: config.show_mask > 0,
)
