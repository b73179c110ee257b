"""One ranking: a prompt, several responses to it, and which of them is better than which."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from llmctl.tokenizer.chat_messages import call_fault

Message = dict[str, Any]
Pairs = tuple[tuple[int, int], ...]  # (better, worse), numbers of responses

ROLES = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
}


class Unusable(Exception):
    """Why a row cannot be used: the text is the reason it is counted under."""


class Uninformative(Unusable):
    """A row that is sound but does not say what is better: tied, identical or empty responses."""


@dataclass(frozen=True)
class Ranking:
    """A prompt and K responses; `pairs` says all that is known of their order.

    responses: a string is one assistant message; a list, the turns after the prompt. ranks: 1 is
    best, ties allowed. group: rankings of one group (a conversation tree, a prompt) are never
    parted between training and held-out data. margin: by how much the better side should win.
    """

    prompt: list[Message]
    responses: list[str | list[Message]]
    ranks: list[int]
    where: str = ""
    split: str = ""  # "", "train" or "test"
    group: str = ""
    margin: float = 0.0
    known_pairs: Pairs | None = field(default=None, repr=False)  # None: all that ranks imply
    left_out: tuple[str, ...] = ()  # why parts of the row are not here

    @cached_property
    def pairs(self) -> Pairs:
        """Every (better, worse); two responses of one rank make none."""
        if self.known_pairs is not None:
            return self.known_pairs
        numbers = range(len(self.ranks))
        return tuple((i, j) for i in numbers for j in numbers if self.ranks[i] < self.ranks[j])

    @cached_property
    def prompt_key(self) -> str:
        """The same for prompts that are equal but for their blanks, and for no others."""
        said = [(m["role"], " ".join(str(m.get("content") or "").split())) for m in self.prompt]
        return json.dumps(said, ensure_ascii=False)

    def turns(self, number: int) -> list[Message]:
        """A response as messages."""
        response = self.responses[number]
        if isinstance(response, str):
            return [{"role": "assistant", "content": response}]
        return response

    def text(self, number: int) -> str:
        """What a response says, for floors and tables."""
        return "\n".join(str(m.get("content") or "") for m in self.turns(number))


def messages_of(value: Any, what: str) -> list[Message]:
    """A list of messages, in role/content or from/value form, as role/content."""
    if not isinstance(value, list) or not value:
        raise Unusable(f"{what} is no list of messages")
    return [message_of(m, what) for m in value]


def message_of(value: Any, what: str) -> Message:
    """One message as role and content; tool calls are kept."""
    if not isinstance(value, dict):
        raise Unusable(f"{what} is no message")
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise Unusable("unknown role")
    if not isinstance(content, str):
        raise Unusable("content that is no text")
    message: Message = {"role": ROLES[role.lower()], "content": content}
    calls = value.get("tool_calls")
    if calls and (why := call_fault(message["role"], calls)):
        raise Unusable(why)
    for key in ("tool_calls", "name"):
        if value.get(key):
            message[key] = value[key]
    return message


def after_common_prompt(sides: Sequence[list[Message]]) -> tuple[list[Message], list[Any]]:
    """The messages all sides begin with, and what each says after them."""
    n = 0
    shortest = min(len(side) for side in sides)
    while n < shortest and all(side[n] == sides[0][n] for side in sides):
        n += 1
    n = min(n, shortest - 1)  # equal sides keep their last turn, to be counted as identical
    return sides[0][:n], [as_response(side[n:]) for side in sides]


def as_response(turns: list[Message]) -> str | list[Message]:
    """One plain assistant message is its text."""
    if len(turns) == 1 and turns[0]["role"] == "assistant" and set(turns[0]) == {"role", "content"}:
        return str(turns[0]["content"])
    return turns


def majority(votes: Iterable[int]) -> int:
    """The vote more than half agree on, else 0 (a tie)."""
    counts = Counter(votes)
    vote, n = counts.most_common(1)[0]
    return vote if 2 * n > counts.total() else 0


def _said(turns: list[Message]) -> list[tuple[Any, ...]]:
    return [(m["role"], m["content"].strip(), m.get("tool_calls")) for m in turns]


def _empty(turns: list[Message]) -> bool:
    last = turns[-1]
    return last["role"] != "assistant" or not (last["content"].strip() or last.get("tool_calls"))


def usable(ranking: Ranking) -> tuple[Ranking, list[str]]:
    """The ranking without what cannot be compared, and the reason of each thing left out.

    Empty responses, pairs of identical responses, and responses that are in no pair go. Raises
    Uninformative when no pair is left.
    """
    texts = [_said(ranking.turns(i)) for i in range(len(ranking.responses))]
    empty = {i for i in range(len(texts)) if _empty(ranking.turns(i))}
    known = [p for p in ranking.pairs if not empty.intersection(p)]
    pairs = [(a, b) for a, b in known if texts[a] != texts[b]]
    if not pairs:
        raise Uninformative("identical" if known else "empty" if empty else "tied")
    left_out = [*ranking.left_out, *["empty"] * len(empty)]
    left_out += ["identical"] * (len(known) - len(pairs))
    kept = sorted({i for pair in pairs for i in pair})
    place = {old: new for new, old in enumerate(kept)}
    found = replace(
        ranking,
        responses=[ranking.responses[i] for i in kept],
        ranks=[ranking.ranks[i] for i in kept],
        group=ranking.group or ranking.prompt_key,
        known_pairs=tuple((place[a], place[b]) for a, b in pairs),
    )
    return found, left_out
