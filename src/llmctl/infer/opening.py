"""A model folder opened for generation: device, number format, threads, tokenizer.

Used by every command that only runs a model (generate, chat, …).
"""

from __future__ import annotations

from pathlib import Path

import torch

from llmctl.core import console
from llmctl.core.errors import UsageError
from llmctl.core.hardware import cpu_has_fast_bf16
from llmctl.infer.engine import Engine
from llmctl.infer.threads import idle_cores
from llmctl.model.hf import check_folder, load_model
from llmctl.tokenizer.bpe import Tokenizer

DTYPES = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16}


def open_engine(
    folder: Path, *, dtype: str = "auto", device: str = "auto", workers: int = 0
) -> Engine:
    """The engine of a model folder. Mismatch (78) when it has no tokenizer of its own.

    dtype: auto (as stored, where that runs at speed), fp32, bf16. device: auto, cpu, cuda.
    workers: CPU threads; 0: one for each core that is idle.
    """
    tokenizer = Tokenizer.of_model(check_folder(folder))
    torch.set_num_threads(workers or idle_cores())
    place = _device(device)
    model = load_model(folder, dtype=DTYPES[dtype], device=place)
    stored = model.embedding.weight.dtype
    chosen = _usable(stored, place) if dtype == "auto" else stored
    return Engine(model, tokenizer, dtype=chosen, consume=True, source=str(folder))


def model_line(engine: Engine) -> str:
    """'runs/sft-1a2b: qwen3, 2.1M, float32 on cpu, 2 threads'."""
    runner = engine.runner
    where = str(runner.device)
    if where == "cpu":
        threads = torch.get_num_threads()
        where = f"cpu, {threads} thread{'s' * (threads > 1)}"
    millions = engine.config.n_params() / 1e6
    dtype = str(runner.dtype).removeprefix("torch.")
    return f"{engine.source}: {engine.config.family}, {millions:,.1f}M, {dtype} on {where}"


def _device(wanted: str) -> str:
    have = torch.cuda.is_available()
    if wanted == "cuda" and not have:
        raise UsageError("--device cuda: this torch finds no CUDA device; take cpu")
    return "cuda" if have and wanted != "cpu" else "cpu"


def _usable(stored: torch.dtype, device: str) -> torch.dtype:
    """As stored where that runs at speed, else fp32, with a notice."""
    if stored == torch.float32 or device == "cuda":
        return stored
    if stored == torch.bfloat16 and cpu_has_fast_bf16():
        return stored
    console.info(f"weights are {str(stored).removeprefix('torch.')}, computing in float32 on CPU")
    return torch.float32
