"""llmctl rl: a chat model and problems -> a better one, by trying and being graded.

Reads a model with a chat format, and with --data problems (prompt, answer), GSM8K or MBPP JSONL;
by default the problems of the synthetic web it was made from. For each prompt a group of answers is
drawn from the live weights, graded, and compared within the group (GRPO). --reward is a verifier
(math, exact, regex, python-tests) or the folder of a reward model; against a reward model --data
may also be preferences or conversations, whose prompts are taken, and --gold names a held-out judge
that ends the run when the reward is over-optimised. Writes the model, metrics.jsonl, every rollout
(rollouts/step-000001.jsonl) and held-out answers (evals/). Killed and started again, the run goes
on and ends with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmctl.core.config import setting
from llmctl.core.errors import NoInput, UsageError
from llmctl.core.stage import Stage
from llmctl.train.settings import TuningConfig


@dataclass(frozen=True, kw_only=True)
class RlConfig(TuningConfig):
    """Train a chat model on verifiable rewards or a reward model."""

    data: str = setting("", "problems; empty: those of the web the model was made from")
    reward: str = setting(
        "auto",
        "auto (each problem names its verifier), math, exact, regex, python-tests, or the folder "
        "of a reward model",
    )
    gold: str = setting(
        "", "held-out judge beside the reward: a verifier, or another reward model's folder"
    )
    difficulty: tuple[str, ...] = setting((), "only problems whose meta.difficulty is one of these")
    system: str = setting("", "system message before each prompt")
    steps: int = setting(100, "updates of the weights", unit="updates")
    prompts_per_step: int = setting(8, "problems a step asks", unit="problems")
    group_size: int = setting(8, "answers to each problem, compared with each other")
    max_tokens: int = setting(128, "longest answer", unit="tokens")
    temperature: float = setting(1.0, "of the answers drawn; no cut goes with it")
    updates: int = setting(1, "updates made with one batch of answers; more reuse old answers")
    resample: int = setting(
        0, "further rounds of problems while groups are dead (DAPO's dynamic sampling)"
    )
    loss: str = setting(
        "dapo",
        "dapo: every token counts alike; dr-grpo: sum over a constant; grpo: mean of each answer",
        choices=("dapo", "dr-grpo", "grpo"),
    )
    scale: str = setting(
        "group",
        "what reward minus group mean is divided by: the group's deviation, the batch's, nothing",
        choices=("group", "batch", "none"),
    )
    leave_one_out: bool = setting(False, "compare with the mean of the other answers (RLOO)")
    clip_low: float = setting(0.2, "the ratio to the sampling policy may fall by")
    clip_high: float = setting(0.28, "and rise by; more than clip_low keeps exploring (DAPO)")
    kl_coef: float = setting(0.0, "weight of the KL to the start model, which is always shown")
    kl_budget: float = setting(
        0.0, "stop when KL to the start reaches this; 0: none", unit="nats an answer"
    )
    overlong: str = setting(
        "none",
        "answers cut off at max_tokens: graded as they are, without gradient, or with a penalty",
        choices=("none", "mask", "penalty"),
    )
    overlong_penalty: float = setting(1.0, "taken off their reward with overlong=penalty")
    format_weight: float = setting(
        0.0, "reward added for stating the answer findably (\\boxed, ####, 'The answer is')"
    )
    old: str = setting(
        "trainer",
        "log-probabilities the ratio compares with: recomputed, or those of the sampler",
        choices=("trainer", "sampler"),
    )
    tools: tuple[str, ...] = setting((), "tools the model may call: python, search")
    documents: str = setting("", "documents artifact that search looks into")
    # with gold, what is evaluated and when decides where the run ends, so both are payload
    eval_n: int = setting(200, "held-out problems asked at each evaluation")
    eval_steps: int = setting(0, "held-out evaluation every so many updates; 0: 5 a run")
    dead_stop: int = setting(
        200, "end (76) after so many steps without anything to learn from; 0: never"
    )
    max_bad: float = setting(0.01, "share of unusable rows in the data that is put up with")
    rollout_rows: int = setting(
        256, "answers drawn at once, at most; a resumed run keeps its first", payload=False
    )
    warmup: float = setting(0.05, "linear learning-rate warmup", unit="share of the steps")
    decay: float = setting(0.0, "decay at the end, along 1 - sqrt", unit="share of the steps")
    lr: float = setting(0.0, "peak learning rate; 0: 6e-5 at 256 wide, falling as 1/width")
    compile: str = setting(
        "off",
        "answers vary in length, so steps are never compiled",
        choices=("off",),
        payload=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2:
            raise UsageError(
                f"group_size={self.group_size}: an answer is compared with others to the same "
                "problem; at least 2, 8 is usual"
            )
        for name in (
            "steps",
            "prompts_per_step",
            "max_tokens",
            "updates",
            "eval_n",
            "rollout_rows",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.clip_low < 1:
            raise UsageError(f"clip_low={self.clip_low} must lie between 0 and 1")
        if not 0 < self.temperature <= 100:
            raise UsageError(f"temperature={self.temperature} must be above 0, at most 100")
        if self.prompts_per_step % self.nproc:
            raise UsageError(
                f"prompts_per_step={self.prompts_per_step} cannot be shared by nproc={self.nproc}"
            )
        if self.format_weight >= 1:
            raise UsageError(f"format_weight={self.format_weight} must be below 1, a right answer")
        if self.steps % self.updates:
            raise UsageError(
                f"steps={self.steps} is not a multiple of updates={self.updates}, which are made "
                "with one batch of answers"
            )


def run(config: RlConfig, inputs: list[Any], draft: Any) -> dict[str, Any]:
    """Sample, grade, learn, until the plan's steps are done or the guard stops it."""
    from llmctl.core.distributed import session
    from llmctl.train.rl import Reinforcement

    with session(config.device, config.rank_timeout) as world:
        return Reinforcement(config, inputs[0], draft, world).train()


