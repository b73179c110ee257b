"""The depth dial: one number sets a model's shape, its batch, learning rate and horizon.

Plain arithmetic without torch, so that --dry-run and --help stay fast. Every value the dial sets
can be given instead; 0 means "from the dial".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmctl.core.errors import UsageError
from llmctl.model.config import Family, ModelConfig

HEAD_DIM = 64
LONGEST_AUTO = 2048  # tokens of context that is trained on unless more is asked for
EPOCHS = 4  # repeating data up to here is as good as fresh (Muennighoff et al. 2023)
TOKENS_PER_PARAM = 20  # compute-optimal (Hoffmann et al. 2022, arXiv:2203.15556)
FEWEST_STEPS = 500  # a batch so large that fewer remain wastes the horizon


def dial(
    family: Family,
    vocab_size: int,
    depth: int,
    *,
    width: int = 0,
    heads: int = 0,
    kv_heads: int = 0,
    d_ff: int = 0,
    seq_len: int = 0,
    eot_id: int | None = None,
) -> ModelConfig:
    """The model at a depth: 64 channels a layer, heads of 64, half as many key/value heads."""
    width = width or HEAD_DIM * depth
    if width % HEAD_DIM and not heads:
        raise UsageError(
            f"width={width:,} is not a multiple of head_dim={HEAD_DIM}; give heads too"
        )
    heads = heads or width // HEAD_DIM
    if width % heads:
        raise UsageError(f"width={width:,} cannot be split into heads={heads}")
    gpt2 = family == "gpt2"
    seq_len = seq_len or seq_len_at(depth)
    return ModelConfig(
        family=family,
        vocab_size=vocab_size,
        n_layers=depth,
        d_model=width,
        n_heads=heads,
        n_kv_heads=kv_heads or (heads if gpt2 or heads % 2 else heads // 2),
        head_dim=width // heads,
        d_ff=d_ff or (4 * width if gpt2 else _up(8 * width / 3, HEAD_DIM)),
        max_seq_len=seq_len,
        norm_eps=1e-5 if gpt2 else 1e-6,
        tie_embeddings=True,
        bos_id=eot_id,
        eos_ids=() if eot_id is None else (eot_id,),
        pad_id=eot_id,
    )


def _up(value: float, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


def seq_len_at(depth: int) -> int:
    """Context length: 256 up to depth 4 (a laptop), 1024 at 12 (GPT-2's), 2048 from 17."""
    for limit, tokens in ((4, 256), (8, 512), (16, 1024)):
        if depth <= limit:
            return tokens
    return LONGEST_AUTO


def batch_tokens_at(depth: int, horizon: int, seq_len: int) -> int:
    """Tokens an update: 2,048 up to depth 4, doubling with each layer to 524,288 at 12, then 1M.

    Never so many that fewer than 500 updates remain of the horizon: small runs want small batches
    (the critical batch grows with the tokens already seen; McCandlish et al. 2018, 1812.06162).
    Measured at depth 4, AdamW, 393,216 tokens of synthetic pages, bits per byte: 1.43 in updates of
    2,048 tokens, 1.66 of 4,096, 1.88 of 8,192.
    """
    wanted = 2048 << min(9, max(0, depth - 4))
    while wanted > seq_len and horizon / wanted < FEWEST_STEPS:
        wanted //= 2
    return max(wanted // seq_len, 1) * seq_len


def lr_at(width: int, muon: bool) -> float:
    """Peak learning rate: 3e-3 at 256 wide, with Muon 6e-3, falling as 1/width (Yang et al. 2022).

    Measured at depth 4, Muon, 393,216 tokens in updates of 2,048: bits per byte 0.68 at 3e-3, 0.54
    at 6e-3.
    """
    return (6.0e-3 if muon else 3.0e-3) * min(1.0, 256 / width)


@dataclass(frozen=True)
class Horizon:
    """How many tokens to train on, and the rule that said so."""

    tokens: int
    reason: str


def horizon(n_params: int, train_tokens: int) -> Horizon:
    """The lesser of 20 tokens a parameter and 4 epochs of the data (train_tokens 0: unknown)."""
    optimal = TOKENS_PER_PARAM * n_params
    if train_tokens and EPOCHS * train_tokens < optimal:
        reason = f"{EPOCHS} epochs of {train_tokens:,} tokens; more repeats teach little"
        return Horizon(EPOCHS * train_tokens, reason)
    return Horizon(optimal, f"{TOKENS_PER_PARAM} tokens for each of {n_params:,} parameters")


@dataclass(frozen=True)
class Plan:
    """What the loop needs to know of a run before it starts; whole numbers, all of them final."""

    steps: int
    seq_len: int  # tokens
    batch_tokens: int  # tokens an update, over all ranks
    lr: float
    min_lr: float  # share of lr at the end of the decay
    warmup_steps: int
    decay_steps: int
    save_steps: int
    eval_steps: int
    reason: str  # why so many steps

    @property
    def rows_per_step(self) -> int:
        """Rows of seq_len tokens an update."""
        return self.batch_tokens // self.seq_len

    @property
    def tokens(self) -> int:
        """Tokens over the whole run."""
        return self.steps * self.batch_tokens

    @property
    def stable_end(self) -> int:
        """Updates done when the decay begins: a longer run goes on from here."""
        return self.steps - self.decay_steps


def make_plan(
    model: ModelConfig,
    *,
    train_tokens: int = 0,
    seq_len: int = 0,
    steps: int = 0,
    batch_tokens: int = 0,
    lr: float = 0.0,
    muon: bool = True,
    min_lr: float = 0.0,
    warmup: float = 0.04,
    decay: float = 0.3,
    save_steps: int = 0,
    eval_steps: int = 0,
) -> Plan:
    """Fill in what was left at 0. warmup and decay are shares of the steps."""
    seq_len = seq_len or min(model.max_seq_len, LONGEST_AUTO)
    aim = horizon(model.n_params(), train_tokens)
    if steps and batch_tokens:
        aim = Horizon(steps * batch_tokens, "as given")
    batch_tokens = batch_tokens or batch_tokens_at(model.n_layers, aim.tokens, seq_len)
    if batch_tokens % seq_len:
        raise UsageError(
            f"batch_tokens={batch_tokens:,} is not a multiple of seq_len={seq_len:,}; "
            f"{_up(batch_tokens, seq_len):,} is the next one"
        )
    reason = "as given" if steps else aim.reason
    steps = steps or max(1, math.ceil(aim.tokens / batch_tokens))
    return Plan(
        steps=steps,
        seq_len=seq_len,
        batch_tokens=batch_tokens,
        lr=lr or lr_at(model.d_model, muon),
        min_lr=min_lr,
        warmup_steps=min(steps, math.ceil(warmup * steps)),
        decay_steps=min(steps, round(decay * steps)),
        save_steps=save_steps or min(500, max(25, steps // 20)),
        eval_steps=eval_steps or max(25, steps // 10),
        reason=reason,
    )


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def memory_per_rank(
    model: ModelConfig,
    micro_batch: int,
    seq_len: int,
    *,
    ranks: int = 1,
    sharded: bool = False,
    muon: bool = False,
) -> Memory:
    """fp32 weights, gradients and moments; bf16 activations kept for the backward pass.

    Activations per token and layer in bf16 values, counted on our own block: two norms' inputs and
    outputs, q, k, v, attention output, residuals (about 8 D with grouped heads) and the MLP's
    inputs, gate, up and product (about 3 F); the loss head works in chunks and keeps its gradient.
    """
    n = model.n_params() / (ranks if sharded else 1)
    tokens = micro_batch * seq_len
    per_layer = 8 * model.d_model + 3 * model.d_ff
    activations = 2 * tokens * (model.n_layers * per_layer + 4 * model.d_model)
    return Memory(4 * n, 4 * n, (5 if muon else 8) * n, activations)


def divisor_at_most(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`: micro-batches of equal size."""
    return next(d for d in range(max(1, min(n, most)), 0, -1) if n % d == 0)


def auto_micro_batch(model: ModelConfig, rows: int, seq_len: int, memory: float) -> int:
    """Rows at once that fit a device's memory (bytes), a divisor of a rank's rows of a step."""
    fits = 1
    while fits < rows and memory_per_rank(model, 2 * fits, seq_len).total < 0.7 * memory:
        fits *= 2
    return divisor_at_most(rows, fits)
