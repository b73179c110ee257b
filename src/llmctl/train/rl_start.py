"""What an RL run begins with: chat format, tools, questions, and how much it will work on.

--dry-run opens the same things, so that it refuses what the run would refuse.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.artifacts.store import Artifact
from llmctl.core import console
from llmctl.core.errors import BadInput, Mismatch, NoInput
from llmctl.data.problems import Problem
from llmctl.infer.toolbox import ToolBox
from llmctl.infer.tools import documents_of, open_tools
from llmctl.model import hf
from llmctl.model.config import ModelConfig
from llmctl.reward.judges import is_model
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import ChatFormat, chat_format
from llmctl.train import rl_data
from llmctl.train.rl_eval import HeldOut

LR_SHARE = 0.02  # of pretraining's rate: 6e-5 at 256 wide


@dataclass(frozen=True)
class Start:
    """What was opened. prompts: the ids of each problem that is trained on."""

    format: ChatFormat
    shape: ModelConfig
    tools: ToolBox | None
    problems: list[Problem]
    prompts: list[list[int]]
    held_out: HeldOut


def open_start(config: Any, source: Artifact) -> Start:
    """Open and check what an RlConfig names, but for the judges."""
    format = _chat_format(source.path)
    shape = hf.load_config(source.path)
    tools = None
    if config.tools:
        documents = documents_of(source, config.documents)
        tools = open_tools(config.tools, format, documents=documents)
    told = tools.format if tools else format
    problems, prompts, held_out = _open_problems(config, source, shape, told)
    return Start(format, shape, tools, problems, prompts, held_out)


def _chat_format(folder: Path) -> ChatFormat:
    """The chat format of a policy. Mismatch (78) for a base model, which answers nobody."""
    found = chat_format(Tokenizer.of_model(folder))
    if found is None:
        raise Mismatch(
            f"{folder}: a base model, whose tokenizer has no chat format; run `llmctl sft` on it "
            "first"
        )
    return found


def _open_problems(
    config: Any, source: Artifact, shape: ModelConfig, told: ChatFormat
) -> tuple[list[Problem], list[list[int]], HeldOut]:
    """Problems to train on, their prompts, and those held out. told: the format with its tools."""
    prompts_only = is_model(config.reward)
    path = rl_data.data_path(config.data, source, prompts_only=prompts_only)
    found = rl_data.choose(
        rl_data.read_questions(path, max_bad=config.max_bad),
        difficulty=config.difficulty,
        system=config.system,
    )
    room = shape.max_seq_len - config.max_tokens
    if room < 1:
        raise BadInput(
            f"max_tokens={config.max_tokens:,} leaves no room for a prompt in the model's "
            f"context of {shape.max_seq_len:,}; lower it"
        )
    train = [p for p in found if p.split != "test"]
    test = [p for p in found if p.split == "test"][: config.eval_n]
    problems, prompts = rl_data.encode_prompts(train, told, room=room)
    held_out = HeldOut(*rl_data.encode_prompts(test, told, room=room))
    if not problems:
        raise NoInput(f"{path}: no problem of the train split that fits; give others")
    if config.gold and not held_out.problems:
        raise NoInput(f"{path}: gold={config.gold} needs held-out prompts; give more of them")
    wants_answers = [f"reward={config.reward}"] * (not prompts_only)
    wants_answers += [f"gold={config.gold}"] * bool(config.gold and not is_model(config.gold))
    if wants_answers and not all(p.answer for p in [*problems, *held_out.problems]):
        raise Mismatch(
            f"{path}: holds prompts without answers, so {wants_answers[0]} has nothing to "
            "check; name a reward model instead, or problems with --data"
        )
    console.info(
        f"data {path}: {len(problems):,} problems to train on, {len(held_out.problems):,} held out"
    )
    return problems, prompts, held_out


def extent(config: Any, start: Start) -> dict[str, Any]:
    """Of the run's plan (train.tuning.tuning_plan): every answer as long as it may become."""
    seq_len = max(map(len, start.prompts)) + config.max_tokens
    return {
        "steps": config.steps,
        "seq_len": seq_len,
        "tokens_per_step": config.prompts_per_step * config.group_size * seq_len,
        "lr_share": LR_SHARE,
    }
