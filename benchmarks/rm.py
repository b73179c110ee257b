"""Reward-model training: llmctl against TRL's RewardTrainer, same model, same data, in one run.

    pip install trl
    python benchmarks/rm.py                           # made-up dialogues
    python benchmarks/rm.py --data hh.jsonl           # any preferences of pairs
    python benchmarks/rm.py --cases rankings --steps 12

Both start from the same folder (Qwen3, 4 layers, 256 wide, 4 query and 2 key/value heads, MLP 768,
4,096 ids), one thread, bf16 by autocast, fused AdamW, clipping, conversations of at most 512
tokens. Case `pairs`: 8 pairs an update. Case `rankings`: five responses to each prompt; TRL knows
pairs only, so it gets the ten pairs of each. TRL has the settings that were found fastest on a CPU:
pairs of like length together, no activation checkpointing; its batches by length come in blocks of
50 steps, so that a whole block is measured. Steps alternate between the two, so that other work on
the machine hits both alike; a step is timed with its loader and logging. Figures are pairs per
second of the process's CPU time, over all steps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

for name, value in {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}.items():
    os.environ.setdefault(name, value)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch  # noqa: E402
from small_model import make_model  # noqa: E402

from llmctl.core.distributed import World  # noqa: E402
from llmctl.data.preferences import Ranking, read_preferences  # noqa: E402
from llmctl.model.reward import load_reward_model  # noqa: E402
from llmctl.reward.encode import Encoder  # noqa: E402
from llmctl.tokenizer.bpe import Tokenizer  # noqa: E402
from llmctl.tokenizer.chat import chat_format  # noqa: E402
from llmctl.train.backward import Lanes  # noqa: E402
from llmctl.train.optim import Optimizers, OptimSettings  # noqa: E402
from llmctl.train.rm_batches import RankingBatches, make_loss  # noqa: E402

VOCAB, LONGEST, LR, CLIP, BATCH, K = 4096, 512, 1e-3, 1.0, 8, 5
CPU = torch.device("cpu")


def made_up(n: int = 1200) -> list[Ranking]:
    """Dialogues of one or two questions and two answers, of words drawn by Zipf's law."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(6000)]
    shares = [1 / (rank + 3) for rank in range(len(words))]

    def text(mean: float) -> str:
        size = max(3, int(rng.lognormvariate(0, 0.7) * mean))
        return " ".join(rng.choices(words, shares, k=min(size, 120)))

    made = []
    for _ in range(n):
        prompt = [{"role": "user", "content": text(20)}]
        if rng.random() < 0.6:
            prompt += [{"role": "assistant", "content": text(25)}]
            prompt += [{"role": "user", "content": text(15)}]
        made.append(Ranking(prompt, [text(25), text(25)], [1, 2]))
    return made


def of_five(pairs: list[Ranking]) -> list[Ranking]:
    """Each prompt with its own two responses and those of the next ones, in an order."""
    made = []
    for i, ranking in enumerate(pairs):
        others = [pairs[(i + j) % len(pairs)].responses[0] for j in range(1, K - 1)]
        made.append(Ranking(ranking.prompt, [*ranking.responses, *others], list(range(1, K + 1))))
    return made


def fitting(tokenizer: Tokenizer, rankings: list[Ranking]) -> tuple[list[Ranking], list[Any]]:
    """The rankings whose every conversation has at most LONGEST tokens, and their ids."""
    format = chat_format(tokenizer)
    assert format is not None
    encoded = Encoder(format, 1 << 20).encode(rankings)
    kept = [
        (r, e)
        for r, e in zip(rankings, encoded)
        if e is not None and len(e.prompt) + max(map(len, e.responses)) <= LONGEST
    ]
    return [r for r, _ in kept], [e for _, e in kept]


class Ours:
    """llmctl's step, as its stage does it."""

    def __init__(self, folder: Path, encoded: list[Any], per_step: int) -> None:
        self.model = load_reward_model(folder).train()
        self.optimizer = Optimizers(self.model, OptimSettings(lr=LR, weight_decay=0.0))
        self.batches = RankingBatches(
            encoded,
            per_step=per_step,
            total=1 << 30,
            seed=0,
            shared=True,
            lanes=1,
            world=World(0, 1, CPU),
        )
        tally = self.batches.tally
        self.loss_fn = make_loss(self.model, torch.bfloat16, tally, margin=0.0, centering=0.0)
        self.lanes, self.step, self.loss = Lanes(1), 0, 0.0

    def run(self) -> int:
        """One update; its pairs."""
        params = self.optimizer.params
        loss, count = self.lanes.sum_gradients(
            self.batches.take(self.step, 1), self.loss_fn, params, CPU
        )
        grads = [p.grad for p in params if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads)) / float(count)
        torch._foreach_mul_(grads, min(1.0, CLIP / (norm + 1e-6)) / float(count))
        self.optimizer.step(LR)
        self.optimizer.zero_grad()
        self.loss, self.step = float(loss / count), self.step + 1
        return self.batches.tally.n


