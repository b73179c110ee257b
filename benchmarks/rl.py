"""CPU seconds of a GRPO step: llmctl against TRL's GRPOTrainer, same model, prompts and settings.

    python benchmarks/rl.py --data gsm8k/train.jsonl       # three rounds of each, alternating
    python benchmarks/rl.py --only ours --rounds 1         # one side alone

A step: 8 prompts x 8 answers x 64 tokens drawn, graded by a cheap reward that varies within each
group, advantages, one update, bf16, one thread. The model is a random Qwen3 of 4 layers, 256 wide,
vocabulary 4096, its tokenizer trained on the questions. Every answer has its full 64 tokens: TRL by
min_new_tokens, llmctl by knowing no end. TRL runs at the fastest settings found: no reference
model, no activation checkpointing, transformers' own generate. llmctl runs as its stage does, with
everything that is written, and with its measured sample of KL. Sides alternate, each in a fresh
process; figures are medians over the steps after two of warm-up. Needs trl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

PROMPTS, ANSWERS, TOKENS, VOCAB = 8, 8, 64, 4096
WARMUP = 2


def distinct_words(text: str) -> float:
    """A cheap reward that varies within a group."""
    return len(set(text.split())) % 7 / 7


def questions(data: str) -> list[str]:
    """256 questions: of GSM8K where its file is given, else synthetic ones."""
    if data:
        with open(data) as lines:
            return [json.loads(line)["question"] for _, line in zip(range(256), lines)]
    from llmctl.synth.problems import problem_rows

    [rows] = problem_rows(0, 256)
    return [row["prompt"] for row in rows]


def prepare(folder: Path, asked: Sequence[str]) -> None:
    """A model folder that both sides open, and the questions beside it."""
    from small_model import make_model

    make_model(folder, asked, VOCAB)
    rows = [{"prompt": q, "answer": "1", "split": "train"} for q in asked]
    (folder.parent / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def ours(folder: Path, steps: int) -> dict[str, Any]:
    """The stage itself, its steps timed from one beginning of sampling to the next."""
    import torch

    from llmctl.artifacts.store import Draft, open_artifact
    from llmctl.core.distributed import World
    from llmctl.stages.rl import RlConfig
    from llmctl.train import rl
    from llmctl.train.rl_batches import RlBatches
    from llmctl.train.rollouts import Sampler

    class Distinct:
        name, verdicts = "distinct words", False

        def grade_all(self, answers: Any) -> list[float]:
            return [distinct_words(reply) for _, reply in answers]

    cpu: list[float] = []
    notes: list[dict[str, Any]] = []

    class Timed(RlBatches):
        def take(self, step: int, micro_batch: int) -> Any:
            cpu.append(time.process_time())
            return super().take(step, micro_batch)

        def metrics(self, step: int) -> dict[str, Any]:
            notes.append(super().metrics(step))
            return notes[-1]

    class Endless(Sampler):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.stop_ids = ()
            for engine in self.engines:
                engine.end_ids = frozenset()

    rl.RlBatches, rl.Sampler = Timed, Endless  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as out:
        config = RlConfig(
            data=str(folder.parent / "data.jsonl"),
            prompts_per_step=PROMPTS,
            group_size=ANSWERS,
            max_tokens=TOKENS,
            steps=WARMUP + steps,
            dtype="bf16",
            workers=1,
            device="cpu",
            lr=1e-5,
            save_steps=10**6,
        )
        draft = Draft(Path(out), "model", False, {"fingerprint": "benchmark"})
        world = World(0, 1, torch.device("cpu"))
        torch.set_num_threads(1)
        run = rl.Reinforcement(config, open_artifact(folder, ("foreign",)), draft, world)
        run.judge = Distinct()
        run.train()
    each = [b - a for a, b in zip(cpu[WARMUP:], cpu[WARMUP + 1 :])]
    rolled = [n["rollout_tokens_per_s"] for n in notes[WARMUP:]]
    return {
        "side": "llmctl",
        "steps": len(each),
        "cpu_s_per_step": statistics.median(each),
        "rollout_tokens_per_s": statistics.median(rolled),
        "drift": notes[-1].get("drift"),
    }


def trl(folder: Path, steps: int) -> dict[str, Any]:
    """TRL's trainer on the same folder."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    cpu: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *args: Any, **options: Any) -> None:
            cpu.append(time.process_time())

    def reward(completions: Any, **options: Any) -> list[float]:
        return [distinct_words(c[0]["content"]) for c in completions]

    rows = [json.loads(line) for line in open(folder.parent / "data.jsonl")]
    prompts = [{"prompt": [{"role": "user", "content": r["prompt"]}]} for r in rows]
    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out,
            max_steps=WARMUP + steps,
            per_device_train_batch_size=PROMPTS * ANSWERS,
            num_generations=ANSWERS,
            max_completion_length=TOKENS,
            generation_kwargs={"min_new_tokens": TOKENS},
            beta=0.0,
            learning_rate=1e-5,
            use_cpu=True,
            bf16=True,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder),
            args=config,
            reward_funcs=reward,
            train_dataset=Dataset.from_list(prompts),
            processing_class=AutoTokenizer.from_pretrained(folder),
            callbacks=[Watch()],
        ).train()
    each = [b - a for a, b in zip(cpu[WARMUP - 1 :], cpu[WARMUP:])]
    return {"side": "TRL", "steps": len(each), "cpu_s_per_step": statistics.median(each)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="", help="GSM8K's JSONL; none: synthetic problems")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="measured steps of a round")
    parser.add_argument("--only", choices=("ours", "trl"))
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        side = ours if args.only == "ours" else trl
        print(json.dumps(side(args.inside, args.steps)))
        return
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        prepare(folder, questions(args.data))
        for _ in range(args.rounds):
            for side in [args.only] if args.only else ["ours", "trl"]:
                words = [sys.executable, os.path.abspath(__file__), "--only", side]
                words += ["--inside", str(folder), "--steps", str(args.steps)]
                done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
                found.setdefault(side, []).append(json.loads(done.stdout.splitlines()[-1]))
                print(json.dumps(found[side][-1]), flush=True)
    each = {s: statistics.median(r["cpu_s_per_step"] for r in rows) for s, rows in found.items()}
    if len(each) == 2:
        ratio = each["ours"] / each["trl"]
        print(f"llmctl {each['ours']:.2f}, TRL {each['trl']:.2f} CPU s a step: {ratio:.2f}x")


if __name__ == "__main__":
    main()
