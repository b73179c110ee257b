"""What each command does. A function a command; its argument is the rest of the line."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from typing import Any

from llmctl.chat.commands import ALIASES, COMMANDS, whole_number
from llmctl.chat.conversation import Turn
from llmctl.chat.keeping import load, new, recall, save
from llmctl.chat.session import Chat
from llmctl.chat.show import probs_table
from llmctl.chat.terminal import Reader, edit_text
from llmctl.core.console import render_table
from llmctl.core.errors import LlmctlError, UsageError, did_you_mean
from llmctl.core.terminal import one_line
from llmctl.infer.params import MASK64

Action = Callable[[Chat, Reader, str], None]
SNIPPET = 56  # characters of a message in a list
THOUSANDS = re.compile(r"\d{1,3}(?:[,_]\d{3})+")  # as 16,384 is written


def do(chat: Chat, reader: Reader, name: str, argument: str) -> None:
    """Run one command. LlmctlError says why it could not be done."""
    ACTIONS[name](chat, reader, argument)


def system(chat: Chat, reader: Reader, text: str) -> None:
    conversation = chat.conversation
    if not text:
        chat.show.plain(conversation.system or "no system prompt; /system TEXT sets one")
        return
    wanted = "" if text == "-" else text
    taken = len(chat.prompt_ids(_system_only(wanted))) if wanted else 0
    size = chat.engine.config.max_seq_len
    if taken > size // 2:
        tools = f", with tools {', '.join(chat.tools.names)}," if chat.tools.names else ""
        raise UsageError(
            f"a system prompt of {taken:,} tokens{tools} leaves too little of the context of "
            f"{size:,}; at most {size // 2:,}"
        )
    conversation.system = wanted
    chat.show.note(f"system prompt {'set' if conversation.system else 'removed'}")
    chat.save()


def _system_only(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": text}, {"role": "user", "content": ""}]


def _number(name: str, kind: type[int] | type[float]) -> Action:
    """A command that shows or sets one number of the sampling settings."""

    def action(chat: Chat, reader: Reader, text: str) -> None:
        if text:
            try:
                value = int(_plain(text)) if kind is int else _decimal(text)
            except ValueError:
                word = "a whole number" if kind is int else "a number, such as 0.7"
                raise UsageError(f"{name} must be {word}; got {text!r}") from None
            change: dict[str, Any] = {name: value}
            chat.params = dataclasses.replace(chat.params, **change)
        chat.show.plain(f"{name} {getattr(chat.params, name)}")

    return action


def _plain(digits: str) -> str:
    """A whole number without the marks between its thousands; 1,5 is no such number."""
    return re.sub("[,_]", "", digits) if THOUSANDS.fullmatch(digits) else digits


def _decimal(text: str) -> float:
    """A number with a decimal point. ValueError for 0,7 and 0_7, which were meant as 0.7."""
    if "_" in text:
        raise ValueError(text)
    return float(text)


def undo(chat: Chat, reader: Reader, _: str) -> None:
    turn = chat.conversation.undo()
    if turn is None:
        raise UsageError("nothing to take back")
    chat.show.note(f"taken back: {one_line(turn.text, SNIPPET)}")
    chat.save()


def retry(chat: Chat, reader: Reader, text: str) -> None:
    seed = None
    if text:
        seed = whole_number(text)
        if seed is None or seed > MASK64:
            raise UsageError(f"/retry takes a seed, a whole number; got {one_line(text, SNIPPET)}")
    at = chat.conversation.at
    turn = chat.conversation.back_to_user()
    if turn is None:
        raise UsageError("no message to answer again")
    _answer_again(chat, at, seed)


def edit(chat: Chat, reader: Reader, text: str) -> None:
    conversation = chat.conversation
    turn = conversation.last_user()
    if turn is None:
        raise UsageError("no message to change")
    if not text and not (os.environ.get("VISUAL") or os.environ.get("EDITOR")):
        if reader.can_prefill:
            conversation.undo()
            chat.draft = turn.text
            chat.show.note("the message stands in the line again; Enter sends it")
            return
    new = text or edit_text(turn.text)
    if new is None or not new.strip() or new == turn.text:
        chat.show.note("unchanged")
        return
    at = conversation.at
    conversation.at = turn.parent
    if not text:
        chat.show.plain("> " + new)
    try:
        chat.ask(new, reader)
    finally:
        if conversation.at == turn.parent:  # nothing was answered: where we were before
            conversation.at = at


def _answer_again(chat: Chat, at: int | None, seed: int | None) -> None:
    """Answer the message we are at; back to turn `at` when nothing is said."""
    try:
        answer = chat.reply(seed)
    except BaseException:
        if chat.conversation.last_answer() is None:
            chat.conversation.at = at
        raise
    if chat.conversation.last_answer() is None:
        chat.conversation.at = at
        chat.show.note("stopped" if answer.stopped else "the model said nothing")
    else:
        said = f"another answer, by seed {answer.seed}; /branch goes back"
        if chat.params.temperature == 0:
            said = "at temperature 0 every answer is the same; /temp 0.7 lets it vary"
        chat.show.note(said)


def branch(chat: Chat, reader: Reader, text: str) -> None:
    conversation = chat.conversation
    leaves = conversation.leaves()
    if not text:
        if not leaves:
            raise UsageError("nothing was said yet")
        here = {turn.number for turn in conversation.path()}
        rows = []
        for number, leaf in enumerate(leaves, 1):
            turn = conversation.turns[leaf]
            user = turn
            if turn.parent is not None and not turn.is_user:
                user = conversation.turns[turn.parent]
            said = turn.text if not turn.is_user else "-"
            mark = "here" if leaf in here else ""
            asked = user.text if user.is_user else "-"
            rows.append(
                (
                    number,
                    len(conversation.path(leaf)),
                    one_line(asked, 32),
                    one_line(said, 40),
                    mark,
                )
            )
        names = ["", "turns", "last message", "its answer", ""]
        cells = [[str(cell) for cell in row] for row in rows]
        chat.show.plain(render_table("", names, cells, left=len(names)))
        return
    wanted = whole_number(text)
    if wanted is None or not 1 <= wanted <= len(leaves):
        got = one_line(text, SNIPPET)
        raise UsageError(f"/branch takes a number from 1 to {len(leaves)}; got {got}")
    conversation.switch(leaves[wanted - 1])
    due = None if conversation.last_answer() else conversation.undo()
    recall(chat)
    if due is not None:
        _offer(chat, reader, due)
    chat.save()


def _offer(chat: Chat, reader: Reader, turn: Turn) -> None:
    """Say of a message that it has no answer; where lines can begin with a text, it is sent again
    by one key."""
    said = f"its last message has no answer: {one_line(turn.text, SNIPPET)}"
    if reader.can_prefill:
        chat.draft = turn.text
        said = "its last message has no answer and stands in the line; Enter sends it"
    chat.show.note(f"[{said}]")


def probs(chat: Chat, reader: Reader, text: str) -> None:
    if text not in ("", "all"):
        raise UsageError(f"/probs takes nothing, or all; got {text!r}")
    turn = chat.conversation.last_answer()
    if turn is None:
        raise UsageError("no answer yet")
    completion = chat.completions.get(turn.number)
    if completion is None:
        raise UsageError("this answer was loaded, so its probabilities are not known; /retry")
    table = probs_table(chat.engine.tokenizer, completion, every=text == "all")
    chat.show.plain(table)


def context(chat: Chat, reader: Reader, _: str) -> None:
    conversation, size = chat.conversation, chat.engine.config.max_seq_len
    messages: list[dict[str, str]] = []
    before = _length(chat, messages)
    rows: list[tuple[str, str, int]] = [("format", "", before)]
    groups = [("system", [{"role": "system", "content": conversation.system}])]
    groups = groups if conversation.system else []
    groups += [("you" if t.is_user else "model", t.messages) for t in conversation.path()]
    for who, group in groups:
        messages = [*messages, *group]
        after = _length(chat, messages)
        rows.append((who, one_line(group[0]["content"], SNIPPET), after - before))
        before = after
    cells = [[who, text, f"{tokens:,}"] for who, text, tokens in rows]
    chat.show.plain(render_table("", ["who", "said", "tokens"], cells, left=2))
    left = max(0, size - before)
    said = f"context {before:,} of {size:,} tokens, {left:,} left"
    if chat.dropped:
        said += f"; the {chat.dropped:,} oldest exchanges are not sent any more"
    chat.show.plain(said)


def _length(chat: Chat, messages: list[dict[str, str]]) -> int:
    """Tokens of a prompt; a format that refuses a conversation without a message gives 0."""
    try:
        return len(chat.prompt_ids(messages))
    except LlmctlError:
        return 0


def tools(chat: Chat, reader: Reader, text: str) -> None:
    names = text.replace(",", " ").split()
    if names in (["off"], ["none"], ["-"]):
        chat.tools.choose(())
    elif names:
        chat.tools.choose(chat.tools.known if names in (["on"], ["all"]) else names)
    in_use = ", ".join(chat.tools.names) or "none in use; /tools NAME, of python and search"
    chat.show.plain(f"tools: {in_use}")


def help(chat: Chat, reader: Reader, text: str) -> None:
    word = text.lstrip("/").lower()
    name = ALIASES.get(word, word)
    if word and name not in COMMANDS:
        raise UsageError(f"no command /{word}{did_you_mean(word, list(COMMANDS))}")
    chosen = [COMMANDS[name]] if word else list(COMMANDS.values())
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [f"{command.usage.ljust(width)}  {command.help}" for command in chosen]
    if not word:
        lines.append("Enter sends, Alt-Enter begins a new line; Ctrl-C stops an answer")
    chat.show.plain("\n".join(lines))


def quit(chat: Chat, reader: Reader, _: str) -> None:
    chat.left = True


ACTIONS: dict[str, Action] = {
    "system": system,
    "temp": _number("temperature", float),
    "top_p": _number("top_p", float),
    "top_k": _number("top_k", int),
    "max_tokens": _number("max_tokens", int),
    "seed": _number("seed", int),
    "retry": retry,
    "undo": undo,
    "edit": edit,
    "branch": branch,
    "new": new,
    "probs": probs,
    "context": context,
    "tools": tools,
    "save": save,
    "load": load,
    "help": help,
    "quit": quit,
}
