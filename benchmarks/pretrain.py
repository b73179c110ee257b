"""Training speed: llmctl against transformers' Qwen3, same shape, same batch, AdamW, in one run.

    python benchmarks/pretrain.py                 # 1 thread, then all; eager and compiled
    python benchmarks/pretrain.py --threads 2 --modes eager

Rounds alternate between the two, so that other work on the machine hits both alike, and the figures
are medians over rounds. A step is forward, backward, clipping, optimizer; bf16 by autocast over
fp32 weights, random ids, no loader. llmctl runs as its stage does: lanes, each a thread with its
own micro-batches. transformers has its threads inside its operators and takes
the batch at once, and in two halves. Each is measured eager and compiled; the ratio compares the
best of each. tokens/s is by the wall clock, tokens/CPU s by the process's CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402

from llmctl.core.hardware import cpu_count, matmul_peak  # noqa: E402
from llmctl.data.batches import Batch  # noqa: E402
from llmctl.model.config import ModelConfig  # noqa: E402
from llmctl.model.transformer import Transformer  # noqa: E402
from llmctl.train.backward import Lanes  # noqa: E402
from llmctl.train.losses import compiled_next_token_loss, next_token_loss  # noqa: E402
from llmctl.train.optim import Optimizers, OptimSettings  # noqa: E402

LAYERS, WIDTH, HEADS, D_FF, VOCAB = 4, 256, 4, 704, 4096
LR, CLIP = 6e-4, 1.0
Step = Callable[[], float]


def ours(ids: torch.Tensor, targets: torch.Tensor, compiled: bool, lanes: int, micro: int) -> Step:
    """A step of llmctl's own: lanes over micro-batches."""
    shape = ModelConfig(
        vocab_size=VOCAB,
        n_layers=LAYERS,
        d_model=WIDTH,
        n_heads=HEADS,
        n_kv_heads=HEADS,
        head_dim=WIDTH // HEADS,
        d_ff=D_FF,
        max_seq_len=ids.shape[1],
    )
    model = Transformer(shape)
    model.init_weights(0)
    optimizer = Optimizers(model, OptimSettings(lr=LR))
    pool, cpu = Lanes(lanes), torch.device("cpu")
    work = [Batch(i, t, None) for i, t in zip(ids.split(micro), targets.split(micro))]

    def plain_loss(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return next_token_loss(batch, model.hidden, lambda: model.head_weight, torch.bfloat16)

    loss_fn = compiled_next_token_loss(model, torch.bfloat16) if compiled else plain_loss

    def step() -> float:
        if compiled and not getattr(step, "warm", False):
            loss_fn(work[0])[0].backward()  # compiled once, before the lanes share it
            optimizer.zero_grad()
            step.warm = True  # type: ignore[attr-defined]
        loss, count = pool.sum_gradients(work, loss_fn, optimizer.params, cpu)
        grads = [p.grad for p in optimizer.params if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads)) / float(count)
        torch._foreach_mul_(grads, min(1.0, CLIP / (norm + 1e-6)) / float(count))
        optimizer.step(LR)
        optimizer.zero_grad()
        return float(loss / count)

    return step


def theirs(ids: torch.Tensor, targets: torch.Tensor, compiled: bool, micro: int) -> Step:
    """A step of transformers' Qwen3 with fused AdamW, Trainer's default."""
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=D_FF,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=WIDTH // HEADS,
        max_position_embeddings=ids.shape[1],
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = transformers.Qwen3ForCausalLM(config).train()
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), fused=True)
    forward = torch.compile(model, dynamic=False) if compiled else model
    parts = ids.split(micro)

    def step() -> float:
        total = 0.0
        for part in parts:
            with torch.autocast("cpu", torch.bfloat16):
                loss = forward(input_ids=part, labels=part).loss / len(parts)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step


def measure(step: Step) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of one step."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(args: argparse.Namespace, threads: int) -> None:
    """All variants at one number of threads, alternating; a JSON line each, then the ratio."""
    generator = torch.Generator().manual_seed(0)
    size = (args.batch, args.seq_len)
    ids, targets = (torch.randint(0, VOCAB, size, generator=generator) for _ in range(2))
    steps: dict[tuple[str, str], Step] = {}
    for mode in args.modes:
        compiled = mode == "compiled"
        steps["llmctl", mode] = ours(ids, targets, compiled, threads, args.micro_batch)
        for micro in args.their_micro_batch:
            steps["transformers", f"{mode} {micro}"] = theirs(ids, targets, compiled, micro)
    times: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in steps}
    first = {}
    for (who, mode), step in steps.items():  # compiles with the threads it will run with
        torch.set_num_threads(1 if who == "llmctl" else threads)
        first[who, mode] = measure(step)[0]
        step()
    for _ in range(args.rounds):
        for (who, mode), step in steps.items():
            torch.set_num_threads(1 if who == "llmctl" else threads)
            times[who, mode].append(measure(step))
    tokens, best = args.batch * args.seq_len, {}
    for (who, mode), taken in times.items():
        wall, cpu = (statistics.median(t[i] for t in taken) for i in (0, 1))
        row = {"impl": who, "mode": mode, "threads": threads, "tokens_per_s": round(tokens / wall)}
        row["tokens_per_cpu_s"] = round(tokens / cpu)
        row["first_step_s"] = round(first[who, mode], 1)
        print(json.dumps(row), flush=True)
        for key in ("tokens_per_s", "tokens_per_cpu_s"):
            best[who, key] = max(best.get((who, key), 0), row[key])
    for key in ("tokens_per_s", "tokens_per_cpu_s"):
        mine, other = best["llmctl", key], best["transformers", key]
        print(f"{threads} threads, {key}: llmctl {mine:,} / transformers {other:,} = ", end="")
        print(f"{mine / other:.2f}x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, cpu_count()])
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"])
    parser.add_argument("--batch", type=int, default=16, help="rows a step")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--micro-batch", type=int, default=4, help="llmctl's rows at once")
    parser.add_argument("--their-micro-batch", type=int, nargs="+", default=[16, 8])
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    peak = matmul_peak(torch.device("cpu"), torch.bfloat16)
    print(f"bf16 matmul peak of one core: {peak / 1e9:.0f} GFLOP/s", file=sys.stderr)
    for threads in args.threads:
        compare(args, threads)


if __name__ == "__main__":
    main()
