"""Conversations that come and go: saved, loaded, begun anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmctl.chat import store
from llmctl.chat.commands import whole_number
from llmctl.chat.conversation import VERSION, Conversation
from llmctl.chat.session import Chat
from llmctl.chat.terminal import Reader
from llmctl.core.errors import NoInput, OutputBusy, UsageError


def new(chat: Chat, reader: Reader, _: str) -> None:
    _replace(chat, Conversation(chat.conversation.system), None)
    chat.show.note("a new conversation")


def save(chat: Chat, reader: Reader, text: str) -> None:
    if not chat.conversation.turns:
        raise UsageError("nothing was said yet")
    force = text.startswith("-f ") or text == "-f"
    name = text[2:].strip() if force else text
    if not name:
        names = sorted(chat.saved_as)
        name = names[0] if names else ""
    if not name:
        kept = chat.transcript and chat.transcript.path
        chat.show.plain(f"kept in {kept}; /save FILE writes a copy" if kept else "/save FILE")
        return
    path = _path(name)
    if path.exists() and not force and str(path.absolute()) not in chat.saved_as:
        raise OutputBusy(f"{path}: exists already; /save -f {path} replaces it")
    if not path.parent.is_dir():
        raise NoInput(f"{path.parent}: no such folder")
    store.write_row(path, chat.row())
    chat.saved_as.add(str(path.absolute()))
    chat.show.note(f"saved as {path}; `llmctl sft --data {path}` can learn from it")


def load(chat: Chat, reader: Reader, text: str) -> None:
    if not text:
        raise UsageError("/load FILE, or /load FILE LINE")
    name, _, typed = text.rpartition(" ")
    line = whole_number(typed)
    if not name or line is None or _path(text).exists():
        name, line = text, 1
    path = _path(name)
    rows = store.read_rows(path)
    conversation, said = _choose(rows, line, path)
    _replace(chat, conversation, path if _is_saved(rows) else None)
    if said:
        chat.show.note(said)
    recall(chat)


def load_conversation(path: Path, line: int = 1) -> tuple[Conversation, str]:
    """A conversation of a file, and what the user should know of it."""
    return _choose(store.read_rows(path), line, path)


def _choose(rows: list[Any], line: int, path: Path) -> tuple[Conversation, str]:
    if not 1 <= line <= len(rows):
        raise UsageError(f"{path}: holds {len(rows):,} conversations, so no number {line:,}")
    where = f"{path}, conversation {line:,}" if len(rows) > 1 else str(path)
    found = Conversation.from_row(rows[line - 1], where)
    said = f"[number {line:,} of {len(rows):,} conversations in {path}]" if len(rows) > 1 else ""
    if found.at is not None and found.turns[found.at].is_user:
        found.undo()
        said = "[its last message has no answer and is left out]"
    return found, said


def _is_saved(rows: list[Any]) -> bool:
    """Whether a file holds what /save writes and no more, so that saving again loses nothing."""
    if len(rows) != 1 or not isinstance(rows[0], dict) or set(rows[0]) != {"messages", "chat"}:
        return False
    tree = rows[0]["chat"]
    return isinstance(tree, dict) and tree.get("version") == VERSION


def _path(name: str) -> Path:
    """A path as it is typed. UsageError (2) for one that no file can have."""
    if "\0" in name:
        raise UsageError(f"{name!r}: no file's name holds a NUL; name another")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UsageError(f"{name}: there is no such user; write the folder in full") from None


def recall(chat: Chat) -> None:
    """Show the last exchange of where we are now."""
    path = chat.conversation.path()
    chat.show.note(f"[{len(path)} turns; the last:]" if path else "[0 turns]")
    for turn in path[-2:]:
        chat.show.plain(f"> {turn.text}" if turn.is_user else turn.text)


def _replace(chat: Chat, conversation: Conversation, file: Path | None) -> None:
    """Go on with another conversation, in a transcript of its own."""
    chat.conversation, chat.completions, chat.dropped = conversation, {}, 0
    chat.prefix.free()
    chat.saved_as = {str(file.absolute())} if file else set()
    if chat.transcript is not None:
        chat.transcript = store.Transcript(chat.transcript.folder, chat.transcript.model)
