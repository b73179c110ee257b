"""Untrusted Python, kept apart by the kernel: no network, no files but a scratch folder, no other
process, hard limits on time, memory and output; nothing left when it ends.

    outcome = run_python("print(6 * 7)")             # like a cell: stdout, value, error in one line
    values = run_cases("def f(x): return x + 1", [Call(source="f(2)")])

What holds it, and what it can still see, is described in jail.py. Where the kernel gives neither
namespaces nor Landlock, `available` says so and nothing is run: Refused (77). Safe to use from
several threads.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from llmctl.core.errors import Refused
from llmctl.sandbox import syscalls
from llmctl.sandbox.keeper import Keeper, KeeperLost, Run, written
from llmctl.sandbox.outcome import Call, Failure, Limits, Outcome, one_line
from llmctl.sandbox.values import NotPlain, decode

__all__ = ["Call", "Failure", "Limits", "Outcome", "available", "mode", "run_cases", "run_python"]
MODES = ("namespaces", "landlock")  # as in jail.py, best first
ENDED = {
    "time": "TimeoutError: stopped after {wall:g} s",
    "cpu": "TimeoutError: stopped after {cpu} s of computing",
    "output": "stopped: more than {kib:,} KiB of output",
    "stopped": "stopped",
}
# What a wall must withstand before anything else is run behind it; an empty list is the answer.
# csv: none of what is loaded before, so that Python's library is known to be within reach
PROBE = """
import csv, ctypes, os, socket
def tried():
    through = []
    def attempt(name, what, *arguments):
        try:
            what(*arguments)
        except (OSError, RuntimeError):
            return
        through.append(name)
    attempt("files", open, "/etc/passwd")
    attempt("folders", os.listdir, "/proc")
    attempt("writing", open, os.path.dirname(os.__file__) + "/llmctl-probe", "x")
    attempt("network", socket.socket)
    attempt("processes", os.fork)
    attempt("signals", os.kill, os.getppid(), 0)
    attempt("programs", os.execv, "/bin/true", ["true"])
    return through
"""


class _Pool:
    """Keepers of this process: as many as run at once, kept for the next."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.checking = threading.Lock()
        self.idle: list[Keeper] = []
        self.busy: dict[Keeper, object] = {}  # and whose run it is
        self.mode: str | None = None
        self.reason: str | None = None

    def check(self) -> str | None:
        """Find, once, the mode that works here; why none does, or None."""
        with self.checking:
            if self.mode is None and self.reason is None:
                self._find_mode()
            return self.reason

    def _find_mode(self) -> None:
        reasons = [why] if (why := _no_sandbox_here()) else []
        for name in [] if reasons else MODES:
            try:
                keeper = Keeper(name)
            except (KeeperLost, OSError) as error:
                reasons.append(f"{name}: {error}")
                continue
            if (why := _held(keeper)) is None:
                self.mode = name
                self.idle.append(keeper)
                return
            keeper.close()
            reasons.append(f"{name}: {why}")
        self.reason = "; ".join(reasons)

    @contextlib.contextmanager
    def keeper(self, owner: object = None) -> Iterator[Keeper]:
        """A keeper for one run. Refused (77) where there is no isolation."""
        if why := self.check():
            raise Refused(
                f"no isolation on this machine for code that a model wrote ({why}); allow user "
                "namespaces or Landlock, or do without the python tool and python-tests"
            )
        with self.lock:
            found = self.idle.pop() if self.idle else None
        if found is None or found.process.poll() is not None:
            if found is not None:
                found.close()
            try:
                found = Keeper(self.mode or MODES[0])
            except KeeperLost as error:
                raise Refused(f"the sandbox does not start any more ({error})") from None
        with self.lock:
            self.busy[found] = owner
        try:
            yield found
        except BaseException:
            found.close()
            raise
        finally:
            with self.lock:
                del self.busy[found]
                if found.stopped and not found.lost:
                    found.close()  # the word to stop came just when the run had ended
                if not found.lost:
                    self.idle.append(found)

    def stop_running(self, owner: object = None) -> None:
        """End what runs now: all of it, or what is the owner's."""
        with self.lock:
            for keeper, whose in self.busy.items():
                if owner is None or whose is owner:
                    keeper.stop()

    def close(self) -> None:
        """End all keepers."""
        if self.pid != os.getpid():
            return
        self.stop_running()
        with self.lock:
            while self.idle:
                self.idle.pop().close()


def _held(keeper: Keeper) -> str | None:
    """What the walls did not withstand; None when they did."""
    calls = [Call(source="tried()")]
    run = keeper.run(PROBE, stdin="", show=False, calls=calls, limits=Limits())
    try:
        found = _values(run) or [Failure(_ended(run, Limits()) or _last_error(run))]
    except Refused as error:
        return str(error)
    if isinstance(found[0], Failure):
        return found[0].error
    return f"{found[0]} got through" if found[0] else None


_pool = _Pool()


