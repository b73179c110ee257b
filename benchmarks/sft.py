"""Tuning speed: llmctl against TRL's SFTTrainer, same model, same data, in one run on one thread.

    pip install trl
    python benchmarks/sft.py                          # made-up conversations
    python benchmarks/sft.py --data chats.jsonl more.jsonl --steps 40

Both start from the same folder (Qwen3, 4 layers, 256 wide, 4 query and 2 key/value heads, MLP 768,
4,096 ids, tied) and take an update a pack of 512 tokens: bf16 by autocast, fused AdamW, clipping,
loss on the assistant's tokens only. TRL has the settings that were found fastest on a CPU:
best-fit packing, one pack a step, no activation checkpointing. A step of either is timed with all
that belongs to it, loader and logging included; steps alternate, so that other work on the machine
hits both alike. Figures are real tokens (padding is none) per second of the process's CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

for name, value in {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}.items():
    os.environ.setdefault(name, value)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch  # noqa: E402
from small_model import make_model  # noqa: E402

from llmctl.data.conversations import Conversation, read_conversations  # noqa: E402
from llmctl.data.masked import MaskedBatches, MaskedRows, MaskedSequences  # noqa: E402
from llmctl.model.hf import load_model  # noqa: E402
from llmctl.tokenizer.bpe import Tokenizer  # noqa: E402
from llmctl.tokenizer.chat import chat_format  # noqa: E402
from llmctl.train.backward import Lanes  # noqa: E402
from llmctl.train.losses import trained_token_loss  # noqa: E402
from llmctl.train.optim import Optimizers, OptimSettings  # noqa: E402

VOCAB, ROW, LR, CLIP = 4096, 512, 1e-3, 1.0
Messages = list[dict[str, Any]]


def made_up(n: int = 3000) -> list[Messages]:
    """Questions of some 30 words and answers of some 80, of words drawn by Zipf's law."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(6000)]
    shares = [1 / (rank + 3) for rank in range(len(words))]

    def text(mean: float) -> str:
        size = max(3, int(rng.lognormvariate(0, 0.7) * mean))
        return " ".join(rng.choices(words, shares, k=min(size, 160)))

    def pair() -> Messages:
        said = [{"role": "user", "content": text(30)}]
        return [*said, {"role": "assistant", "content": text(80)}]

    return [pair() for _ in range(n)]


def conversations(paths: list[Path]) -> list[Messages]:
    """Those of the files, or made up. With tool calls left out: TRL has another form for them."""
    if not paths:
        return made_up()
    found: list[Conversation] = []
    for path in paths:
        found += read_conversations(path, max_bad=0.5).rows
    return [c.messages for c in found if not any("tool_calls" in m for m in c.messages)]


class Ours:
    """llmctl's step, as its stage does it."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, chats: list[Messages]) -> None:
        format = chat_format(tokenizer)
        assert format is not None
        rendered = [r for r in format.render_many(chats) if len(r.ids) <= ROW and any(r.mask)]
        rows = MaskedRows(
            [MaskedSequences.of(rendered)],
            seq_len=ROW,
            vocab_size=VOCAB,
            pad_id=tokenizer.eot_id,
            seed=0,
        )
        self.batches = MaskedBatches(rows, rows_per_step=1)
        self.model = load_model(folder).train()
        self.optimizer = Optimizers(self.model, OptimSettings(lr=LR, weight_decay=0.0))
        self.lanes, self.step = Lanes(1), 0
        self.target_share = rows.n_targets / rows.n_tokens

    def run(self) -> int:
        """One update; its tokens."""

        def loss_fn(batch: Any) -> Any:
            model = self.model
            return trained_token_loss(
                batch, model.hidden, lambda: model.head_weight, torch.bfloat16
            )

        work = self.batches.take(self.step, 1)
        params, cpu = self.optimizer.params, torch.device("cpu")
        loss, count = self.lanes.sum_gradients(work, loss_fn, params, cpu)
        grads = [p.grad for p in params if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads)) / float(count)
        torch._foreach_mul_(grads, min(1.0, CLIP / (norm + 1e-6)) / float(count))
        self.optimizer.step(LR)
        self.optimizer.zero_grad()
        self.loss = float(loss / count)
        self.step += 1
        return self.batches.tokens(self.step - 1)


def compare(folder: Path, chats: list[Messages], ours: Ours, steps: int, warmup: int) -> None:
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
            theirs.append((tokens[-1], now - self.started))
            seen = ours.run()
            self.started = time.process_time()
            mine.append((seen, self.started - now))

    config = trl.SFTConfig(
        output_dir=str(folder / "trl"),
        max_steps=steps + warmup,
        per_device_train_batch_size=1,
        max_length=ROW,
        packing=True,
        packing_strategy="bfd",
        assistant_only_loss=True,
        bf16=True,
        use_cpu=True,
        activation_checkpointing=False,
        learning_rate=LR,
        max_grad_norm=CLIP,
        save_strategy="no",
        report_to="none",
        logging_steps=5,
        disable_tqdm=True,
    )
    trainer = trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=config,
        train_dataset=datasets.Dataset.from_list([{"messages": chat} for chat in chats]),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder),
        callbacks=[Alternate()],
    )
    tokens: list[int] = []
    inner = trainer.training_step

    def counted(model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        mask = inputs.get("attention_mask")
        tokens.append(inputs["input_ids"].numel() if mask is None else int(mask.sum()))
        return inner(model, inputs, *args, **options)

    trainer.training_step = counted  # type: ignore[method-assign]
    trainer.train()
    loss = next(r["loss"] for r in reversed(trainer.state.log_history) if "loss" in r)
    rates = {}
    for who, taken, last in (("llmctl", mine, ours.loss), ("trl", theirs, loss)):
        rate = statistics.median(n / seconds for n, seconds in taken[warmup:])
        row = {"impl": who, "tokens_per_cpu_s": round(rate), "last_loss": round(float(last), 3)}
        row["tokens_a_step"] = round(statistics.mean(n for n, _ in taken[warmup:]), 1)
        rates[who] = rate
        print(json.dumps(row), flush=True)
    print(
        f"trl {trl.__version__}, transformers {transformers.__version__}, torch "
        f"{torch.__version__}; {ours.target_share:.0%} of the tokens are trained on: "
        f"{rates['llmctl'] / rates['trl']:.2f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="conversations; any form")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HF_DATASETS_CACHE"] = f"{scratch}/datasets"
        folder = Path(scratch) / "model"
        chats = conversations(args.data)
        texts = [str(m["content"]) for chat in chats for m in chat]
        tokenizer = make_model(folder, texts, VOCAB)
        ours = Ours(folder, tokenizer, chats)
        compare(folder, chats, ours, args.steps, args.warmup)


if __name__ == "__main__":
    main()
