"""Generation speed beside transformers.generate: same folder, same prompts, same run.

    python benchmarks/generate.py --threads 1            # needs transformers
    python benchmarks/generate.py --model FOLDER --dtypes bf16 --batches 1

Without --model it makes a folder of SmolLM2-135M's shape with random weights. Both sides generate
greedily, 64 tokens after different 32-token prompts, end-of-text ignored; ours goes through the
engine with its sampling and its text. `decode` is the time of 1 + N tokens minus that of one,
`whole` has the prefill in it. Measurements alternate; medians of tokens a second are printed, by
the wall clock and by CPU time. On a machine shared with other work trust CPU time at --threads 1:
waiting threads spin, and that is counted too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

SHAPE = {
    "family": "llama",
    "vocab_size": 49_152,
    "n_layers": 30,
    "d_model": 576,
    "n_heads": 9,
    "n_kv_heads": 3,
    "head_dim": 64,
    "d_ff": 1536,
    "max_seq_len": 8192,
    "rope_theta": 100_000.0,
    "norm_eps": 1e-5,
    "eos_ids": (0,),
}
PROMPT_TOKENS = 32
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def make_folder(folder: Path) -> None:
    """Random weights in bf16, and a tokenizer whose 49,152 ids are bytes and pairs of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from llmctl.model.config import ModelConfig
    from llmctl.model.hf import save_model
    from llmctl.model.transformer import Transformer

    model = Transformer(ModelConfig(**SHAPE))
    model.init_weights(0)
    save_model(model, folder, dtype=torch.bfloat16)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|endoftext|>", *letters, *(a + b for a in letters for b in letters)]
    vocab = {name: i for i, name in enumerate(names[: SHAPE["vocab_size"]])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))


class Ours:
    """llmctl's engine, as `llmctl generate` uses it."""

    def __init__(self, folder: Path, dtype: str) -> None:
        import torch

        from llmctl.infer.engine import Engine
        from llmctl.model.hf import load_model
        from llmctl.tokenizer.bpe import Tokenizer

        model = load_model(folder, getattr(torch, dtype))
        self.engine = Engine(model, Tokenizer.load(folder), consume=True)

    def generate(self, prompts: list[list[int]], n: int) -> list[list[int]]:
        from llmctl.infer.params import SamplingParams

        params = SamplingParams(max_tokens=n, temperature=0.0, ignore_eos=True)
        return [done.ids for done in self.engine.generate(prompts, params)]


class Theirs:
    """transformers.generate, eager with its dynamic cache, the fastest setting that finishes."""

    def __init__(self, folder: Path, dtype: str) -> None:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        load = transformers.AutoModelForCausalLM.from_pretrained
        self.model = load(folder, dtype=getattr(torch, dtype)).eval()
        self.model.generation_config.eos_token_id = None

    def generate(self, prompts: list[list[int]], n: int) -> list[list[int]]:
        import torch

        ids = torch.tensor(prompts)
        with torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=n,
                min_new_tokens=n,
                do_sample=False,
                pad_token_id=0,
            )
        return out[:, ids.shape[1] :].tolist()


def spent(side: Ours | Theirs, prompts: list[list[int]], n: int) -> dict[str, float]:
    """Seconds to generate 1 + n tokens for each prompt, and without the prefill."""
    marks = []
    for tokens in (1, 1 + n):
        wall, cpu = time.perf_counter(), time.process_time()
        side.generate(prompts, tokens)
        marks.append((time.perf_counter() - wall, time.process_time() - cpu))
    seconds = {}
    for i, clock in enumerate(("wall", "cpu")):
        seconds[f"whole_{clock}"] = marks[1][i]
        seconds[f"decode_{clock}"] = marks[1][i] - marks[0][i]
    return seconds


def compare(ours: Ours, theirs: Theirs, batch: int, n: int, repeats: int, vocab: int) -> dict:
    """Tokens a second of both sides, and the ratio, by each clock."""
    import torch

    generator = torch.Generator().manual_seed(batch)
    prompts = torch.randint(1, vocab, (batch, PROMPT_TOKENS), generator=generator).tolist()
    ours.generate(prompts, 8), theirs.generate(prompts, 8)  # warm
    pairs = [(spent(ours, prompts, n), spent(theirs, prompts, n)) for _ in range(repeats)]
    row: dict = {}
    for what in ("decode_cpu", "decode_wall", "whole_cpu", "whole_wall"):
        mine, other = (statistics.median(p[side][what] for p in pairs) for side in (0, 1))
        tokens = batch * (n + what.startswith("whole"))
        row[what] = {
            "llmctl": round(tokens / mine, 1),
            "transformers": round(tokens / other, 1),
            "ratio": round(other / mine, 2),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="a Hugging Face folder instead of a random one")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "fp32"], choices=DTYPES)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.model or Path(scratch)
        if args.model is None:
            make_folder(folder)
        vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
        for name in args.dtypes:
            ours, theirs = (side(folder, DTYPES[name]) for side in (Ours, Theirs))
            for batch in args.batches:
                found = compare(ours, theirs, batch, args.new_tokens, args.repeats, vocab)
                case = {"dtype": name, "batch": batch, "threads": args.threads}
                print(json.dumps(case | found), flush=True)


if __name__ == "__main__":
    main()