def _mine() -> _Pool:
    """The pool of this process; a forked one starts with none."""
    global _pool
    if _pool.pid != os.getpid():
        _pool = _Pool()
    return _pool


@atexit.register
def close() -> None:
    """End the sandbox's processes; the next run starts new ones."""
    _mine().close()


def _no_sandbox_here() -> str | None:
    import sys

    if sys.platform != "linux":
        return f"the sandbox needs Linux, this is {sys.platform}"
    return syscalls.supported()


def available() -> str | None:
    """Why untrusted code cannot be run here; None when it can. The first call tries it out."""
    return _mine().check()


def mode() -> str | None:
    """What holds the code: "namespaces" (with Landlock on top where the kernel has it) or
    "landlock", where it can still see that files are there, their sizes and dates; None when
    nothing does."""
    pool = _mine()
    return None if pool.check() else pool.mode


def stop_running(owner: object = None) -> None:
    """From any thread: end the runs of an owner that go on; None: everybody's. They return an
    Outcome with killed="stopped"."""
    _mine().stop_running(owner)


def run_python(
    code: str, *, stdin: str = "", limits: Limits | None = None, owner: object = None
) -> Outcome:
    """Run code like a notebook's cell: what it prints, then the value of a last expression.

    Every run is new: no names, files or memory of an earlier one; `random` is seeded. owner: who
    may end it with stop_running(owner). Refused (77) where there is no isolation; what the code
    does, even a crash, is in the Outcome.
    """
    limits = limits or Limits()
    started = time.perf_counter()
    with _mine().keeper(owner) as keeper:
        run = keeper.run(_clean(code), stdin=_clean(stdin), show=True, calls=(), limits=limits)
    seconds = time.perf_counter() - started
    text = bytes(run.printed[: limits.output_bytes]).decode("utf-8", "replace")
    truncated = len(run.printed) > limits.output_bytes
    replies = _replies(run)
    error = _ended(run, limits)
    if error is None:
        error = replies[0].get("error") if replies else "SystemExit: ended by os._exit"
        error = None if error is None else one_line(error)
    return Outcome(text, error, run.exit, seconds, truncated, run.killed)


def run_cases(
    code: str, calls: Sequence[Call], *, limits: Limits | None = None
) -> list[Any | Failure]:
    """Run code, then each call into it; the plain values that come back, or why none did.

    A call goes in when the one before has been answered, and its answer must carry a word that the
    code could not know before; what a value ought to be never goes in, so that there is nothing to
    find, and the caller compares (values.same).
    """
    limits = limits or Limits()
    try:
        for call in calls:
            written(call)
    except NotPlain as error:
        raise ValueError(f"arguments of a call must be plain values: {error}") from None
    with _mine().keeper() as keeper:
        run = keeper.run(_clean(code), stdin="", show=False, calls=list(calls), limits=limits)
    found = _values(run)
    missing = Failure(_ended(run, limits) or _last_error(run), run.killed)
    return found + [missing] * (len(calls) - len(found))


def _clean(text: str) -> str:
    """Text that UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode()


def _replies(run: Run) -> list[dict[str, Any]]:
    """The whole reply lines, parsed; what is no JSON object ends the list. Refused (77) when it is
    the keeper that says the walls did not close: then nothing was run."""
    found: list[dict[str, Any]] = []
    most = len(run.nonces) + 1  # more than was asked for need not be read
    for line in bytes(run.replies).split(b"\n", most)[:-1]:
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(reply, dict):
            break
        found.append(reply)
    if run.exit == 125 and found and "refused" in found[0]:
        raise Refused(f"the sandbox could not be closed, nothing was run ({found[0]['refused']})")
    return found


def _values(run: Run) -> list[Any | Failure]:
    """Answers to the calls, up to the first that does not carry its nonce."""
    replies = _replies(run)
    if not replies or replies[0].get("error") is not None:
        return []
    found: list[Any | Failure] = []
    for nonce, reply in zip(run.nonces, replies[1:]):
        if reply.get("nonce") != nonce:
            break
        if "value" not in reply:
            found.append(Failure(one_line(reply.get("error"))))
            continue
        try:
            found.append(decode(reply["value"]))
        except (ValueError, RecursionError) as error:
            found.append(Failure(f"no readable value: {error}"))
    return found


def _last_error(run: Run) -> str:
    """Why calls were not answered by code that ended by itself."""
    replies = _replies(run)
    error = replies[0].get("error") if replies else None
    return one_line(error) if error else "it ended before it was asked"


def _ended(run: Run, limits: Limits) -> str | None:
    """Why a run was ended from outside, or crashed."""
    if run.killed is not None:
        wall, cpu, kib = limits.wall_seconds, limits.cpu_seconds, limits.output_bytes >> 10
        return ENDED[run.killed].format(wall=wall, cpu=cpu, kib=kib)
    if run.exit < 0:
        return f"crashed (signal {-run.exit})"
    return None
