"""A pool of worker processes whose results come in order, whatever the number of workers."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from llmctl.core.errors import IoError_
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
    name: Callable[[Any], str],
) -> Iterator[Any]:
    """function(task, careful) for each task, results in the order of tasks.

    One worker: this process does it. A worker that is killed, by a crash in a library or for
    memory, is replaced, and the tasks then under way are done again with careful=True; once more:
    IoError_ (74), which says name(task), the file a task is about.
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
            try:
                while ahead and len(waiting) < AHEAD * n:
                    waiting.append((ahead[-1], pool.submit(function, *ahead[-1])))
                    ahead.pop()
                result = waiting[0][1].result()
            except BrokenProcessPool:
                ahead += reversed(_again(waiting, name))
                waiting.clear()
                _stop(pool)
                pool = _pool(n, initializer, arguments)
                continue
            waiting.popleft()
            yield result
    finally:
        _stop(pool)


def _again(
    waiting: Iterable[tuple[tuple[Any, bool], Future[Any]]], name: Callable[[Any], str]
) -> list[tuple[Any, bool]]:
    """What a broken pool had, to be done again: with care what it did not finish."""
    jobs: list[tuple[Any, bool]] = []
    for (task, careful), future in waiting:
        lost = isinstance(future.exception(), BrokenProcessPool)  # all are told, sooner or later
        if lost and careful and not jobs:
            raise IoError_(
                f"{name(task)}: the worker on it was killed twice, for memory perhaps; lower "
                "workers and run the same command again"
            ) from None
        jobs.append((task, careful or lost))
    return jobs


def _stop(pool: Any) -> None:
    """End a pool now; its unfinished tasks are not wanted."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()


def _pool(n: int, initializer: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
    context = multiprocessing.get_context("spawn")  # fork copies locks of threads that do not exist
    return ProcessPoolExecutor(n, context, _start, (initializer, arguments))
