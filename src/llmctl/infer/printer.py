"""Completions on stdout: plain text as it comes, the biased coin of each token, or JSON lines.

Results appear in the order asked for: the first unfinished one streams, later ones wait for it.
On a terminal nothing that a model wrote can steer it (console.printable).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from llmctl.core.console import printable
from llmctl.infer.engine import Completion, Event
from llmctl.tokenizer.bpe import Tokenizer

BAR = 30  # characters of a probability of 1
EIGHTHS = " ▏▎▍▌▋▊▉"
SEPARATOR = "---"  # between results, a line of its own
Piece = tuple[str, bool]  # text, and whether it is an aside: a tool call


class TextPrinter:
    """The prompt, if it is echoed, and what follows it. Several results have a line `---` between
    them. Tool calls are shown on a terminal only, dimmed: elsewhere there is nothing but the text.
    raw: let control characters through to a terminal. gap: between an echoed prompt and the rest.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        *,
        echo: bool,
        stream: bool,
        raw: bool,
        out: TextIO,
        gap: str = "",
    ) -> None:
        self.prompts, self.echo, self.stream, self.out = prompts, echo, stream, out
        self.terminal, self.gap = out.isatty(), gap
        self.safe = self.terminal and not raw
        self.dim = self.terminal and not os.environ.get("NO_COLOR")
        self.current = 0
        self.begun = False
        self.open_line = False
        self.waiting: dict[int, list[Piece]] = {}
        self.done: set[int] = set()

    def take(self, event: Event) -> None:
        """Print what can be printed after one more event."""
        index = event.completion.index
        pieces = self.waiting.setdefault(index, [])
        pieces.append((self.render(event), False))
        if self.terminal and (event.asked or event.call):
            pieces.append((_call_lines(event), True))
        if event.completion.finish_reason is not None:
            self.done.add(index)
        while self.current in self.done:
            self._show(self.current)
            self.end_line()
            self.current, self.begun = self.current + 1, False
        if self.stream and self.current in self.waiting:
            self._show(self.current)
        self.out.flush()

    def render(self, event: Event) -> str:
        """The characters an event adds."""
        return event.text

    def _show(self, index: int) -> None:
        if not self.begun:
            self.begun = True
            if index:
                self.write(SEPARATOR + "\n")
            if self.echo:
                self.write(self.prompts[index] + self.gap)
        for text, aside in self.waiting.pop(index, []):
            if aside:
                self.end_line()
            self.write(text, dim=aside)

    def write(self, text: str, *, dim: bool = False) -> None:
        """Text to stdout; lone surrogates, which UTF-8 cannot hold, become a question mark."""
        if not text:
            return
        text = text.encode("utf-8", "replace").decode("utf-8")
        self.open_line = not text.endswith("\n")
        shown = printable(text) if self.safe else text
        self.out.write(f"\x1b[2m{shown}\x1b[0m" if dim and self.dim else shown)

    def end_line(self) -> None:
        """End the line that is open; the terminal's prompt or the next result starts on its own."""
        if self.open_line:
            self.write("\n")


class ProbsPrinter(TextPrinter):
    """For every token the most likely ones with their probabilities; the drawn one is marked."""

    def __init__(self, tokenizer: Tokenizer, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tokenizer = tokenizer

    def _show(self, index: int) -> None:
        if not self.begun and self.echo:
            shown = json.dumps(self.prompts[index], ensure_ascii=False)
            self.waiting.setdefault(index, []).insert(0, (f"{shown}\n", False))
            self.begun = True
            if index:
                self.write(SEPARATOR + "\n")
        super()._show(index)

    def render(self, event: Event) -> str:
        """One block of bars a token, and at the end the text."""
        completion = event.completion
        block = self._bars(completion) if event.call is None else ""  # a call adds no token
        if completion.finish_reason is not None:
            text = self.prompts[completion.index] + completion.text
            block += f"text: {json.dumps(text, ensure_ascii=False)}\n"
        return block

    def _bars(self, completion: Completion) -> str:
        lines = [""]
        drawn = completion.ids[-1]
        rows = list(completion.probs[-1])
        if all(id != drawn for id, _ in rows):
            rows.append((drawn, _exp(completion.logprobs[-1])))
        for id, probability in rows:
            mark = "◂" if id == drawn else ""
            name = token_name(self.tokenizer, id)
            lines.append(f"{probability:7.2%}  {bar(probability)}  {name} {mark}".rstrip())
        return f"token {len(completion.ids)}" + "\n".join(lines) + "\n"


class JsonPrinter(TextPrinter):
    """One JSON object a completion, a line each."""

    def __init__(
        self, tokenizer: Tokenizer, samples: int, *args: Any, tools: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.tokenizer, self.samples, self.tools = tokenizer, samples, tools
        # JSON escapes control characters itself
        self.echo = self.stream = self.safe = self.terminal = False

    def _show(self, index: int) -> None:
        self.write("".join(text for text, _ in self.waiting.pop(index)))

    def render(self, event: Event) -> str:
        """The whole object with the last event, nothing before it."""
        completion = event.completion
        if completion.finish_reason is None:
            return ""
        row = as_json(completion, self.prompts[completion.index], self.tokenizer, self.tools)
        row["index"], row["sample"] = divmod(completion.index, self.samples)
        return json.dumps(row, ensure_ascii=False).translate(_C1) + "\n"


# DEL and C1, which JSON allows as they are and a terminal obeys
_C1 = {code: f"\\u{code:04x}" for code in [0x7F, *range(0x80, 0xA0)]}


def as_json(
    completion: Completion, prompt: str, tokenizer: Tokenizer, tools: bool = False
) -> dict[str, Any]:
    """A completion as JSON holds it; logprobs, probs, tool calls where they were asked for."""
    row: dict[str, Any] = {
        "prompt": prompt,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "prompt_tokens": len(completion.prompt_ids),
        "tokens": len(completion.ids),
        "ids": completion.ids,
    }
    if completion.logprobs:
        row["logprobs"] = [round(value, 6) for value in completion.logprobs]
    if tools:
        row["calls"] = [call.as_json() for call in completion.calls]
        row["sampled"] = completion.sampled
    if completion.probs:
        row["probs"] = [
            [{"id": i, "token": tokenizer.decode([i]), "prob": round(p, 6)} for i, p in step]
            for step in completion.probs
        ]
    return row


def _call_lines(event: Event) -> str:
    """A call as it is made, or its result."""
    if event.call is not None:
        return f"= {event.call.result}\n"
    assert event.asked is not None
    arguments = event.asked.arguments
    if isinstance(arguments, dict) and len(arguments) == 1:
        [arguments] = arguments.values()
    shown = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f"{event.asked.name}: {shown}\n"


def bar(probability: float) -> str:
    """A bar of BAR characters, in eighths of one."""
    eighths = round(probability * BAR * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + EIGHTHS[rest].strip()).ljust(BAR)


def token_name(tokenizer: Tokenizer, id: int) -> str:
    """A token as a person can read it: in quotes, control characters and stray bytes escaped."""
    raw = tokenizer.decode_bytes([id])
    try:
        return printable(json.dumps(raw.decode("utf-8"), ensure_ascii=False))
    except UnicodeDecodeError:
        return repr(raw)


def _exp(logprob: float) -> float:
    import math

    return math.exp(logprob)


def stdout() -> TextIO:
    """stdout as UTF-8, whatever the locale says."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    return sys.stdout
