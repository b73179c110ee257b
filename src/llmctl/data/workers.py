"""A pool of worker processes whose results come in order, whatever the number of workers."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from llmctl.core.errors import LlmctlError
from llmctl.core.signals import die_with_parent

AHEAD = 2  # tasks a worker may be ahead of the reader


def _start(initializer: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """First thing in a worker: die with the parent, leave Ctrl-C to it."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    initializer(*arguments)


def ordered_map(
    function: Callable[[Any, bool], Any],
    tasks: Sequence[Any],
    workers: int,
    initializer: Callable[..., None],
    arguments: tuple[Any, ...],
) -> Iterator[Any]:
    """function(task, careful) for each task, results in the order of tasks.

    One worker: this process does it. A worker that is killed, by a crash in a library or for
    memory, is replaced, and the tasks then under way are done again with careful=True; once more:
    an error.
    """
    if workers <= 1 or len(tasks) <= 1:
        initializer(*arguments)
        for task in tasks:
            yield function(task, False)
        return
    n = min(workers, len(tasks))
    waiting: deque[tuple[Any, Future[Any]]] = deque()
    ahead: list[tuple[Any, bool]] = [(task, False) for task in reversed(tasks)]
    pool = _pool(n, initializer, arguments)
    try:
        while ahead or waiting:
            while ahead and len(waiting) < AHEAD * n:
                task, careful = ahead.pop()
                waiting.append(((task, careful), pool.submit(function, task, careful)))
            (task, careful), future = waiting.popleft()
            try:
                result = future.result()
            except BrokenProcessPool:
                if careful:
                    raise LlmctlError(
                        f"a worker was killed twice at {task}; out of memory? use fewer --workers"
                    ) from None
                redo = [task, *(t for (t, _), _ in waiting)]
                waiting.clear()
                ahead += [(t, True) for t in reversed(redo)]
                _stop(pool)
                pool = _pool(n, initializer, arguments)
                continue
            yield result
    finally:
        _stop(pool)


def _stop(pool: Any) -> None:
    """End a pool now; its unfinished tasks are not wanted."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()


def _pool(n: int, initializer: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
    context = multiprocessing.get_context("spawn")  # fork copies locks of threads that do not exist
    return ProcessPoolExecutor(n, context, _start, (initializer, arguments))
