"""Items into pairs of context and continuation, and those into ids.

The ids are those of lm-evaluation-harness: blanks at the end of a context belong to the
continuation, both are encoded as one text, and the context's own length says where to cut it.
Too long a pair loses ids at its left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from llmctl.evals.tasks.kinds import Choice, Item, Open, Task
from llmctl.infer.prompts import start_ids
from llmctl.tokenizer.bpe import Tokenizer

BETWEEN = "\n\n"  # of two shots, as lm-evaluation-harness and nanochat have it


@dataclass(frozen=True)
class Pair:
    """ids: what the model reads; targets: the ids wanted after the last len(targets) of them."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Start:
    """What stands before a text. ids: before each; alone: before one without any context."""

    ids: tuple[int, ...]
    alone: int


def start_of(folder: Path, tokenizer: Tokenizer, *, bos: bool | None = None) -> Start:
    """The start ids of a model folder (see infer.prompts), and its prefix for empty contexts."""
    ids = start_ids(folder, tokenizer, bos=bos)
    named = tokenizer.config.get("bos_token")
    named = named.get("content") if isinstance(named, Mapping) else named
    alone = tokenizer.id_of(named) if isinstance(named, str) else None
    return Start(tuple(ids), tokenizer.eot_id if alone is None else alone)


def shots_for(task: Task, index: int, n: int, seed: int) -> list[Item]:
    """n other items of the task, drawn by seed and index: the same for every model."""
    others = [i for i in range(len(task.items)) if i != index]
    chosen = Random(seed + index).sample(others, min(n, len(others)))
    return [task.items[i] for i in chosen]


def shown(item: Choice, delimiter: str) -> str:
    """An item with its right answer, as a shot."""
    context, continuation = item.pairs()[item.gold]
    return f"{context}{delimiter}{continuation}"


def texts(item: Choice, shots: Sequence[Item], delimiter: str) -> list[tuple[str, str]]:
    """(context, continuation) of each option; the delimiter's last blanks begin the latter."""
    before = "".join(shown(s, delimiter) + BETWEEN for s in shots if isinstance(s, Choice))
    kept = delimiter.rstrip(" ")
    return [(f"{before}{c}{kept}", f"{delimiter[len(kept) :]}{k}") for c, k in item.pairs()]


def encode_pairs(
    tokenizer: Tokenizer, start: Start, texts: Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """(context ids, continuation ids) of each pair; the second is empty where ids merge."""
    moved = []
    for context, continuation in texts:
        bare = context.rstrip()
        moved.append((bare, context[len(bare) :] + continuation))
    wholes = tokenizer.encode_batch([c + k if c else k for c, k in moved])
    unique = list(dict.fromkeys(c for c, _ in moved))
    sizes = {c: len(ids) for c, ids in zip(unique, tokenizer.encode_batch(unique))}
    pairs = []
    for (context, _), whole in zip(moved, wholes):
        if context:
            cut = sizes[context]
            pairs.append(([*start.ids, *whole[:cut]], whole[cut:]))
        elif whole[:1] == [start.alone]:
            pairs.append((whole[:1], whole[1:]))
        else:
            pairs.append(([start.alone], whole))
    return pairs


def cut_to(context: Sequence[int], continuation: Sequence[int], max_len: int) -> Pair:
    """The pair as a model of `max_len` positions reads it: cut at the left, its last id not read.

    ValueError when the continuation is empty, is longer than max_len or has nothing before it.
    """
    if not continuation:
        raise ValueError("the continuation has no token of its own")
    if len(continuation) > max_len:
        raise ValueError("the continuation is longer than the context window")
    if not context:
        raise ValueError("nothing stands before the continuation")
    ids = (*context, *continuation)[-(max_len + 1) :][:-1]
    return Pair(ids, tuple(continuation))


def plain_question(question: str) -> str:
    """'Question: …\\nAnswer:', unless the text has that shape by itself."""
    if question.rstrip().endswith(("Answer:", "A:")):
        return question.rstrip()
    return f"Question: {question}\nAnswer:"


def bare_question(question: str) -> str:
    """The question without the frame that a base model needs."""
    text = question.strip()
    for end in ("Answer:", "A:"):
        text = text.removesuffix(end).rstrip()
    for begin in ("Question:", "Q:"):
        text = text.removeprefix(begin).lstrip()
    return text or question


def answer_shown(item: Open) -> str:
    """An open item's answer, with its reasoning where there is any."""
    return item.worked or item.answers[0]


def messages_for(item: Open, shots: Sequence[Item]) -> list[dict[str, Any]]:
    """The conversation that asks an item; shots are earlier exchanges of it."""
    messages = []
    for shot in shots:
        if isinstance(shot, Open):
            messages.append({"role": "user", "content": bare_question(shot.question)})
            messages.append({"role": "assistant", "content": answer_shown(shot)})
    return [*messages, {"role": "user", "content": bare_question(item.question)}]
