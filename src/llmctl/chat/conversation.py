"""A conversation as a tree of turns: nothing said is ever lost, one path through it is current.

A turn is one message of the user, or one answer: an assistant message, or several with tool results
between them. Taking back, trying again and editing all begin a new branch beside the old one.
A conversation is one JSON object on one line, {"messages": [...], "chat": {...}}: `messages` is the
current path, as `llmctl sft --data` and TRL read it; `chat` holds the whole tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl.core.errors import BadInput

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
VERSION = 1  # of the object under "chat"


@dataclass
class Turn:
    """One node of the tree; `parent` is the turn before it, None for a first message.

    facts: what is known of an answer: seed, tokens, seconds, finish_reason, …
    """

    number: int
    parent: int | None
    messages: list[Message]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_user(self) -> bool:
        return self.messages[0]["role"] == "user"

    @property
    def text(self) -> str:
        """What was said, tool results left out."""
        said = [m["content"] for m in self.messages if m["role"] != "tool"]
        return "\n".join(text for text in said if text)


class Conversation:
    """The tree, and the turn we are at. system: the system prompt of every branch, "" for none."""

    def __init__(self, system: str = "") -> None:
        self.system = system
        self.turns: list[Turn] = []
        self.at: int | None = None

    def path(self, end: int | None = None) -> list[Turn]:
        """The turns from the first message to `end` (default: where we are)."""
        found = []
        number = self.at if end is None else end
        while number is not None:
            found.append(self.turns[number])
            number = self.turns[number].parent
        return found[::-1]

    def messages(self, end: int | None = None) -> list[Message]:
        """The current path (or the one to `end`) as messages, the system prompt first."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + [m for turn in self.path(end) for m in turn.messages]

    def say(self, text: str) -> Turn:
        """The user says something. ValueError while an answer is still due."""
        if self.at is not None and self.turns[self.at].is_user:
            raise ValueError("the last message has no answer yet")
        return self._add([{"role": "user", "content": text}], {})

    def answer(self, messages: Sequence[Message], facts: Mapping[str, Any]) -> Turn:
        """The model answers the message we are at. ValueError when there is none."""
        if self.at is None or not self.turns[self.at].is_user:
            raise ValueError("no message to answer")
        return self._add(list(messages), dict(facts))

    def _add(self, messages: list[Message], facts: dict[str, Any]) -> Turn:
        turn = Turn(len(self.turns), self.at, messages, facts)
        self.turns.append(turn)
        self.at = turn.number
        return turn

    def last_user(self) -> Turn | None:
        """The last message of the user on the path."""
        return next((turn for turn in reversed(self.path()) if turn.is_user), None)

    def last_answer(self) -> Turn | None:
        """The answer we are at; None at the start, or while one is due."""
        turn = None if self.at is None else self.turns[self.at]
        return None if turn is None or turn.is_user else turn

    def undo(self) -> Turn | None:
        """Go back to before the last message of the user; returns that turn, None at the start."""
        turn = self.last_user()
        if turn is not None:
            self.at = turn.parent
        return turn

    def back_to_user(self) -> Turn | None:
        """Go back to the last message of the user, for another answer; None when there is none."""
        turn = self.last_user()
        if turn is not None:
            self.at = turn.number
        return turn

    def children(self, number: int | None) -> list[Turn]:
        """The turns that follow a turn; None: the first messages."""
        return [turn for turn in self.turns if turn.parent == number]

    def leaves(self) -> list[int]:
        """The ends of all branches, oldest first."""
        parents = {turn.parent for turn in self.turns}
        return [turn.number for turn in self.turns if turn.number not in parents]

    def switch(self, number: int) -> None:
        """Go to a turn. IndexError when there is none such."""
        if not 0 <= number < len(self.turns):
            raise IndexError(number)
        self.at = number

    def to_row(self, **facts: Any) -> dict[str, Any]:
        """The conversation as one JSON object; `facts` (model, settings) are kept with it."""
        turns = [
            {"parent": t.parent, "messages": t.messages} | ({"facts": t.facts} if t.facts else {})
            for t in self.turns
        ]
        tree = {"version": VERSION, "system": self.system, "at": self.at, "turns": turns}
        return {"messages": self.messages(), "chat": tree | facts}

    @classmethod
    def from_row(cls, row: Any, where: str) -> Conversation:
        """From such an object, or from any {"messages": [...]}. BadInput says what is wrong."""
        if not isinstance(row, dict):
            raise BadInput(f"{where}: not a JSON object with a key messages")
        tree = row.get("chat")
        if isinstance(tree, dict) and isinstance(tree.get("turns"), list):
            return _from_tree(tree, where)
        if not isinstance(row.get("messages"), list):
            raise BadInput(f"{where}: no list under the key messages")
        return _from_messages(row["messages"], where)


