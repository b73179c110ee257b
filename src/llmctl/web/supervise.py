"""Runs the tasks of a plan on N worker processes, and survives the loss of any of them.

A worker that is killed is replaced and its task begun again; finished tasks are never repeated,
in this run or in the next.
"""

import multiprocessing
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from llmctl.core import console, errors
from llmctl.core.errors import IoError_, LlmctlError
from llmctl.core.hardware import cpu_count
from llmctl.web.plan import Plan

TRIES = 3  # of a task whose worker dies
PRELOAD = ["llmctl.web.warmed"]


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    rank: int | None = None


def run_tasks(plan: Plan) -> None:
    """Work off every task that is not marked complete."""
    todo = deque(rank for rank in range(len(plan.shares)) if not is_complete(plan, rank))
    if not todo:
        return
    n = min(plan.settings.workers or cpu_count(), len(todo))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    workers: list[_Worker] = []
    try:
        workers += [_start(context, plan, slot) for slot in range(n)]
        _attend(context, plan, workers, todo)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def is_complete(plan: Plan, rank: int) -> bool:
    """Whether a task is marked by datatrove and its report, written last, is there."""
    marked = (plan.logs / "completions" / f"{rank:05d}").exists()
    return marked and (plan.tasks / f"{rank:05d}.json").exists()


def _start(context: Any, plan: Plan, slot: int) -> _Worker:
    here, there = context.Pipe()
    process = context.Process(target=_enter, args=(plan, there, slot), daemon=False)
    process.start()
    there.close()
    return _Worker(process, here)


def _enter(plan: Plan, pipe: Connection, slot: int) -> None:
    try:
        from llmctl.web.worker import worker_main
    except Exception as error:  # an environment in which a package is missing or torn
        pipe.send(("error", type(error).__name__, str(error)))
        return
    worker_main(plan, pipe, slot)


def _attend(context: Any, plan: Plan, workers: list[_Worker], todo: deque[int]) -> None:
    """Hand out tasks, listen, replace the dead, until nothing is left to do."""
    done, total = len(plan.shares) - len(todo), len(plan.shares)
    deaths: Counter[int] = Counter()
    with console.progress("filtering", None, "pages") as bar:
        for worker in workers:
            _hand_out(worker, todo)
        while any(worker.rank is not None for worker in workers):
            ready = wait([w.pipe for w in workers if w.rank is not None], timeout=1.0)
            for slot, worker in enumerate(workers):
                if worker.pipe not in ready:
                    continue
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    workers[slot] = _replace(context, plan, worker, slot, deaths)
                    continue
                if message[0] == "pages":
                    bar.advance(message[1], f"{done}/{total} tasks done")
                elif message[0] == "error":
                    raise _error(plan, worker.rank, *message[1:])
                else:
                    done += 1
                    worker.rank = None
                    bar.advance(0, f"{done}/{total} tasks done")
                    _hand_out(worker, todo)


def _hand_out(worker: _Worker, todo: deque[int]) -> None:
    if todo:
        _give(worker, todo.popleft())


def _give(worker: _Worker, rank: int) -> None:
    """Send a task. A worker that has just died is replaced when its pipe is found at its end."""
    worker.rank = rank
    with suppress(OSError):
        worker.pipe.send(rank)


def _replace(context: Any, plan: Plan, dead: _Worker, slot: int, deaths: Counter[int]) -> _Worker:
    """A new worker on the dead one's task."""
    assert dead.rank is not None
    dead.process.join()
    dead.pipe.close()
    deaths[dead.rank] += 1
    name = plan.shares[dead.rank].file.location
    if deaths[dead.rank] >= TRIES:
        raise IoError_(
            f"{name}: the worker on it died {TRIES} times (exit {dead.process.exitcode}; "
            "-9 means killed, for memory perhaps); lower workers and run the same command again, "
            f"or look into {plan.logs}"
        )
    console.warn(f"a worker died (exit {dead.process.exitcode}); its task on {name} begins again")
    fresh = _start(context, plan, slot)
    _give(fresh, dead.rank)
    return fresh


def _error(plan: Plan, rank: int | None, name: str, message: str) -> LlmctlError:
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, LlmctlError):
        return kind(message)
    where = plan.shares[rank or 0].file.location
    return LlmctlError(f"{where}: {name}: {message}; the traceback is in {plan.logs}")
