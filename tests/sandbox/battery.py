"""Runs every attempt in one mode and prints what came of each, as JSON; run as a program.

    battery.py MODE [--plain]      --plain: as a user without rights, whoever starts it

It needs nothing but llmctl.sandbox and the standard library, so that a user who may not read the
virtual environment can run it. What an attempt could touch is made here, and looked at after each.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"
PLAIN = {"namespaces": 54_321, "landlock": 54_322}  # users nobody is
PLACE = "/mnt"  # where a plain user finds Python and the sources
WATCHED = ("/tmp", "/dev/shm", "/var/tmp", "/", "/run")


def become_plain(words: list[str]) -> None:
    """Start again as PLAIN, in a mount namespace where Python and the sources can be read."""
    sys.path.insert(0, str(SRC))
    from llmctl.sandbox import kernel

    kernel.unshare(kernel.NEWNS)
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    tests, base = str(HERE), sys.base_prefix
    kernel.mount("tmpfs", PLACE, "tmpfs", 0, "mode=755")
    for source, name in ((base, "python"), (str(SRC), "src"), (tests, "tests")):
        os.mkdir(f"{PLACE}/{name}")
        kernel.mount(source, f"{PLACE}/{name}", "", kernel.MS_BIND | kernel.MS_REC)
    os.setgroups([])
    user = PLAIN[words[0]]
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    program = os.path.basename(os.path.realpath(sys.executable))
    environment = {"PYTHONPATH": f"{PLACE}/src", "LLMCTL_TEST_SECRET": os.urandom(8).hex()}
    python = f"{PLACE}/python/bin/{program}"
    os.execve(python, [python, f"{PLACE}/tests/battery.py", *words], environment)


class World:
    """What the attempts are after."""

    def __init__(self, home: str) -> None:
        self.home, self.token = home, "t0ken" + os.urandom(8).hex()
        for name in (".secret", ".bashrc", ".profile"):
            Path(home, name).write_text(f"{self.token} {name}\n")
            os.chmod(f"{home}/{name}", 0o666)
        os.environ["LLMCTL_TEST_SECRET"] = self.token
        self.tcp, self.udp = socket.create_server(("127.0.0.1", 0)), socket.socket(type=2)
        self.udp.bind(("127.0.0.1", 0))
        self.abstract, self.unix = (socket.socket(socket.AF_UNIX) for _ in range(2))
        self.abstract.bind(f"\0{self.token}")
        self.unix.bind(f"{home}/socket")
        os.chmod(f"{home}/socket", 0o777)
        for one in (self.abstract, self.unix):
            one.listen()
        self.fd = os.open(f"{home}/.secret", os.O_RDWR)
        os.set_inheritable(self.fd, True)
        self.victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.before = self.files()

    def filled(self, code: str, mode: str) -> str:
        """A program with the names of this world in it."""
        values = {
            "HOME": self.home,
            "TOKEN": self.token,
            "DEKOT": self.token[::-1],
            "PORT": self.tcp.getsockname()[1],
            "UDP": self.udp.getsockname()[1],
            "ABSTRACT": self.token,
            "UNIX": f"{self.home}/socket",
            "VICTIM": self.victim.pid,
            "SRC": SRC,
            "MODE": mode,
        }
        for name, value in values.items():
            code = code.replace(f"@{name}@", str(value))
        return code

    def files(self) -> dict[str, object]:
        """What lies in folders that others can write in, and what the caller's files hold."""
        library = os.path.dirname(os.__file__)
        found: dict[str, object] = {
            folder: sorted(n for n in os.listdir(folder) if "llmctl-escape" in n)
            for folder in (*WATCHED, self.home, library)
        }
        for name in sorted(os.listdir(self.home)):
            path = Path(self.home, name)
            found[name] = (path.read_text() if path.is_file() else "", path.stat().st_mode)
        return found

    def damage(self) -> list[str]:
        """What has changed outside since the beginning."""
        found = []
        listeners = [self.tcp, self.udp, self.abstract, self.unix]
        if select.select(listeners, [], [], 0)[0]:
            found.append("a listener was reached")
        if self.victim.poll() is not None:
            found.append("a process was killed")
        if (now := self.files()) != self.before:
            found.append(f"files changed: {[k for k in now if now[k] != self.before.get(k)]}")
        return found


def descendants(pid: int) -> list[int]:
    """Processes below one."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            text = Path(f"/proc/{pid}/task/{task}/children").read_text()
        except OSError:
            continue
        for child in map(int, text.split()):
            try:
                found += [child, *descendants(child)]
            except OSError:
                pass
    return found


def of_user(uid: int) -> set[int]:
    """Processes of a user."""
    found = set()
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                found.add(int(name))
        except OSError:
            continue
    return found


def run_all(mode: str, home: str) -> dict[str, object]:
    """Every attempt, and what came of it: {"problems": […], "seconds", "error"}."""
    from attempts import ATTEMPTS, COMMON, ENDED

    from llmctl import sandbox

    sandbox.MODES = (mode,)
    world = World(home)
    assert sandbox.available() is None, sandbox.available()
    limits = sandbox.Limits(cpu_seconds=1, wall_seconds=1.5, memory_bytes=128 << 20)
    sandbox.run_python("1")
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    keeper = sandbox._pool.idle[0].process.pid
    uid = os.stat(f"/proc/{(descendants(keeper) or [keeper])[-1]}").st_uid
    others = of_user(uid) - {keeper, *descendants(keeper)}
    found: dict[str, object] = {}
    for name, code in {**ATTEMPTS, **ENDED}.items():
        started = time.monotonic()
        outcome = sandbox.run_python(
            COMMON + world.filled(code, mode) + "\nprint('end')", limits=limits
        )
        seconds = time.monotonic() - started
        problems = world.damage()
        if "ESCAPED" in outcome.stdout:
            problems.append(outcome.stdout)
        if name in ATTEMPTS and not outcome.stdout.endswith("end\n"):
            problems.append(f"did not come to its end: {outcome.error} {outcome.stdout[-300:]}")
        if name in ENDED and outcome.stdout.endswith("end\n"):
            problems.append("came to its end")
        if seconds > limits.wall_seconds + 1:
            problems.append(f"took {seconds:.1f} s")
        keepers = [k.process.pid for k in sandbox._pool.idle]
        inside = {*keepers, *(p for k in keepers for p in descendants(k))}
        time.sleep(0.01)
        if left := of_user(uid) - others - inside:
            problems.append(f"processes left: {left}")
        found[name] = {"problems": problems, "seconds": seconds, "error": outcome.error}
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss) >> 10  # MiB
    after = sandbox.run_python("print(sum(range(10)))\n2 ** 70")
    sandbox.close()
    deadline = time.monotonic() + 3
    while (left := sorted(of_user(uid) - others)) and time.monotonic() < deadline:
        time.sleep(0.02)  # the kernel is at it
    world.victim.kill()
    found["after"] = {
        "grown_mib": grown,
        "right": after.stdout == "45\n1180591620717411303424\n" and after.error is None,
        "left": left,
        "children": descendants(os.getpid()) and [world.victim.pid] != descendants(os.getpid()),
        "uid": uid,
        "mode": mode,
    }
    return found


def main() -> None:
    mode, *flags = sys.argv[1:]
    if "--plain" in flags and os.getuid() == 0:
        become_plain([mode])
    sys.path[:0] = [str(HERE), str(SRC)]
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # look at oneself in /proc, whoever one was before
    with tempfile.TemporaryDirectory(prefix="llmctl-battery-") as home:
        print(json.dumps(run_all(mode, home)))


if __name__ == "__main__":
    main()
