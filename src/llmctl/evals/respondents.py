"""Who writes questions and judges answers for a probe: a model folder of ours, or an address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from llmctl.artifacts.store import open_artifact
from llmctl.core.errors import UsageError
from llmctl.evals.endpoint import Endpoint, Journal
from llmctl.evals.tasks.generate import answer_all
from llmctl.infer.engine import Engine
from llmctl.infer.opening import open_engine
from llmctl.infer.params import SamplingParams
from llmctl.tokenizer.chat import ChatFormat, chat_format

Message = dict[str, Any]


class Respondent(Protocol):
    """Replies to conversations, greedily."""

    name: str

    def reply(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        seed: int = 0,
        on_reply: Callable[[], None] = lambda: None,
    ) -> list[str]: ...


class Folder:
    """A model folder with a chat format, through the engine."""

    def __init__(self, name: str, engine: Engine, format: ChatFormat) -> None:
        self.name, self.engine, self.format = name, engine, format

    def reply(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        seed: int = 0,
        on_reply: Callable[[], None] = lambda: None,
    ) -> list[str]:
        params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
        answers = answer_all(self.engine, self.format, prompts, params, on_answer=on_reply)
        return [answer.text for answer in answers]


def is_address(word: str) -> bool:
    """Whether a setting means an address, not a folder."""
    return word.startswith(("http://", "https://"))


def open_respondent(
    word: str, setting: str, *, model: str, workers: int, journal: Path | None = None
) -> Respondent:
    """The model a setting names. model: its name at an address. UsageError (2): no chat format."""
    if is_address(word):
        kept = Journal(journal) if journal is not None else None
        return Endpoint(word, model, workers=workers or 4, journal=kept)
    if model:
        raise UsageError(f"--{setting}-model belongs to an address, but --{setting} is a folder")
    artifact = open_artifact(word, ("model", "foreign"), reader=f"--{setting}")
    engine = open_engine(artifact.path, workers=workers)
    format = chat_format(engine.tokenizer)
    if format is None:
        raise UsageError(
            f"--{setting} {word}: a base model follows no instruction; name a tuned one"
        )
    return Folder(artifact.path.name, engine, format)
