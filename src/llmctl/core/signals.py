"""Stopping politely: SIGTERM, SIGUSR1 and Ctrl-C.

By default a stage is stopped where it stands: SIGTERM and SIGUSR1 raise `Interrupted` (exit 75) in
the main thread, Ctrl-C raises KeyboardInterrupt (exit 130). A training loop, which must finish its
step first, works inside `graceful_stop()` and polls `.requested`; a second signal stops at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from llmctl.core.errors import Cancelled, Interrupted, LlmctlError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def _raise_interrupted(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    raise Interrupted(f"stopped by {name}; finished parts are kept, run the same command again")


def install() -> None:
    """Turn SIGTERM, SIGUSR1 and SIGHUP into `Interrupted`. Called once by the command line."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup: SIGHUP is to be ignored
            signal.signal(number, _raise_interrupted)


class Stop:
    """Set by a signal inside `graceful_stop`."""

    def __init__(self) -> None:
        self.requested = False
        self.signal: int | None = None

    def error(self, saved: str) -> LlmctlError:
        """The error to raise once the state is saved; `saved` says where."""
        if self.signal == signal.SIGINT:
            return Cancelled(f"stopped by Ctrl-C; {saved}; run the same command again to go on")
        name = signal.Signals(self.signal).name if self.signal else "the time limit"
        return Interrupted(f"stopped by {name}; {saved}; run the same command again to go on")


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Signals set `.requested` instead of raising; the second one raises at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signal handlers belong to the main thread
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise stop.error("the last checkpoint stands")
        stop.requested, stop.signal = True, number

    previous: dict[int, Any] = {}
    for number in (*STOP_SIGNALS, signal.SIGINT):
        if signal.getsignal(number) == signal.SIG_IGN:
            continue
        previous[int(number)] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere it does nothing).

    Worker processes call it first, so that a killed run leaves no orphan that goes on writing.
    """
    import ctypes
    import os
    import sys

    if sys.platform != "linux":
        return
    parent = os.getppid()
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died in between
        os._exit(1)
