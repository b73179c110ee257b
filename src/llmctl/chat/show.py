"""What a chat prints: the answer on stdout, everything else on stderr.

On a terminal the two interleave. Nothing is printed that could steer the terminal: all text goes
through core/terminal.py, model, tools, file names and errors alike.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, TextIO

from llmctl.core.console import render_table
from llmctl.core.terminal import one_line, printable
from llmctl.infer.completion import CallRecord, Completion
from llmctl.infer.printer import token_name
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import ToolCall

DIM, RED, RESET = "\x1b[2m", "\x1b[31m", "\x1b[0m"
RESULT_LINES, RESULT_WIDTH = 12, 200  # of a tool's result that are shown
PROBS_SHOWN = 100  # tokens that /probs lists, unless all are asked for


class Show:
    """out: answers. talk: the rest. raw: out is given the model's text as it is (a file, a pipe).
    colour: talk may be dimmed."""

    def __init__(self, out: TextIO, talk: TextIO, *, raw: bool = False, colour: bool) -> None:
        self.out, self.talk, self.raw, self.colour = out, talk, raw, colour
        self.open_line = False  # the answer stands in the middle of a line
        self.begun = False

    def note(self, text: str) -> None:
        """Lines about the conversation, not of it."""
        self._say(text, DIM)

    def error(self, text: str) -> None:
        """One line on what could not be done."""
        self._say(one_line(text), RED)

    def plain(self, text: str) -> None:
        """Text that was asked for: a table, a list."""
        self._say(text, "")

    def _say(self, text: str, paint: str) -> None:
        self.break_line()
        shown = printable(text)
        if self.colour and paint:
            shown = "\n".join(f"{paint}{line}{RESET}" for line in shown.split("\n"))
        with contextlib.suppress(OSError):  # the terminal may be gone; the answer's stream tells
            print(shown, file=self.talk, flush=True)

    def answer(self, piece: str) -> None:
        """More of the answer; space in front of its first word is left out."""
        if not self.begun:
            piece = piece.lstrip()
        if not piece:
            return
        self.begun = True
        text = piece.encode("utf-8", "replace").decode("utf-8")
        self.out.write(text if self.raw else printable(text))
        self.out.flush()
        self.open_line = not text.endswith("\n")

    def end_answer(self) -> None:
        """The answer is over; what comes next stands on a line of its own."""
        if self.open_line:
            self._newline()
        self.open_line = self.begun = False

    def break_line(self) -> None:
        """Leave the answer's line where out and talk are one terminal."""
        if self.open_line and self.out.isatty():
            self._newline()
            self.open_line = False

    def _newline(self) -> None:
        with contextlib.suppress(OSError):  # a reader that has gone is met at the next text
            self.out.write("\n")
            self.out.flush()

    def asked(self, call: ToolCall) -> None:
        """The model has called a tool, which now runs."""
        self.note(_block(f"[{one_line(call.name, 40)}] ", _argument(call.arguments)))

    def result(self, record: CallRecord) -> None:
        """What the tool said."""
        name = f"[result, {record.seconds:.2f} s] " if record.name else "[refused] "
        self.note(_block(name, record.result))


def _argument(arguments: str | Mapping[str, Any]) -> str:
    """What a call asks for, as a person reads it: code and queries as they are, others as JSON."""
    if isinstance(arguments, str):
        return arguments
    if len(arguments) == 1 and isinstance(only := next(iter(arguments.values())), str):
        return only
    return json.dumps(arguments, ensure_ascii=False)


def _block(head: str, text: str) -> str:
    """Text behind a heading, its lines aligned, cut where it is long."""
    lines = text.rstrip("\n").split("\n")
    shown = [line if len(line) <= RESULT_WIDTH else line[:RESULT_WIDTH] + "…" for line in lines]
    if len(shown) > RESULT_LINES:
        left = len(shown) - RESULT_LINES
        shown = [*shown[:RESULT_LINES], f"… {left:,} more lines"]
    return head + ("\n" + " " * len(head)).join(shown)


def probs_table(tokenizer: Tokenizer, completion: Completion, *, every: bool = False) -> str:
    """A line a token: what was drawn with its probability, then the likeliest."""
    from math import exp

    rows: list[list[str]] = []
    for number, id in enumerate(completion.ids):
        if not completion.sampled[number]:
            continue
        best = completion.probs[number]
        listed = "  ".join(f"{token_name(tokenizer, i)} {p:.1%}" for i, p in best)
        drawn = token_name(tokenizer, id)
        own = f"{exp(completion.logprobs[number]):.1%}"
        rows.append([f"{len(rows) + 1:,}", drawn, own, listed])
    shown = rows if every else rows[:PROBS_SHOWN]
    table = render_table("", ["", "token", "prob", "likeliest"], shown, left=4)
    if len(shown) < len(rows):
        table += f"\n… {len(rows) - len(shown):,} more tokens: /probs all"
    return table
