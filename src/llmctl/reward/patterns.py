"""Regular expressions that somebody else wrote, tried in a process of their own.

Python's engine may take exponential time on a pattern. So the text is bounded, a worker does the
search, and one that computes for too long is ended by the kernel and replaced. What counts is its
own computing, not the clock: a busy machine comes to the same verdict.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading

MAX_PATTERN = 1_000  # characters
MAX_TEXT = 10_000
CPU_SECONDS = 1.0  # of one search
WALL_SECONDS = 60.0  # for a worker that does not even get to compute

# No site, no environment: it starts in milliseconds. Ends with its parent (EOF, or the signal).
_CHILD = """
import ctypes, json, re, resource, signal, sys
ctypes.CDLL(None).prctl(1, 9)
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
seconds = float(sys.argv[1])
for line in sys.stdin:
    pattern, text = json.loads(line)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends it, in the engine's loop too
    try:
        found = re.search(pattern, text) is not None
    except (re.error, RecursionError, OverflowError, MemoryError):
        found = None
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(json.dumps(found), flush=True)
"""


class PatternSearch:
    """Searches in a worker process; started when it is first needed. Safe for several threads."""

    def __init__(self, cpu_seconds: float = CPU_SECONDS) -> None:
        self.cpu_seconds = cpu_seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def search(self, pattern: str, text: str) -> bool | None:
        """Whether the pattern occurs in the last MAX_TEXT characters of text.

        None: no valid pattern, or the search took too long.
        """
        if len(pattern) > MAX_PATTERN:
            return None
        line = json.dumps([pattern, text[-MAX_TEXT:]]).encode() + b"\n"
        with self._lock:
            try:
                return self._ask(line)
            except (OSError, ValueError):
                self.close()
                return None

    def _ask(self, line: bytes) -> bool | None:
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _CHILD, str(self.cpu_seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
            )
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(line)
        child.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            if not selector.select(WALL_SECONDS):
                raise ValueError("timed out")
        found = json.loads(os.read(child.stdout.fileno(), 64))
        return found if isinstance(found, bool) else None

    def close(self) -> None:
        """End the worker, whatever it is doing."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:
                        pass
