"""What the engine gives back: completions, events as they happen, counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from llmctl.tokenizer.chat import ToolCall

FinishReason = Literal["stop", "length", "context", "calls"]


@dataclass(frozen=True)
class CallRecord:
    """A tool call that was answered. A malformed one has the name "" and its text as arguments."""

    name: str
    arguments: str | dict[str, Any]
    result: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """As JSON lines hold it."""
        return {
            "name": self.name,
            "arguments": self.arguments,
            "result": self.result,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Completion:
    """One answer. `ids` are all tokens after the prompt, the one that ended it included; where
    tools were called also those forced upon the model, the results. sampled[i]: the model drew
    ids[i] itself. `text` is what it said: it stops before the end, tool calls and their results
    are left out.

    finish_reason: stop (an end id or stop string), length (max_tokens), context (the model's
    longest row), calls (it asked for tools too often).

    Where asked for, one entry for each id, 0.0 or [] for a forced one: logprobs, of the model
    itself (temperature 1); policy_logprobs, at the temperature it was drawn with; both before
    penalty, top-k, top-p and min-p, and over the ids that stand for something; probs: the most
    likely (id, probability).
    """

    index: int
    prompt_ids: list[int]
    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None
    logprobs: list[float] = field(default_factory=list)
    policy_logprobs: list[float] = field(default_factory=list)
    probs: list[list[tuple[int, float]]] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)

    def turns(self) -> list[list[int]]:
        """The ids of each assistant turn: what the model drew between two results."""
        found: list[list[int]] = []
        for start, stop in self._runs():
            found.append(self.ids[start:stop])
        return found

    def _runs(self) -> Iterator[tuple[int, int]]:
        start = None
        for i, own in enumerate([*self.sampled, False]):
            if own and start is None:
                start = i
            elif not own and start is not None:
                yield start, i
                start = None


@dataclass(frozen=True)
class Event:
    """Something new in one row; `completion` is final once its finish_reason is set.

    text: what it said. asked: it ended a turn with this call, which now runs. call: a call has
    been answered (it stands at the end of completion.calls too).
    """

    completion: Completion
    text: str
    asked: ToolCall | None = None
    call: CallRecord | None = None


@dataclass
class Stats:
    """Tokens and seconds since the engine was made."""

    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    calls: int = 0

    def line(self) -> str:
        """'prefill 512 tokens at 700 tokens/s, decode 64 tokens at 40.1 tokens/s'."""
        parts = []
        for name in ("prefill", "decode"):
            tokens, seconds = getattr(self, f"{name}_tokens"), getattr(self, f"{name}_seconds")
            rate = tokens / max(seconds, 1e-9)
            parts.append(f"{name} {tokens:,} tokens" + f" at {rate:,.1f} tokens/s" * (tokens > 0))
        if self.calls:
            parts.append(f"{self.calls:,} tool calls")
        return ", ".join(parts)
