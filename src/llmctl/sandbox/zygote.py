"""The keeper: a process behind the walls that forks one child for each run.

It starts with nothing of the caller's: an empty environment, no descriptors but one socket. It
never runs foreign code itself, nor holds it: a child begins with a copy of the keeper's memory, so
what it is to run it reads itself, from a pipe of its own. All that a run leaves here is its exit
status and its computing time. When the caller dies, so does the keeper (PDEATHSIG, and the socket's
end), and with it, being the first of its process namespace, all that is inside.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from llmctl.sandbox import cell, jail, kernel, syscalls

LENGTH = struct.Struct("=I")
FDS = 3  # that come with a request: printed, replies, calls


def main(mode: str, parent: int) -> None:
    """Build the walls and serve the socket at descriptor 0."""
    os.dup2(0, 5)
    control = socket.socket(fileno=5)
    null = os.open("/dev/null", os.O_RDWR)
    for target in range(5):
        os.dup2(null, target)
    os.closerange(6, 65_536)
    try:
        syscalls.common()
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as handle:
            handle.write("1000")  # when memory runs out this goes first
        for name in cell.PRELOADED:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        time.strptime("2000", "%Y")  # its module is loaded by its first use
        if os.getppid() != parent:
            return
        walls = jail.build(mode)
    except Exception as error:
        send(control, {"error": f"{error}"})
        return
    kernel.die_with_parent()
    if mode == "namespaces" and _is_outer(control):
        return
    os.environ.clear()
    send(control, {"mode": walls.mode, "scratch": walls.scratch})
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            request, fds = receive(control)
            send(control, _serve(control, walls, request, fds))


def _is_outer(control: socket.socket) -> bool:
    """Fork the first process of the new process namespace; True in the one that stays outside,
    once that has ended."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid:
        control.close()
        os.close(ready)
        os.waitpid(pid, 0)
        return True
    os.close(go)
    kernel.die_with_parent()
    # the outer one may have died before that: its end of the pipe would be closed
    if select.select([ready], [], [], 0)[0]:
        os._exit(1)
    os.close(ready)
    return False


def send(control: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """One message: its length, with which descriptors go, then JSON."""
    raw = json.dumps(message).encode()
    head = LENGTH.pack(len(raw))
    if fds:
        head = head[socket.send_fds(control, [head], fds) :]
    control.sendall(head + raw)


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One message and the descriptors that came with it. EOFError when the other side is gone."""
    head, fds, _, _ = socket.recv_fds(control, LENGTH.size, FDS)
    while len(head) < LENGTH.size:
        head += _some(control, LENGTH.size - len(head))
    [left] = LENGTH.unpack(head)
    raw = b""
    while len(raw) < left:
        raw += _some(control, left - len(raw))
    return json.loads(raw), list(fds)


def _some(control: socket.socket, size: int) -> bytes:
    found = control.recv(min(size, 1 << 20))
    if not found:
        raise EOFError
    return found


def _serve(
    control: socket.socket, walls: jail.Jail, request: dict[str, Any], fds: list[int]
) -> dict[str, Any]:
    """Run one request, which names the limits, in a child; how it ended. A byte on the socket
    meanwhile: kill it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    pid = os.fork()
    if pid == 0:
        _child(walls, request["limits"], fds)
    for fd in fds:
        os.close(fd)
    watch = os.pidfd_open(pid)
    both: list[Any] = [watch, control]
    told = False
    while watch not in select.select([watch] if told else both, [], [])[0]:
        told = True
        os.kill(pid, signal.SIGKILL)
        if not control.recv(1):
            raise EOFError
    os.close(watch)
    if walls.mode == "namespaces":  # nobody but us may be left
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"exit": os.waitstatus_to_exitcode(status), "cpu": cpu, "told": told}


def _child(walls: jail.Jail, limits: dict[str, Any], fds: list[int]) -> None:
    """In the child: close the walls, run, end without any clean-up of Python's."""
    code = 125
    try:
        printed, replies, calls = fds
        os.dup2(os.pipe()[0], 0)  # empty, and its own: flags that are set on it go with it
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.dup2(replies, 3)
        os.dup2(calls, 4)
        jail.lock(walls, limits)
        code = 124
        cell.run()
        code = 0
    except SystemExit:
        code = 0
    except BaseException as error:
        if code == 125:  # the walls do not close: say why, run nothing
            os.write(3, json.dumps({"refused": str(error)}).encode() + b"\n")
    finally:
        os._exit(code)
