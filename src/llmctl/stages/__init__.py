"""The stages, in pipeline order. A stage's module is imported when its command is run, not before.

STAGES: name -> one line for `llmctl --help`. The name is the address: `llmctl crawl-filter` is
stages/crawl_filter.py here, stages/crawl-filter.yaml beside src/, `crawl-filter:` in a recipe.
"""

from __future__ import annotations

import importlib

from llmctl.core.errors import UsageError, did_you_mean
from llmctl.core.stage import Stage

STAGES = {
    "synth": "make the embedded synthetic web: WARCs, conversations, problems, and the truth",
    "crawl-filter": "WARC files to clean, deduplicated text, by FineWeb's recipe",
    "tokenize": "text to token bins (byte-level BPE, trained or given)",
    "pretrain": "token bins to a base model (Qwen3, Llama or GPT-2 shape)",
    "sft": "a model that answers, from conversations",
    "probe": "what a model knows: conversations that teach it to say so, or that it does not",
    "rm": "a reward model, from rankings",
    "rl": "a chat model and graded problems to a better one (GRPO)",
    "generate": "text from a model",
    "chat": "talk with a model at the terminal",
    "eval": "measure models: task files; bits per byte, and the facts they have learned",
    "inspect": "look into any artifact: what it is, where it came from, samples",
}


def load_stage(name: str) -> Stage:
    """The stage of that name. UsageError (2) with the nearest name when there is none."""
    if name not in STAGES:
        raise UsageError(f"unknown stage {name!r}{did_you_mean(name, list(STAGES))}")
    return importlib.import_module(f"llmctl.stages.{name.replace('-', '_')}").STAGE
