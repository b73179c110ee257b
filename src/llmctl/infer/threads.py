"""How many threads a decode step should take.

OpenMP's threads wait for each other by spinning, several hundred times a token. Where another
process holds a core, they wait for its time slice each time: on two busy cores two threads gave 3
tokens a second where one gave 16. So cores that others are using are left alone.
"""

from __future__ import annotations

import os
import statistics
import time

from llmctl.core.hardware import cpu_count

SAMPLES, APART = 9, 0.01  # looks at the run queue, seconds between them


def idle_cores() -> int:
    """Cores this process may use that nobody else is using now; at least 1."""
    seen = []
    for _ in range(SAMPLES):
        running = _running()
        if running is None:
            return cpu_count()
        seen.append(running - 1)  # this process itself
        time.sleep(APART)
    others = round(statistics.median(seen))
    return max(1, min(cpu_count(), (os.cpu_count() or 1) - others))


def _running() -> int | None:
    """Threads that run or wait for a core, on the whole machine; None where it is not told."""
    try:
        with open("/proc/stat") as lines:
            found = next(line for line in lines if line.startswith("procs_running"))
        return int(found.split()[1])
    except (OSError, StopIteration, ValueError):
        return None