def dry_run(config: RlConfig, inputs: list[Any]) -> None:
    """Say what the run would take at most: answers, FLOPs, memory, hours, money."""
    from llmctl.core import console
    from llmctl.core.hardware import wanted_gpu
    from llmctl.train.estimate import estimate
    from llmctl.train.rl_start import extent, open_start
    from llmctl.train.tuning import tuning_plan, uses_muon

    if not inputs:
        raise NoInput("rl --dry-run needs a model; train one first or name it")
    gpu = wanted_gpu(config.gpu)
    start = open_start(config, inputs[0])
    answers = config.steps // config.updates * config.prompts_per_step * config.group_size
    # of learning's FLOPs, a third is a forward pass: drawing, and asking the start model
    passes = (1 + config.resample) / config.updates + bool(config.kl_coef or config.kl_budget)
    plan = tuning_plan(
        config, start.shape, **extent(config, start), reason="every answer as long as it may be"
    )
    learning = estimate(
        start.shape,
        plan,
        gpu=gpu,
        gpus=config.nproc,
        mfu=config.mfu,
        price=config.price,
        micro_batch=config.micro_batch,
        muon=uses_muon(config),
    )
    rows: list[tuple[str, Any]] = [
        ("reward", config.reward),
        ("gold", config.gold or "-"),
        ("answers in all", answers),
        ("tokens drawn, at most", answers * config.max_tokens),
        *learning,
        ("to add for drawing and KL", f"{passes / 3:.0%} of FLOPs, hours and money, at least"),
        ("to add for the start model", f"{4 * start.shape.n_params() / 1e9:,.2f} GB of memory"),
    ]
    console.table("rl would take", ["what", "value"], rows, left=2)


STAGE = Stage(
    name="rl",
    version=1,
    summary="chat model + problems + a reward -> model",
    config=RlConfig,
    run=run,
    dry_run=dry_run,
    reads=("model", "foreign"),
    writes="model",
    upstream="sft",
    path_settings=("data", "reward", "gold", "documents"),
    volatile=(
        "metrics.jsonl",
        "reward.svg",
        "rollouts",
        "evals",
        "state",
        "train.log",
    ),
)
