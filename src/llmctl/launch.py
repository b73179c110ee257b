"""Where INPUTs come from when a command is typed: its words, the pipe, or nothing.

stdin is read once, here, before torch is imported and before any rank is started.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Sequence

from llmctl.core import console
from llmctl.core.errors import NoInput, UsageError
from llmctl.core.stage import Stage

PATIENCE = 2.0  # seconds of silence on the pipe before the user is told what is waited for


def stdin_is_pipe() -> bool:
    """Whether stdin can bring paths: a pipe, file or socket; not a terminal, not /dev/null."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:  # closed
        return False
    return not stat.S_ISCHR(mode)


def read_paths() -> list[str]:
    """Artifact paths from stdin, one a line. NoInput (66) when the pipe brings none."""
    ready, _, _ = select.select([0], [], [], PATIENCE)
    if not ready:
        console.info("waiting for an artifact path on stdin")
    lines = [line.strip() for line in sys.stdin.read().splitlines()]
    if paths := [line for line in lines if line]:
        return paths
    raise NoInput("no artifact arrived on stdin; the upstream stage failed, see its message above")


def find_inputs(stage: Stage, words: Sequence[str], out: str | None) -> list[str] | None:
    """The INPUTs of a command: the words given, else stdin's lines, else None (the default).

    Raises UsageError (2) for `-o` without INPUT, where a shell variable was probably empty, and
    for stdin under torchrun, whose ranks would race for it.
    """
    if not stage.reads:
        return list(words)
    if words and "-" not in words:
        if any(not word for word in words):
            raise UsageError("an INPUT is empty (an unset shell variable?)")
        return list(words)
    if words or stdin_is_pipe():
        if "RANK" in os.environ:
            raise UsageError(
                f"stdin under torchrun: ranks race for it; use `llmctl {stage.name} --nproc N`, "
                "or name the INPUT"
            )
        return [p for w in (words or ["-"]) for p in (read_paths() if w == "-" else [w])]
    if out is not None and not stage.optional_input:
        raise UsageError("-o was given but no INPUT (an unset shell variable?); name the INPUT")
    return None
