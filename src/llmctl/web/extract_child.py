"""The process that parses pages: it may hang, swell or crash without taking the worker along.

It is forked from a worker that has the parser loaded, and talks over one pipe: a page in, its
text out. Nothing of a page outlives it here, so a page's text depends on that page alone.
"""

import os
import re
import resource
import sys
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

from llmctl.core.signals import die_with_parent

STACK_LIMIT = 10_000  # Python frames; trees are walked by recursion
EMPTY, TEXT, FAILED = b"0", b"1", b"2"


def extract_trafilatura(html: str) -> str | None:
    """Main text by trafilatura with FineWeb's settings; None where it finds none."""
    from trafilatura import extract
    from trafilatura.deduplication import LRUCache

    # FineWeb's deduplicate=True counts text seen on earlier pages of the same process as well,
    # which makes a page's text depend on the pages before it. A fresh memory for each page keeps
    # what repeats within one.
    return extract(
        html,
        favor_precision=True,
        include_comments=False,
        deduplicate=LRUCache(maxsize=4096),
    )


EXTRACTORS = {"trafilatura": extract_trafilatura}


_TEST = re.compile(r"re:test\((@[\w-]+)(?:\|(@[\w-]+))?, ('[^']*'(?:, *'[^']*')?)\)")


@cache
def quicken_trafilatura() -> int:
    """Have its XPath expressions test an attribute only where there is one; how many were changed.

    Each `re:test` calls back into Python for every element, most of which have neither id nor
    class. None of the patterns matches the empty text that a missing attribute stands for, so the
    nodes found are the same (tests/web/test_extract.py compares texts) in a seventh less time.
    """
    from lxml.etree import XPath
    from trafilatura import xpaths

    def guarded(test: re.Match[str]) -> str:
        present = f"{test[1]} or {test[2]}" if test[2] else test[1]
        return f"(({present}) and {test[0]})"

    changed = 0
    for expressions in (v for v in vars(xpaths).values() if isinstance(v, list)):
        for i, expression in enumerate(expressions):
            path = _TEST.sub(guarded, expression.path)
            if path != expression.path:
                expressions[i] = XPath(path, namespaces={"re": xpaths.REGEXP_NS})
                changed += 1
    return changed


def load(name: str) -> None:
    """Import what an extractor needs, before processes are forked from this one."""
    if name == "trafilatura":
        quicken_trafilatura()
    EXTRACTORS[name]("<html><body><p>Warm.</p></body></html>")


def fork_child(name: str, memory_mb: int) -> tuple[int, Connection]:
    """Start an extraction process; (its pid, the pipe to it)."""
    from multiprocessing import Pipe

    here, there = Pipe()
    pid = os.fork()
    if pid:
        there.close()
        return pid, here
    code = 1
    try:
        here.close()
        _serve(name, there, memory_mb)
        code = 0
    except (EOFError, BrokenPipeError):
        code = 0
    finally:
        os._exit(code)  # nothing of the worker's may run here: no handlers, no buffers
    raise AssertionError("unreachable")


def _serve(name: str, pipe: Connection, memory_mb: int) -> None:
    die_with_parent()
    sys.setrecursionlimit(STACK_LIMIT)
    _limit_memory(memory_mb)
    _first_to_be_killed()
    extract: Any = EXTRACTORS[name]
    while True:
        html = pipe.recv_bytes().decode("utf-8", "surrogatepass")
        try:
            text = extract(html)
        except MemoryError:
            os._exit(3)  # the heap may be in any state
        except Exception as error:  # any fault of a parser is a verdict on its page
            pipe.send_bytes(FAILED + type(error).__name__.encode())
            continue
        body = text.encode("utf-8", "surrogatepass") if text else b""
        pipe.send_bytes(TEXT + body if body else EMPTY)


def _limit_memory(memory_mb: int) -> None:
    """Bound what a page may add to what this process holds already."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm") as f:
            held = int(f.read().split()[0]) * resource.getpagesize()
    except OSError:
        return  # no Linux: what is held already is not known, and the clock remains
    limit = held + (memory_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _first_to_be_killed() -> None:
    """Out of memory, the kernel should take the parser and not the worker."""
    try:
        with open("/proc/self/oom_score_adj", "w") as f:
            f.write("1000\n")
    except OSError:
        pass
