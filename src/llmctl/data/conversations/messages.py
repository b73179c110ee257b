"""Messages as others write them, made into ours: parts of content, calls in all their spellings."""

from __future__ import annotations

import json
import re
from typing import Any

from llmctl.tokenizer.chat import CallError, Message, ToolCall, parse_call

Notes = dict[str, int]  # what reading changed: how often
ROLE_NAMES = {
    **dict.fromkeys(("user", "human", "prompter", "usr"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bard", "bing"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function_response", "function", "ipython"), "tool"),
    **dict.fromkeys(("tool_response", "tool_result"), "tool"),
    **dict.fromkeys(("function_call", "tool_call", "function-call"), "call"),
}
CALL_TEXT = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
RESULT_TEXT = re.compile(r"\s*<tool_response>\n?(.*?)\n?</tool_response>\s*", re.DOTALL)
REASONING = ("reasoning", "thinking")


class BadRow(ValueError):
    """Why a row cannot be used, in words that many rows can share."""


def note(notes: Notes, what: str) -> None:
    """Count a change."""
    notes[what] = notes.get(what, 0) + 1


def tidy(raw: Any, notes: Notes) -> list[Message]:
    """Messages with only role, content, name and tool_calls, one call a turn. BadRow otherwise."""
    if not isinstance(raw, list) or not all(isinstance(m, dict) for m in raw):
        raise BadRow("messages are no list of objects")
    messages: list[Message] = []
    for message in raw:
        made = _message(message, notes)
        last = messages[-1] if messages else {}
        if made.pop("joins", False) and last.get("role") == "assistant":
            joined = last.get("tool_calls", []) + made["tool_calls"]
            messages[-1] = {**last, "tool_calls": joined}
        else:
            messages.append(made)
    return _one_call_a_turn(messages, notes)


def _message(raw: dict[str, Any], notes: Notes) -> Message:
    """One message. One that is a call alone has the key `joins`: it goes to the turn before."""
    named = raw.get("role", raw.get("from"))
    role = ROLE_NAMES.get(named) if isinstance(named, str) else None
    if role is None:
        raise BadRow(f"unknown role {str(named)[:40]!r}")
    content = next((raw[k] for k in ("content", "value", "text") if k in raw), None)
    if role == "call":
        alone = [c.as_message() for c in _calls(content)]
        return {"role": "assistant", "content": "", "tool_calls": alone, "joins": True}
    calls = _calls(raw.get("tool_calls") or raw.get("function_call") or [])
    if isinstance(content, list):
        content, more = _joined(content, notes)
        calls += more
    if content is None and role == "assistant":
        content = ""
    if isinstance(content, dict) and role == "tool":
        content = json.dumps(content, ensure_ascii=False)
    if not isinstance(content, str):
        raise BadRow("content is no text")
    if role == "assistant" and not calls and "<tool_call>" in content:
        content, calls = _calls_in_text(content)
    if role == "tool" and (inner := RESULT_TEXT.fullmatch(content)):
        content = inner[1]
    message: Message = {"role": role, "content": content}
    if role == "tool" and isinstance(raw.get("name"), str):
        message["name"] = raw["name"]
    if calls:
        message["tool_calls"] = [c.as_message() for c in calls]
    return message


def _joined(parts: list[Any], notes: Notes) -> tuple[str, list[ToolCall]]:
    """(text, calls) of a content that is a list of parts. Reasoning is left out and counted."""
    texts: list[Any] = []
    calls: list[ToolCall] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str):
            texts.append(part)
        elif kind == "text":
            texts.append(part.get("text", part.get("value")))
        elif kind in REASONING:
            note(notes, "reasoning left out")
        elif kind in ("tool_call", "function_call"):
            calls += _calls(part.get("value", part))
        else:
            raise BadRow(f"content of type {str(kind)[:40]!r}, no text")
    if not all(isinstance(t, str) for t in texts):
        raise BadRow("content is no text")
    return "".join(texts), calls


def _calls(raw: Any) -> list[ToolCall]:
    """Calls from JSON text or objects, with or without `function` around them."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise BadRow("a tool call that is no JSON") from None
    found = []
    for call in raw if isinstance(raw, list) else [raw]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRow("a tool call without a name")
        found.append(_call(function["name"], function.get("arguments", {})))
    return found


def _call(name: str, arguments: Any) -> ToolCall:
    """A call with its arguments as an object, parsed where they are JSON in a text."""
    plain = {"python": "code", "search": "query"}.get(name)
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict) and plain:
            parsed = {plain: arguments}
        arguments = parsed
    if not isinstance(arguments, dict):
        raise BadRow("arguments of a tool call are no object")
    return ToolCall(name, arguments)


def _calls_in_text(content: str) -> tuple[str, list[ToolCall]]:
    """(text before, calls) of a turn that ends with <tool_call>{…}</tool_call>."""
    try:
        calls = [parse_call(text) for text in CALL_TEXT.findall(content)]
    except CallError as error:
        raise BadRow("a tool call in the text that is no JSON") from error
    before, _, _ = content.partition("<tool_call>")
    if CALL_TEXT.sub("", content[len(before) :]).strip():
        raise BadRow("text after a tool call")
    return before.rstrip(), calls


def _one_call_a_turn(messages: list[Message], notes: Notes) -> list[Message]:
    """Calls made at once put one after the other, each before its result."""
    done: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        calls = message.get("tool_calls") or []
        at += 1
        if len(calls) < 2:
            done.append(message)
            continue
        results: list[Message] = []
        while at < len(messages) and messages[at]["role"] == "tool" and len(results) < len(calls):
            results.append(messages[at])
            at += 1
        if not results and at == len(messages):  # the first one alone: its result would come next
            note(notes, "calls without results after the first left out")
            done.append({**message, "tool_calls": calls[:1]})
            break
        done += _sequence(message, calls, _results(results, len(calls)))
        note(notes, "calls made at once put in a row")
    return done


def _results(results: list[Message], n: int) -> list[Message]:
    """A result for each of n calls: as many messages, or one with a JSON list of as many."""
    if len(results) == 1 and n > 1:
        try:
            values = json.loads(results[0]["content"])
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, list) and len(values) == n:
            texts = [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
            return [{"role": "tool", "content": text} for text in texts]
    if len(results) != n:
        raise BadRow("several calls at once whose results cannot be told apart")
    return results


def _sequence(message: Message, calls: list[Any], results: list[Message]) -> list[Message]:
    turns: list[Message] = []
    for n, (call, result) in enumerate(zip(calls, results)):
        content = message["content"] if n == 0 else ""
        turns += [{"role": "assistant", "content": content, "tool_calls": [call]}, result]
    return turns
