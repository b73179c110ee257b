"""What can be typed at the prompt: messages, and commands that begin with /."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmctl.core.errors import nearest


@dataclass(frozen=True)
class Command:
    """One command: how it is written, and what it does, in one line each."""

    name: str
    usage: str
    help: str


COMMANDS = {
    command.name: command
    for command in (
        Command("system", "/system [TEXT | -]", "show, set or (-) remove the system prompt"),
        Command("temp", "/temp [NUMBER]", "temperature: 0 always the likeliest token, 1 the model"),
        Command("top_p", "/top_p [NUMBER]", "draw from the fewest tokens with this probability"),
        Command("top_k", "/top_k [NUMBER]", "draw from so many likeliest tokens; 0 from all"),
        Command("max_tokens", "/max_tokens [NUMBER]", "longest answer"),
        Command("seed", "/seed [NUMBER]", "decides every draw: same seed and words, same answer"),
        Command("retry", "/retry [SEED]", "another answer to the last message, by the next seed"),
        Command("undo", "/undo", "take back the last message and its answer"),
        Command("edit", "/edit [TEXT]", "change the last message ($EDITOR) and answer it anew"),
        Command(
            "branch", "/branch [NUMBER]", "list the branches of this conversation, or go to one"
        ),
        Command("new", "/new", "begin a new conversation; this one stays in its transcript"),
        Command("probs", "/probs [all]", "the likeliest tokens at each place of the last answer"),
        Command("context", "/context", "what fills the context, in tokens, and what is left"),
        Command("tools", "/tools [off | NAME ...]", "show or choose tools: python, search"),
        Command("save", "/save [-f] [FILE]", "write the conversation as JSONL that sft can read"),
        Command("load", "/load FILE [LINE]", "go on with a saved conversation"),
        Command("help", "/help [COMMAND]", "this list"),
        Command("quit", "/quit", "leave (also Ctrl-D)"),
    )
}
ALIASES = {
    "temperature": "temp",
    "max-tokens": "max_tokens",
    "top-p": "top_p",
    "top-k": "top_k",
    "exit": "quit",
    "bye": "quit",
    "q": "quit",
    "regenerate": "retry",
    "clear": "new",
    "branches": "branch",
    "?": "help",
}
_SHAPE = re.compile(r"/([A-Za-z_?-]+)(?:\s+|$)")


@dataclass(frozen=True)
class Say:
    """A message for the model."""

    text: str


@dataclass(frozen=True)
class Do:
    """A command with the rest of its line."""

    name: str
    argument: str


@dataclass(frozen=True)
class Unknown:
    """What looked like a command and is none; `hint` says what was meant, perhaps."""

    word: str
    hint: str


def whole_number(text: str) -> int | None:
    """A number as it is typed, up to the 20 digits of the largest seed; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def parse(line: str) -> Say | Do | Unknown | None:
    """What a line means; None for a blank one.

    A command is a slash and a word alone: /etc/hosts is no command, and neither is //x, which
    says /x.
    """
    if not line.strip():
        return None
    start = line.lstrip()
    if start.startswith("//"):
        return Say(start[1:])
    match = _SHAPE.match(start)
    if match is None:
        return Say(line)
    word = match[1].lower()
    name = ALIASES.get(word, word)
    if name in COMMANDS:
        return Do(name, start[match.end() :].strip())
    near = nearest(word, [*COMMANDS, *ALIASES]) if len(word) > 1 else None
    return Unknown(f"/{match[1]}", f"did you mean /{near}?" if near else "/help lists them")
