"""Calls that were written as text, made into calls.

GPTeacher's Toolformer rows name the tools in the instruction and call them in the middle of the
answer, as in "The area is wolfram('…')." What follows the call rests on a result that nobody has,
so the turn ends with its first call.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from llmctl.data.conversations.messages import BadRow, Notes, note

_HEAD = re.compile(r"toolformer: enabled\ntoolformer access: (?P<names>[^\n]*)\n")
_SIGNATURE = re.compile(r"(?P<name>\w+)\((?P<argument>[\w, ]*)\)")
PLAIN = {"python": "code", "search": "query"}


def is_row(instruction: str) -> bool:
    """Whether an instruction has the head of such a row."""
    return instruction.startswith("toolformer:")


def described(tools: Any) -> str:
    """A system message for the functions of a `tools` column, JSON or parsed; "" without any."""
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            raise BadRow("tools is no JSON") from None
    if not isinstance(tools, list) or not tools:
        return ""
    lines = []
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            raise BadRow("tools is no list of functions")
        lines.append(json.dumps(function, ensure_ascii=False))
    return "\n".join(["You can call these functions:", *lines])


def converted(instruction: str, given: str, answer: str, notes: Notes) -> list[dict[str, Any]]:
    """System, user and assistant message of a row; the answer ends with its first call, if any."""
    head = _HEAD.match(instruction)
    if head is None:
        raise BadRow("toolformer without its list of tools")
    names = [name.strip() for name in head["names"].split(",")]
    lines = instruction[head.end() :].split("\n")
    signatures: dict[str, str] = {}
    about: list[str] = []
    while lines and len(signatures) < len(names):  # a description, then name(argument), each
        line = lines.pop(0)
        match = _SIGNATURE.fullmatch(line.strip())
        if match and match["name"] in names:
            signatures[match["name"]] = match["argument"].strip()
            about[-1:] = [f"{match['name']}: {about[-1] if about else ''}".rstrip()]
        else:
            about.append(line)
    if len(signatures) < len(names):
        raise BadRow("toolformer without the signatures of its tools")
    ask = "\n".join(lines).strip()
    system = "\n".join(["You can call these functions:", *about])
    call = first_call(answer, signatures)
    reply: dict[str, Any] = {"role": "assistant", "content": answer}
    if call is None:
        if any(f"{name}(" in answer for name in names):
            raise BadRow("a call in the text that does not end")
        note(notes, "toolformer answers without a call")
    else:
        before, name, arguments = call
        note(notes, "calls in text made into calls")
        function = {"name": name, "arguments": arguments}
        reply |= {"content": before, "tool_calls": [{"type": "function", "function": function}]}
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": f"{ask}\n\n{given}" if given and ask else ask or given},
        reply,
    ]


def first_call(text: str, signatures: dict[str, str]) -> tuple[str, str, dict[str, str]] | None:
    """(text before, name, arguments) of the first call of a known function in a text."""
    names = "|".join(map(re.escape, signatures))
    for match in re.finditer(rf"(?<![\w.])({names})\(", text):
        if value := _argument(text, match.end()).strip():
            name = match[1]
            key = PLAIN.get(name) or signatures[name].split(",")[0].strip() or "query"
            return text[: match.start()].rstrip(" `\"'"), name, {key: value}
    return None


def _argument(text: str, start: int) -> str:
    """What stands in a call's brackets: the text of string literals, or the expression as it is."""
    end = _closing(text, start)
    inner = text[start:end] if end is not None else ""
    try:
        values = ast.literal_eval(f"({inner},)")
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        values = ()
    if values and all(isinstance(v, str) for v in values):
        return ", ".join(values)
    quote = text[start : start + 1]
    if quote in ("'", '"') and (
        last := re.compile(rf"(?<!\\){quote}\s*\)").search(text, start + 1)
    ):
        return text[
            start + 1 : last.start()
        ]  # an apostrophe in the text: weather('what's it like')
    return inner


def _closing(text: str, start: int) -> int | None:
    """Where the bracket closes that was opened before `start`; quotes hide brackets."""
    depth, quote, at = 1, "", start
    while at < len(text):
        letter = text[at]
        if quote:
            at += letter == "\\"
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
            if not depth:
                return at
        at += 1
    return None
