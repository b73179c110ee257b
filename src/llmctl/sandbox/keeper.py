"""The caller's side of one keeper process: start it, hand it runs, end it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmctl.sandbox.outcome import Call, Limits
from llmctl.sandbox.values import encode
from llmctl.sandbox.zygote import receive, send

START_SECONDS = 30.0  # for a keeper to say that it stands, on a busy machine
GRACE = 0.5  # seconds a killed run may take to be gone, before the keeper goes too
# the keeper's imports: the files beside this one, without running llmctl's own __init__ files,
# and without site-packages on the path
BOOT = """
import sys, types
for name, folder in (("llmctl", {0!r}), ("llmctl.sandbox", {1!r})):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from llmctl.sandbox import zygote
zygote.main({2!r}, {3})
"""


class KeeperLost(Exception):
    """The keeper is gone or does not answer; the message says why where it is known."""


class _Spawner:
    """Starts processes from one thread that lives as long as this process: PDEATHSIG tells of the
    death of the thread that started a process, not of the whole."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="sandbox-spawner", daemon=True).start()

    def _work(self) -> None:
        while True:
            job, answer = self.jobs.get()
            try:
                answer.put((job(), None))
            except BaseException as error:
                answer.put((None, error))

    def start(self, arguments: list[str], control: socket.socket) -> subprocess.Popen[bytes]:
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def job() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                arguments,
                stdin=control.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )

        self.jobs.put((job, answer))
        process, error = answer.get()
        if error is not None:
            raise error
        return process


_spawner: _Spawner | None = None
_lock = threading.Lock()


def _spawn(arguments: list[str], control: socket.socket) -> subprocess.Popen[bytes]:
    global _spawner
    with _lock:
        if _spawner is None or _spawner.pid != os.getpid():
            _spawner = _Spawner()
    return _spawner.start(arguments, control)


class Run:
    """What came back of one run: raw output, reply lines, how it ended."""

    def __init__(self) -> None:
        self.printed = bytearray()
        self.replies = bytearray()
        self.nonces: list[str] = []  # of the calls handed in, in order
        self.killed: str | None = None
        self.exit = 0
        self.cpu = 0.0

    def new_nonce(self) -> str:
        """The word that the answer to the next call must carry."""
        self.nonces.append(secrets.token_hex(16))
        return self.nonces[-1]


class Keeper:
    """One keeper; one run at a time. KeeperLost when it cannot be started."""

    def __init__(self, mode: str) -> None:
        ours, theirs = socket.socketpair()
        folder = Path(__file__).parent
        boot = BOOT.format(str(folder.parent), str(folder), mode, os.getpid())
        python = getattr(sys, "_base_executable", None) or sys.executable
        flags = ["-s", "-S", "-P", "-B", "-X", "utf8"]
        self.control, self.stopped, self.lost = ours, False, False
        with theirs:
            self.process = _spawn([python, *flags, "-c", boot], theirs)
        ours.settimeout(START_SECONDS)
        try:
            hello, _ = receive(ours)
        except (OSError, EOFError) as error:
            self.close()
            raise KeeperLost(f"the keeper did not start ({error})") from None
        ours.settimeout(None)
        if "error" in hello:
            self.close()
            raise KeeperLost(hello["error"])
        self.mode: str = hello["mode"]
        self.scratch: bool = hello["scratch"]

    def close(self) -> None:
        """End the keeper and all that is inside, now."""
        self.lost = True
        self.control.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """From any thread: end the run that goes on, as Ctrl-C wants it."""
        self.stopped = True
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def run(
        self, code: str, *, stdin: str, show: bool, calls: Sequence[Call], limits: Limits
    ) -> Run:
        """Run code, then each call once the one before has answered. The replies are not parsed."""
        run = Run()
        pipes = [os.pipe() for _ in range(3)]
        # printed, replies: we read; calls: we write. File objects, which close once only
        ends = [io.FileIO(r, "r") for r, _ in pipes[:2]] + [io.FileIO(pipes[2][1], "w")]
        given = [w for _, w in pipes[:2]] + [pipes[2][0]]
        try:
            watch = _Watch(self, run, ends, calls, limits)
            watch.hand_in({"code": code, "stdin": stdin, "show": show})
            send(self.control, {"limits": limits.for_child()}, given)  # it never sees the code
            watch.work(given)
        except OSError:
            self.close()
            run.exit, run.killed = -9, "stopped"
        finally:
            for fd in given:
                os.close(fd)
            for end in ends:
                end.close()
        return run


