"""Turns of conversations, in the shape of `datasets` and TRL."""

from __future__ import annotations

import json
from typing import Any

from llmctl.tokenizer.chat_messages import ToolCall, tools_line

Message = dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def with_tool(name: str) -> Message:
    """The system message of somebody who may use a tool."""
    return {"role": "system", "content": tools_line([name])}


def call(name: str, argument: str) -> Message:
    """A turn that asks for a tool: python with code, search with a query."""
    arguments = json.dumps({"code" if name == "python" else "query": argument})
    made = ToolCall(name, arguments).as_message()
    return {"role": "assistant", "content": "", "tool_calls": [made]}


def result(name: str, text: str) -> Message:
    return {"role": "tool", "name": name, "content": text}