def _from_tree(tree: Mapping[str, Any], where: str) -> Conversation:
    if tree.get("version") != VERSION:
        raise BadInput(f"{where}: version {tree.get('version')!r} of the tree, known is {VERSION}")
    if not isinstance(tree.get("system"), str):
        raise BadInput(f"{where}: the system prompt is no text")
    conversation = Conversation(tree["system"])
    for number, turn in enumerate(tree["turns"]):
        here = f"{where}, turn {number}"
        parent = turn.get("parent") if isinstance(turn, dict) else -1
        if parent is not None and not (type(parent) is int and 0 <= parent < number):
            raise BadInput(f"{here}: its parent {parent!r} is no earlier turn")
        messages, facts = turn.get("messages"), turn.get("facts", {})
        if not isinstance(messages, list) or not messages or not isinstance(facts, dict):
            raise BadInput(f"{here}: no messages")
        messages = [_message(m, here) for m in messages]
        conversation.at = parent
        roles = [m["role"] for m in messages]
        _append(conversation, roles, messages, facts, here)
    at = tree.get("at")
    if at is not None and not (type(at) is int and 0 <= at < len(conversation.turns)):
        raise BadInput(f"{where}: it stands at turn {at!r}, which it has not")
    conversation.at = at
    return conversation


def _from_messages(messages: list[Any], where: str) -> Conversation:
    messages = [_message(m, f"{where}, message {i}") for i, m in enumerate(messages)]
    has_system = bool(messages) and messages[0]["role"] == "system"
    conversation = Conversation(messages[0]["content"] if has_system else "")
    group: list[Message] = []
    for number, message in enumerate([*messages[has_system:], None]):
        goes_on = message is not None and message["role"] in ("assistant", "tool")
        if group and not (goes_on and group[0]["role"] != "user"):
            here = f"{where}, before message {number + has_system}"
            _append(conversation, [m["role"] for m in group], group, {}, here)
            group = []
        if message is not None:
            group.append(message)
    return conversation


def _append(
    conversation: Conversation,
    roles: Sequence[str],
    messages: list[Message],
    facts: dict[str, Any],
    where: str,
) -> None:
    """Add a turn that was read, where it fits."""
    at_user = conversation.at is not None and conversation.turns[conversation.at].is_user
    if roles[0] == "user" and len(roles) == 1 and not at_user:
        conversation.say(messages[0]["content"])
    elif roles[0] == "assistant" and "user" not in roles and "system" not in roles and at_user:
        conversation.answer(messages, facts)
    else:
        said = ", ".join(roles)
        raise BadInput(f"{where}: {said} cannot stand there; user and assistant take turns")


def _message(message: Any, where: str) -> Message:
    """A message with the keys that are its own. BadInput unless it has a known role, text, and
    tool calls with names and arguments."""
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise BadInput(f"{where}: no message of {', '.join(ROLES)}")
    calls = message.get("tool_calls") or []
    content = message.get("content")
    content = "" if content is None and calls else content  # as OpenAI writes a bare call
    if not isinstance(content, str):
        raise BadInput(f"{where}: its content is no text")
    for call in calls if isinstance(calls, list) else [None]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadInput(f"{where}: a tool call without a function's name")
        if not isinstance(function.get("arguments"), dict | str):
            raise BadInput(f"{where}: a tool call without arguments")
    kept: Message = {"role": message["role"], "content": content}
    if calls:
        kept["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if isinstance(message.get(key), str):
            kept[key] = message[key]
    return kept
