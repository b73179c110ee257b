"""How a line is read: an editor on a terminal, plain lines elsewhere.

On a terminal Enter sends and Alt-Enter begins a new line, a paste of several lines is one message,
and lines of earlier sessions come back with the arrow keys. Where stdin was the pipe that brought
the model's path, the terminal itself (/dev/tty) takes its place.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TextIO

from llmctl.chat.commands import COMMANDS
from llmctl.chat.store import History
from llmctl.core.errors import UsageError
from llmctl.core.terminal import printable

PROMPT, CONTINUATION = "> ", "  "
QUOTES = '"""'  # begins and ends a message of several lines where lines are plain


class Reader(Protocol):
    """Where lines come from. typed: what stood in the line when Ctrl-C was pressed. can_prefill:
    a line may begin with a default. trouble: what the user should be told, once."""

    interactive: bool
    can_prefill: bool
    typed: str
    trouble: str

    def read(self, default: str = "") -> str:
        """The next line or message; EOFError at the end, KeyboardInterrupt for Ctrl-C."""
        ...


class PlainReader:
    """Lines of a file or pipe, shown again on stderr so that what is printed can be followed; or
    of a terminal without line editor. A line of three quotes begins and ends a longer message."""

    can_prefill = False

    def __init__(self, source: TextIO, echo: TextIO) -> None:
        self.source, self.echo, self.typed, self.trouble = source, echo, "", ""
        self.interactive = source.isatty()

    def read(self, default: str = "") -> str:
        line = self._line(PROMPT)
        start = line.lstrip()
        if not start.startswith(QUOTES):
            return line
        lines = [start.removeprefix(QUOTES)]
        with contextlib.suppress(EOFError):  # the end ends the message too
            while not lines[-1].rstrip().endswith(QUOTES):
                lines.append(self._line(CONTINUATION))
        lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
        return "\n".join(lines).strip("\n")

    def _line(self, prompt: str) -> str:
        if self.interactive:
            self.echo.write(prompt)
            self.echo.flush()
        line = self.source.readline()
        if not line:
            raise EOFError
        line = line.rstrip("\r\n")
        if not self.interactive:
            print(prompt + printable(line), file=self.echo, flush=True)
        return line


class PromptReader:
    """A line editor, by prompt_toolkit."""

    interactive = can_prefill = True

    def __init__(self, history: History, output: TextIO) -> None:
        """ImportError without prompt_toolkit."""
        from prompt_toolkit import PromptSession
        from prompt_toolkit.output import create_output

        self.typed = self.trouble = ""
        self.history = history
        self.session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            key_bindings=_keys(),
            history=_history(history),
            completer=_completer(),
            complete_while_typing=False,
            enable_suspend=True,
            output=create_output(stdout=output),
        )

    def read(self, default: str = "") -> str:
        self.typed = ""
        try:
            line = self.session.prompt(default=default)
            self.trouble, self.history.trouble = self.history.trouble, ""
            return line
        except KeyboardInterrupt:
            self.typed = self.session.default_buffer.text
            raise


def _keys() -> Any:
    """Enter sends, Alt-Enter begins a new line."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def send(event: Any) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("escape", "c-j")
    def newline(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history(kept: History) -> Any:
    """Our private file, as prompt_toolkit wants it: newest first."""
    from prompt_toolkit.history import History as Base

    class Private(Base):
        def load_history_strings(self) -> Iterable[str]:
            return reversed(kept.load())

        def store_string(self, string: str) -> None:
            kept.append(string)

    return Private()


def _completer() -> Any:
    """Tab completes the names of commands."""
    from prompt_toolkit.completion import Completer, Completion

    class Commands(Completer):
        def get_completions(self, document: Any, event: Any) -> Iterator[Completion]:
            word = document.text_before_cursor
            if word.startswith("/") and not word[1:].strip("abcdefghijklmnopqrstuvwxyz_"):
                for command in COMMANDS.values():
                    if command.name.startswith(word[1:]):
                        yield Completion(
                            "/" + command.name,
                            start_position=-len(word),
                            display_meta=command.help,
                        )

    return Commands()


def open_reader(history: History, talk: TextIO) -> Reader:
    """The reader for this process: the editor, plain lines, or plain lines of a pipe.

    UsageError (2) when stdin brings nothing (it brought the model's path, say) and there is no
    terminal to talk through.
    """
    if not sys.stdin or sys.stdin.closed or (not sys.stdin.isatty() and _is_spent(sys.stdin)):
        _take_terminal()
    if sys.stdin.isatty() and os.environ.get("TERM") != "dumb" and talk.isatty():
        with contextlib.suppress(ImportError):
            return PromptReader(history, talk)
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return PlainReader(sys.stdin, talk)


def _is_spent(stdin: TextIO) -> bool:
    """Whether a pipe or file on stdin has nothing (more) to say. Waits for a silent pipe."""
    try:
        return not stdin.buffer.peek(1)  # type: ignore[attr-defined]
    except (OSError, ValueError):
        return True


def _take_terminal() -> None:
    """Make the terminal stdin. UsageError (2) when this process has none."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        raise UsageError(
            "chat talks through a terminal, and here is none: ask with -p QUESTION, with -p - "
            "for a question on stdin, or name the model and pipe messages in, one a line"
        ) from None
    os.dup2(terminal, 0)
    os.close(terminal)
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)


def edit_text(text: str) -> str | None:
    """The text as it comes back from $VISUAL or $EDITOR; None when it was not saved well.

    UsageError (2) when none is set or it cannot be started.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(editor)
    except ValueError as error:
        raise UsageError(f"$EDITOR: {error}") from None
    if not words:
        raise UsageError("no editor: set $EDITOR, or write /edit and the new text")
    fd, name = tempfile.mkstemp(prefix="llmctl-", suffix=".txt")  # mode 0600
    path = Path(name)
    previous = signal.signal(signal.SIGINT, lambda number, frame: None)  # Ctrl-C is the editor's
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        if subprocess.run([*words, name]).returncode:
            return None
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError as error:
        raise UsageError(f"{words[0]}: {error.strerror}; set $EDITOR to one that is here") from None
    finally:
        signal.signal(signal.SIGINT, previous)
        path.unlink(missing_ok=True)
