"""Tools told and called in plain text, for chat templates that have no place for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llmctl.tokenizer.chat_messages import Message, ToolCall


def told_of(tools: list[dict[str, Any]], messages: Sequence[Message]) -> list[Message]:
    """Messages whose system message tells of tools and of how they are called."""
    text = "\n".join(
        [
            "You can call these functions:",
            *(json.dumps(tool["function"], ensure_ascii=False) for tool in tools),
            "To call one, end your turn with <tool_call>",
            '{"name": name, "arguments": {arguments}}',
            "</tool_call>",
        ]
    )
    if messages and messages[0].get("role") == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def as_text(call: ToolCall) -> str:
    """A call as text, in the way most small chat models write it."""
    arguments = call.arguments
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    name = json.dumps(call.name, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'


def is_call(text: str, key: str) -> bool:
    """Whether a whole text is a JSON object with a name and arguments."""
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"name", key} <= set(found)
