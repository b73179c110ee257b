"""How a model is talked to: messages to ids, and what it drew back to messages.

A model with a chat format is given it. A base model has none: it is given the conversation as a
text that goes on "Assistant:", and what it writes up to the next "User:" is its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmctl.infer.completion import Completion
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import CallError, ChatFormat

Message = dict[str, Any]
NAMES = {"user": "User", "assistant": "Assistant", "tool": "Tool"}


class ChatVoice:
    """A model that was taught a chat format."""

    is_base = False
    stop: tuple[str, ...] = ()

    def __init__(self, format: ChatFormat) -> None:
        self.format = format
        self.stop_ids = tuple(sorted(format.stop_ids))

    def ids(self, messages: Sequence[Message], told: ChatFormat | None = None) -> list[int]:
        """The prompt: the conversation, and the header of an answer. told: a format that tells the
        model of its tools."""
        return (told or self.format).render(messages, generation=True).ids

    def messages(self, completion: Completion, unanswered: str) -> list[Message]:
        """What was said, as messages: assistant turns and the results between them.

        unanswered: the result written for a call that got none. Calls that could not be read, and
        the errors the model was told for them, are left out. [] when nothing was said.
        """
        found: list[Message] = []
        for number, ids in enumerate(completion.turns()):
            answered = number < len(completion.calls)
            ended = answered or ids[-1] in self.stop_ids
            message = self._turn(ids, ended)
            if found and found[-1]["role"] == "assistant" and not found[-1].get("tool_calls"):
                message["content"] = found.pop()["content"] + message["content"]
            found.append(message)
            if message.get("tool_calls"):
                name = message["tool_calls"][0]["function"]["name"]
                result = completion.calls[number].result if answered else unanswered
                found.append({"role": "tool", "name": name, "content": result})
        if found and found[-1] == {"role": "assistant", "content": ""}:
            found.pop()
        return found

    def _turn(self, ids: list[int], ended: bool) -> Message:
        """One turn; a call that was cut off, or cannot be read, is no call."""
        try:
            message = self.format.turn(ids)
        except CallError:
            message = self.format.turn(self._before_call(ids))
        if not ended:
            message.pop("tool_calls", None)
        return message

    def _before_call(self, ids: list[int]) -> list[int]:
        """The longest beginning of a turn that can be read."""
        low, high = 0, len(ids)  # the first `low` can, the first `high` cannot
        while low + 1 < high:
            middle = (low + high) // 2
            try:
                self.format.turn(ids[:middle])
                low = middle
            except CallError:
                high = middle
        return ids[:low]


class BaseVoice:
    """A base model, which goes on with text.

    start: ids put before every text, as in its training.
    """

    is_base = True
    format = None
    stop = ("\nUser:",)
    stop_ids: tuple[int, ...] = ()

    def __init__(self, tokenizer: Tokenizer, start: Sequence[int]) -> None:
        self.tokenizer, self.start = tokenizer, list(start)

    def ids(self, messages: Sequence[Message], told: ChatFormat | None = None) -> list[int]:
        """The prompt: the conversation as text, up to the answer."""
        return self.start + self.tokenizer.encode(plain_text(messages))

    def messages(self, completion: Completion, unanswered: str) -> list[Message]:
        """The text up to the stop string; [] when there is none."""
        text = completion.text
        if completion.finish_reason is None:  # stopped: the text was not closed yet
            text = self.tokenizer.decode(completion.ids, skip_special=True)
            text = text.split(self.stop[0])[0]
        text = text.strip()
        return [{"role": "assistant", "content": text}] if text else []


Voice = ChatVoice | BaseVoice


def plain_text(messages: Sequence[Message]) -> str:
    """A conversation as a page might have it; ends where an answer is due."""
    lines = []
    for message in messages:
        if message["role"] == "system":
            lines.append(message["content"] + "\n")
        else:
            lines.append(f"{NAMES[message['role']]}: {message['content']}")
    return "\n".join([*lines, "Assistant:"])