def their_rows(rankings: list[Ranking], encoded: list[Any]) -> list[dict[str, Any]]:
    """Chosen and rejected of every pair, with how long the longer is."""
    rows = []
    for ranking, ids in zip(rankings, encoded):
        for better, worse in ranking.pairs:
            longest = max(len(ids.responses[i]) for i in (better, worse))
            rows.append(
                {
                    "prompt": ranking.prompt,
                    "chosen": ranking.turns(better),
                    "rejected": ranking.turns(worse),
                    "length": len(ids.prompt) + longest,
                }
            )
    return rows


def compare(case: str, folder: Path, rows: list[Any], ours: Ours, steps: int, warmup: int) -> None:
    """Let TRL train, with a step of ours after each of its own; a JSON line each, the ratio."""
    import datasets
    import transformers
    import trl

    datasets.disable_progress_bars()
    theirs: list[tuple[int, float]] = []
    mine: list[tuple[int, float]] = []

    class Alternate(transformers.TrainerCallback):
        started = 0.0

        def on_step_begin(self, *args: Any, **options: Any) -> None:
            self.started = self.started or time.process_time()

        def on_step_end(self, *args: Any, **options: Any) -> None:
            now = time.process_time()
            theirs.append((BATCH, now - self.started))
            pairs = ours.run()
            self.started = time.process_time()
            mine.append((pairs, self.started - now))

    config = trl.RewardConfig(
        output_dir=str(folder / "trl"),
        max_steps=steps + warmup,
        per_device_train_batch_size=BATCH,
        max_length=LONGEST,
        bf16=True,
        use_cpu=True,
        activation_checkpointing=False,
        remove_unused_columns=False,
        train_sampling_strategy="group_by_length",
        learning_rate=LR,
        max_grad_norm=CLIP,
        save_strategy="no",
        report_to="none",
        logging_steps=5,
        disable_tqdm=True,
        seed=0,
    )
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32
    )
    trainer = trl.RewardTrainer(
        model=model,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder),
        callbacks=[Alternate()],
    )
    trainer.train()
    loss = next(r["loss"] for r in reversed(trainer.state.log_history) if "loss" in r)
    rates = {}
    for who, taken, last in (("llmctl", mine, ours.loss), ("trl", theirs, loss)):
        pairs, seconds = (sum(column) for column in zip(*taken[warmup:]))
        rates[who] = pairs / seconds
        row = {"case": case, "impl": who, "pairs_per_cpu_s": round(rates[who], 2)}
        print(json.dumps(row | {"last_loss": round(float(last), 3)}), flush=True)
    print(
        f"{case}: trl {trl.__version__}, transformers {transformers.__version__}, torch "
        f"{torch.__version__}: {rates['llmctl'] / rates['trl']:.2f}x",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="preferences of pairs; any form")
    parser.add_argument("--cases", nargs="*", default=["pairs", "rankings"])
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--warmup", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HF_DATASETS_CACHE"] = f"{scratch}/datasets"
        pairs = read_preferences(args.data).rows if args.data else made_up()
        texts = [str(m["content"]) for r in pairs for m in [*r.prompt, *r.turns(0), *r.turns(1)]]
        tokenizer = make_model(Path(scratch) / "model", texts, VOCAB, reward=True)
        for case in args.cases:
            whole = pairs if case == "pairs" else of_five(pairs)
            rankings, encoded = fitting(tokenizer, whole)
            rows = their_rows(rankings, encoded)
            if case == "rankings":  # TRL tokenizes every pair: as many as it will see
                rows = list(itertools.islice(rows, 50 * BATCH * 4))
            ours = Ours(Path(scratch) / "model", encoded, BATCH if case == "pairs" else 4)
            compare(case, Path(scratch) / "model", rows, ours, args.steps, args.warmup)


if __name__ == "__main__":
    main()
