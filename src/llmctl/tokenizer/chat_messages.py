"""Messages in the shape of `datasets`, TRL and transformers: what is right, and their calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")


def _schema(name: str, about: str, argument: str, meaning: str) -> dict[str, Any]:
    """A function of one text, as JSON schema."""
    inner = {argument: {"type": "string", "description": meaning}}
    parameters = {"type": "object", "properties": inner, "required": [argument]}
    function = {"name": name, "description": about, "parameters": parameters}
    return {"type": "function", "function": function}


SCHEMAS = {  # what a model of others is told about the tools; ours knows them by their names
    "python": _schema(
        "python",
        "Runs Python code; the result is what it prints and the value of its last line.",
        "code",
        "the code",
    ),
    "search": _schema(
        "search",
        "Looks for passages in the documents at hand.",
        "query",
        "words that the passages hold",
    ),
}


def tools_line(names: Sequence[str]) -> str:
    """What a model of ours reads in its system message when it may use tools."""
    return f"Tools: {', '.join(names)}."


class CallError(ValueError):
    """A tool call that cannot be run as it was written; the message is for the model to read."""


@dataclass(frozen=True)
class ToolCall:
    """What a turn asks for. python has {"code": text}, search {"query": text}."""

    name: str
    arguments: str | dict[str, Any]

    def as_message(self) -> dict[str, Any]:
        """The entry of a message's tool_calls."""
        return {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def calls_of(message: Mapping[str, Any]) -> list[ToolCall]:
    """The calls of a message, `function` around them or not."""
    found = []
    for call in message.get("tool_calls") or []:
        function = call.get("function") or call
        found.append(ToolCall(function["name"], function.get("arguments", {})))
    return found


def parse_call(text: str, arguments: str = "arguments") -> ToolCall:
    """The call in {"name": …, "arguments": {…}}, nothing else allowed. CallError otherwise."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CallError(f"the tool call is no JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict) or set(found) != {"name", arguments}:
        raise CallError(f'a tool call is {{"name": …, "{arguments}": {{…}}}}')
    if not isinstance(found["name"], str) or not found["name"]:
        raise CallError("the name of a tool call is a text")
    if not isinstance(found[arguments], dict):
        raise CallError("the arguments of a tool call are an object")
    return ToolCall(found["name"], found[arguments])


def check_messages(messages: Any, *, prompt: bool = False) -> str | None:
    """Why a conversation cannot be learned from; None when it can.

    prompt: it is to be answered, so it ends before an assistant's turn.
    """
    if not isinstance(messages, list) or not messages:
        return "no messages"
    before = ""
    for message in messages:
        if not isinstance(message, dict):
            return "a message is no object"
        role = message.get("role")
        if role not in ROLES:
            return f"unknown role {str(role)[:40]!r}"
        if why := _fault(message, before):
            return why
        before = "call" if message.get("tool_calls") else role
    if prompt:
        return "the last turn is the assistant's" if before in ("assistant", "call") else None
    if all(m["role"] != "assistant" for m in messages):
        return "no assistant turn"
    return None


def _fault(message: Message, before: str) -> str | None:
    """What is wrong with one message after one of role `before` ("call": one with a call)."""
    role, content, calls = message["role"], message.get("content"), message.get("tool_calls")
    if content is not None and not isinstance(content, str):
        return "content is no text"
    if not (content or "").strip() and role != "tool" and not calls:
        return "empty content"
    if role == before == "assistant":
        return "two assistant turns in a row"
    if role == "system" and before:
        return "a system message that is not the first"
    if before == "call" and role != "tool":
        return "a call without result"
    if role == "tool" and before not in ("call", "tool"):
        return "a tool result without a call"
    return call_fault(role, calls) if calls else None


def call_fault(role: str, calls: Any) -> str | None:
    """What is wrong with the calls of a message of that role; None where nothing is."""
    if role != "assistant":
        return f"a call in a {role} message"
    if not isinstance(calls, list) or not all(isinstance(c, dict) for c in calls):
        return "tool_calls is no list of objects"
    for call in calls:
        function = call.get("function") or call
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return "a call without a name"
        if not isinstance(function.get("arguments", {}), dict | str):
            return "arguments of a call are no object"
    return None
