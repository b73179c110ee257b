"""A killed worker is replaced, wherever it was; what kills two of them is an error with a name."""

import os
import signal
import time

import pytest

from llmctl.core.errors import IoError_
from llmctl.core.workers import ordered_map


def crashing(task, careful):
    if task == 2 and not careful:
        os._exit(9)
    return task * 10, careful


def always_crashing(task, careful):
    os._exit(9)


def own_pid(task, careful):
    return task, os.getpid()


def what_ctrl_c_does(task, careful):
    return signal.getsignal(signal.SIGINT)


def nothing():
    pass


def test_a_killed_worker_is_replaced_and_its_tasks_done_again():
    results = list(ordered_map(crashing, range(6), 2, nothing, (), name=str))
    assert [r[0] for r in results] == [0, 10, 20, 30, 40, 50]
    assert results[2][1]


def test_a_worker_killed_between_results_is_replaced():
    """The pool is known to be broken when the next task is handed in, not when one is read."""
    results = ordered_map(own_pid, range(12), 2, nothing, (), name=str)
    done, pid = next(results)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)  # the pool notices
    assert [done, *(task for task, _ in results)] == list(range(12))


def test_a_task_that_kills_two_workers_is_an_error_that_names_its_file():
    with pytest.raises(IoError_, match=r"^part-0\.gz: .*killed twice"):
        list(ordered_map(always_crashing, range(3), 2, nothing, (), name="part-{}.gz".format))


def test_workers_leave_ctrl_c_to_their_parent():
    found = set(ordered_map(what_ctrl_c_does, range(2), 2, nothing, (), name=str))
    assert found == {signal.SIG_IGN}
