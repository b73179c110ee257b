"""Talk, on stderr only: lines, tables and progress. stdout belongs to data.

On a terminal progress is a live bar; elsewhere (a log file, a pipe, CI) it is a plain line now and
then. Ranks other than 0 are silent. rich is imported when something is first printed in colour.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llmctl.core.terminal import printable as printable

PLAIN_EVERY = 5.0  # seconds between progress lines where stderr is no terminal


def is_terminal() -> bool:
    """Whether stderr is a terminal that a person looks at."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def is_silent() -> bool:
    """Whether this process is a rank that must not talk."""
    return os.environ.get("RANK", "0") != "0"


def colours() -> bool:
    """Whether stderr may carry colour: a terminal, and NO_COLOR is not set."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def info(message: str) -> None:
    """One line for the user."""
    if not is_silent():
        print(printable(message), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """One line about something the user should know and may have to act on."""
    if is_silent():
        return
    start, end = ("\x1b[33m", "\x1b[0m") if colours() else ("", "")
    print(f"{start}warning:{end} {printable(message)}", file=sys.stderr, flush=True)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, left: int = 1
) -> None:
    """Print a table on stderr: the first `left` columns left-aligned, the others right."""
    if not is_silent():
        print(render_table(title, columns, rows, left=left), file=sys.stderr, flush=True)


def render_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, left: int = 1
) -> str:
    """The text of a table: aligned columns under a rule, numbers with thousands separators."""
    cells = [[printable(_cell(value)) for value in row] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in cells), 0) for i, c in enumerate(columns)]

    def line(values: Sequence[str]) -> str:
        parts = [
            v.ljust(w) if i < left else v.rjust(w) for i, (v, w) in enumerate(zip(values, widths))
        ]
        return "  ".join(parts).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join(
        [*([title] if title else []), line(list(columns)), rule, *(line(row) for row in cells)]
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


class Progress:
    """Counts work done and says so; made by `progress`."""

    def __init__(self, what: str, total: float | None, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0.0
        self.started = self._said = time.monotonic()
        self._note = ""
        self._bar: Any = None

    def advance(self, n: float = 1, note: str | None = None) -> None:
        """Add n units of work, optionally with a short note shown behind the bar."""
        self.done += n
        self._note = self._note if note is None else note
        if self._bar is not None:
            live, task = self._bar
            live.update(task, completed=self.done, note=printable(self._note))
        elif time.monotonic() - self._said >= PLAIN_EVERY:
            self._said = time.monotonic()
            info(self._line())

    def _line(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-9)
        of = f"/{self.total:,.0f} ({self.done / self.total:.0%})" if self.total else ""
        note = f", {self._note}" if self._note else ""
        rate = f"{self.done / seconds:,.1f} {self.unit}/s"
        return f"{self.what}: {self.done:,.0f}{of} {self.unit}, {rate}{note}"


@contextmanager
def progress(what: str, total: float | None = None, unit: str = "") -> Iterator[Progress]:
    """Progress of one piece of work. `with progress("extracting", 100, "pages") as bar: ...`."""
    counter = Progress(what, total, unit)
    if is_silent() or not is_terminal():
        yield counter
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Live

    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    ]
    with Live(*columns, console=Console(stderr=True), transient=True) as live:
        counter._bar = (live, live.add_task(what, total=total, note=""))
        yield counter
