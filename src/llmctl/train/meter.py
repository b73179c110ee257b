"""Speed, share of the peak, time left, money; and the table a person watches.

On a terminal the last line is live and every so often one stays; elsewhere a plain line now and
then, more often at the start, where most goes wrong.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.core import console

WINDOW = 20  # steps over which speed is averaged
LIVE_EVERY = 0.2  # seconds between redraws of the live line
HEADER_EVERY = 25  # rows


@dataclass(frozen=True)
class Column:
    """One column of the table: its title, its width, and a metrics row's value as text.

    format: of a format string such as '.4f', or a function; a value that is missing shows as '-'.
    """

    title: str
    width: int
    key: str
    format: str | Callable[[Any], str] = ".4f"

    def text(self, row: Mapping[str, Any]) -> str:
        """This column's cell."""
        value = row.get(self.key)
        if value is None:
            return "-"
        return self.format(value) if callable(self.format) else format(value, self.format)


BITS = Column("bits/byte", 9, "bits_per_byte")
BEFORE = (Column("loss", 7, "loss"),)
AFTER = (
    Column("lr", 8, "lr", ".2e"),
    Column("grad norm", 9, "grad_norm", ".3f"),
    Column("tokens/s", 9, "tokens_per_s", ",.0f"),
    Column("MFU", 6, "mfu", ".1%"),
    Column("memory", 8, "memory", lambda value: f"{value / 1e9:.2f} GB"),
)


def duration(seconds: float) -> str:
    """'2h05m', '12m30s', '41s'."""
    seconds = int(max(0, seconds))
    if seconds >= 3600:
        return f"{seconds // 3600:,}h{seconds % 3600 // 60:02}m"
    return f"{seconds // 60}m{seconds % 60:02}s" if seconds >= 60 else f"{seconds}s"


class Meter:
    """Counts tokens against the clock and talks on rank 0."""

    def __init__(
        self,
        *,
        steps: int,
        done: int,
        flops_per_token: float,
        peak: float,
        bytes_per_token: float,
        price: float,
        columns: Sequence[Column] = (BITS,),
    ) -> None:
        """peak: FLOP/s of all devices together. bytes_per_token 0: bits per byte unknown.

        price: money an hour for all devices; done: steps before this start. columns: what this
        stage shows beside what all of them show.
        """
        self.columns = tuple(columns)
        self.steps, self.peak, self.price = steps, peak, price
        self.flops_per_token, self.bytes_per_token = flops_per_token, bytes_per_token
        self.started = self._last = time.perf_counter()
        self.before = 0.0  # seconds spent before this start, by an earlier one of the same run
        self._recent: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._said = self._drawn = 0.0
        self._rows = 0
        self._live = False
        self._first = done

    def measure(self, tokens: int) -> None:
        """A step over so many tokens has just ended."""
        now = time.perf_counter()
        self._recent.append((now - self._last, tokens))
        self._last = now

    def pause(self) -> None:
        """What lies between the last step and now (a save, an eval, a sample) is not speed."""
        self._last = time.perf_counter()

    @property
    def tokens_per_s(self) -> float:
        """Over the last steps."""
        seconds = sum(s for s, _ in self._recent)
        return sum(t for _, t in self._recent) / seconds if seconds else 0.0

    def facts(self, step: int) -> dict[str, Any]:
        """Speed and cost after `step` steps, for the metrics row."""
        rate = self.tokens_per_s
        elapsed = self.before + time.perf_counter() - self.started
        per_step = sum(s for s, _ in self._recent) / max(1, len(self._recent))
        return {
            "tokens_per_s": round(rate, 1),
            "mfu": round(rate * self.flops_per_token / self.peak, 4) if self.peak else None,
            "seconds": round(elapsed, 3),
            "seconds_left": round(per_step * (self.steps - step), 1),
            "cost": round(self.price * elapsed / 3600, 4),
        }

    def show(self, row: Mapping[str, Any], *, stay: bool = False) -> None:
        """Draw the row if it is time to; `stay` forces a line that remains."""
        now = time.perf_counter()
        young = row["step"] - self._first <= 3
        stay = stay or young or now - self._said >= (10 if row["step"] - self._first < 200 else 30)
        if console.is_silent():
            return
        if stay:
            self._clear()
            if self._rows % HEADER_EVERY == 0:
                console.info(self._header())
            self._rows += 1
            self._said = now
            console.info(self._line(row))
        elif console.is_terminal() and now - self._drawn >= LIVE_EVERY:
            self._drawn, self._live = now, True
            sys.stderr.write(f"\r{self._line(row)}\x1b[K")
            sys.stderr.flush()

    def _clear(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            self._live = False

    def say(self, text: str) -> None:
        """A line between the rows."""
        self._clear()
        console.info(text)

    def _header(self) -> str:
        shown = [("step", 15), *((c.title, c.width) for c in self._shown()), ("left", 8)]
        return "  ".join(name.rjust(width) for name, width in [*shown, ("cost", 8)])

    def _shown(self) -> tuple[Column, ...]:
        return (*BEFORE, *self.columns, *AFTER)

    def _line(self, row: Mapping[str, Any]) -> str:
        cells = [f"{row['step']:,}/{self.steps:,}".rjust(15)]
        cells += [column.text(row).rjust(column.width) for column in self._shown()]
        cells += [duration(row["seconds_left"]).rjust(8)]
        cells += [(f"${row['cost']:,.2f}" if self.price else "-").rjust(8)]
        return "  ".join(cells)