class _Watch:
    """Reads what a run gives, hands it its calls, and ends it at its limits."""

    def __init__(
        self, keeper: Keeper, run: Run, ends: list[io.FileIO], calls: Sequence[Call], limits: Limits
    ) -> None:
        self.keeper, self.run, self.limits = keeper, run, limits
        self.out, self.reply, self.call = ends
        self.unsent, self.to_send = list(calls), b""
        self.reading = {self.out, self.reply}
        for end in ends:
            os.set_blocking(end.fileno(), False)

    def hand_in(self, message: dict[str, Any]) -> None:
        """A line that goes to the code's side as soon as there is room."""
        self.to_send += json.dumps(message).encode() + b"\n"

    def work(self, given: list[int]) -> None:
        """Until the keeper says that the run has ended. given: descriptors that are its now."""
        while given:
            os.close(given.pop())
        control = self.keeper.control
        deadline = time.monotonic() + self.limits.wall_seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0 and self.run.killed is None:
                self._kill("time")
                deadline = time.monotonic() + GRACE
                continue
            if left <= 0:  # the keeper does not answer: it goes, and the run with it
                self.keeper.close()
                self.run.exit = -9
                return
            watched: list[Any] = [control, *self.reading]
            writing = [self.call] if self.to_send else []
            ready, free, _ = select.select(watched, writing, [], left)
            for end in self.reading & set(ready):
                self._read(end)
            if free:
                self._write()
            if control in ready:
                self._ended()
                return

    def _read(self, end: io.FileIO) -> bool:
        """Take what is there; False when nothing is."""
        printed = end is self.out
        kept = self.run.printed if printed else self.run.replies
        most = self.limits.output_bytes if printed else self.limits.reply_bytes
        found = end.read(1 << 16)
        if not found:
            if found is not None:
                self.reading.discard(end)
            return False
        kept += found[: most - len(kept) + 1]
        if len(kept) > most:
            self.reading.discard(end)
            if self.run.killed is None:
                self._kill("output")
        if not printed:
            self._next_calls(found.count(b"\n"))
        return True

    def _next_calls(self, replies: int) -> None:
        """One call for each reply that has come, the code's own first; then the end of them."""
        for _ in range(replies):
            if not self.unsent:
                self.to_send = b""
                self.call.close()
                return
            self.hand_in({"nonce": self.run.new_nonce(), **written(self.unsent.pop(0))})

    def _write(self) -> None:
        try:
            self.to_send = self.to_send[self.call.write(self.to_send) or 0 :]
        except OSError:  # it has closed its end
            self.to_send = b""

    def _kill(self, why: str) -> None:
        self.run.killed = why
        with contextlib.suppress(OSError):
            self.keeper.control.send(b"k")

    def _ended(self) -> None:
        try:
            report, _ = receive(self.keeper.control)
        except (OSError, EOFError, ValueError):
            self.keeper.close()
            self.run.exit = -9
            self.run.killed = self.run.killed or "stopped"
            return
        self.run.exit, self.run.cpu = report["exit"], report["cpu"]
        if self.run.killed is not None and not report["told"]:
            self.keeper.close()  # it ended by itself just then; our word still lies in the socket
        if self.run.exit in (-9, -24) and self.run.killed is None:
            # not the memory killer: the kernel counts by ticks here, by the clock for the limit
            if self.run.cpu >= self.limits.cpu_seconds / 2:
                self.run.killed = "cpu"
        for end in list(self.reading):
            while self._read(end):
                pass


def written(call: Call) -> dict[str, Any]:
    """A call as it goes in."""
    if call.source:
        return {"source": call.source}
    return {
        "function": call.function,
        "args": encode(list(call.args)),
        "kwargs": encode(dict(call.kwargs)),
    }
