"""What may be used, and what came of it. Light: no imports beyond the standard library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LINE_CHARS = 400  # an error's words, and in which line it was


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one run may use. Enforced by the kernel (wall and output: by killing it)."""

    cpu_seconds: int = 5
    wall_seconds: float = 10.0
    memory_bytes: int = 512 << 20  # of addresses, the interpreter's own 50 MB included
    output_bytes: int = 256 << 10  # printed; more is cut off and ends the run
    reply_bytes: int = 4 << 20  # all values that calls give back
    scratch_bytes: int = 16 << 20  # in /tmp, which is the run's own and gone with it
    scratch_files: int = 256

    def for_child(self) -> dict[str, int]:
        """The part that is set inside."""
        names = ("cpu_seconds", "memory_bytes", "scratch_bytes", "scratch_files")
        return {name: int(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class Outcome:
    """How a run ended. stdout: what was printed, the shown value included. error: in one line, as
    Python says it, or why the run was ended; None: none. exit: status, -signal when killed.
    killed: "time", "cpu", "output" or "stopped" when it did not end by itself."""

    stdout: str
    error: str | None
    exit: int
    seconds: float
    truncated: bool
    killed: str | None


def one_line(error: Any) -> str:
    """What the other side says went wrong, whoever wrote it: one line that UTF-8 can hold."""
    if not isinstance(error, str):
        return "no readable reply"
    line = " ".join(error.splitlines())[:LINE_CHARS]
    return line.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Failure:
    """A call that gave no value back, and why. killed: as in Outcome, when its run was ended."""

    error: str
    killed: str | None = None


@dataclass(frozen=True)
class Call:
    """A call into sandboxed code: an expression's source, or a function's name and arguments."""

    source: str = ""
    function: str = ""
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
