"""metrics.jsonl: one line a step, the record of a run that is always there.

A killed run may leave half a line and steps beyond its last checkpoint: a reader skips the one, a
resumed run cuts off the other, so that each step stands once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from llmctl.core.files import atomic_write


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows written whole; [] when there is no file."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except (UnicodeDecodeError, json.JSONDecodeError):
            continue  # the last line of a killed run
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
    return rows


class MetricsFile:
    """Appends rows; on disk after `sync`."""

    def __init__(self, path: Path, done: int) -> None:
        """done: steps of the checkpoint resumed from (0: a new run); later rows are dropped."""
        kept = [row for row in read_metrics(path) if row["step"] <= done] if done else []
        self.last = kept[-1] if kept else None
        with atomic_write(path) as handle:
            handle.write("".join(_line(row) for row in kept).encode())
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)

    def append(self, row: dict[str, Any]) -> None:
        """Add one row; numbers that are no numbers become null."""
        self._file.write(_line(row))
        self._file.flush()

    def sync(self) -> None:
        """Before a checkpoint that counts on the rows so far."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(row: dict[str, Any]) -> str:
    finite = {k: None if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
    return json.dumps(finite) + "\n"
