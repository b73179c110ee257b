"""Questions asked of a model, answers in its own words. Used by eval, probe, and held-out checks.

A model with a chat format gets the conversation in it. One without (a base model) gets plain text,
"Question: …\\nAnswer:", earlier exchanges before it in the same shape, a system message as a
paragraph above; its answer ends at the first newline unless the caller names other stops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.evals.tasks.requests import BETWEEN, plain_question
from llmctl.infer.completion import CallRecord, Completion, Event
from llmctl.infer.engine import Engine
from llmctl.infer.params import SamplingParams
from llmctl.infer.prompts import start_ids
from llmctl.infer.toolbox import ToolBox
from llmctl.tokenizer.chat import CallError, ChatFormat

Message = dict[str, Any]
PLAIN_STOPS = ("\n",)


@dataclass(frozen=True)
class Answer:
    """One answer. text: what its last turn says; message: that turn with its calls; ids: all that
    came after the prompt. finish_reason "context": the prompt left no room, so it was not asked."""

    text: str
    message: Message
    ids: list[int]
    finish_reason: str
    calls: list[CallRecord] = field(default_factory=list)

    @property
    def asked(self) -> bool:
        """Whether the prompt left room for an answer. Where it did not, nothing is measured."""
        return self.finish_reason != "context" or bool(self.ids)


def answer_all(
    engine: Engine,
    format: ChatFormat | None,
    prompts: Sequence[Sequence[Message]],
    params: SamplingParams,
    tools: ToolBox | None = None,
    *,
    start: Sequence[int] | None = None,
    on_answer: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """An answer to each conversation, in order.

    params are for every row; where it samples, row r of the call draws its own numbers. start: the
    ids before a plain prompt (none given: those of the engine's folder). A plain prompt that is
    too long loses its left, a chat that leaves no room is not asked.
    """
    if not prompts:
        return []
    if format is None:
        before = list(_start(engine) if start is None else start)
        texts = [plain_text(messages) for messages in prompts]
        encoded = engine.tokenizer.encode_batch(texts)
        ids = [_cut(engine, before, one, params.max_tokens) for one in encoded]
        params = dataclasses.replace(params, stop=params.stop or PLAIN_STOPS)
    else:
        told = format if tools is None else tools.format
        ids = [r.ids for r in told.render_many(prompts, generation=True)]
        ends = tuple(sorted({*params.stop_ids, *format.stop_ids}))
        params = dataclasses.replace(params, stop_ids=ends)
    asked = [n for n, one in enumerate(ids) if 0 < len(one) < engine.config.max_seq_len]

    def seen(event: Event) -> None:
        if event.completion.finish_reason is not None:
            on_answer()

    answers = [Answer("", {"role": "assistant", "content": ""}, [], "context") for _ in prompts]
    for number, done in zip(
        asked, engine.generate([ids[n] for n in asked], params, seen, tools=tools)
    ):
        answers[number] = _answer(done, format)
    return answers


def _answer(done: Completion, format: ChatFormat | None) -> Answer:
    message: Message = {"role": "assistant", "content": done.text.strip()}
    if format is not None and (turns := done.turns()):
        try:
            message = format.turn(turns[-1])
        except CallError:
            message["content"] = format.tokenizer.decode(turns[-1], skip_special=True)
    text = str(message.get("content") or "").strip()
    return Answer(text, message, list(done.ids), str(done.finish_reason), list(done.calls))


def plain_text(messages: Sequence[Message]) -> str:
    """A conversation for a base model, ending where its answer begins."""
    parts: list[str] = []
    for message in messages:
        content = str(message.get("content") or "").strip()
        if message["role"] == "assistant" and parts:
            parts[-1] = f"{parts[-1]} {content}"
        elif message["role"] == "user":
            parts.append(plain_question(content))
        else:
            parts.append(content)
    return BETWEEN.join(parts)


def _start(engine: Engine) -> list[int]:
    """What a document of the engine's folder begins with."""
    folder = Path(engine.source)
    if not folder.is_dir():
        return [engine.tokenizer.eot_id]
    return start_ids(folder, engine.tokenizer)


def _cut(engine: Engine, start: list[int], ids: list[int], max_tokens: int) -> list[int]:
    """start + ids, cut at the left of ids so that max_tokens, or half a context, remain."""
    context = engine.config.max_seq_len
    room = max(context - max_tokens, context // 2) - len(start)
    return [*start, *ids[max(0, len(ids) - room) :]]
