"""Cores that others use are left alone."""

import pytest

from llmctl.infer import threads


@pytest.mark.parametrize(
    "running, machine, mine, wanted",
    [(1, 2, 2, 2), (2, 2, 2, 1), (9, 2, 2, 1), (9, 64, 4, 4), (None, 2, 2, 2), (1, 8, 4, 4)],
)
def test_threads_fill_what_is_idle(monkeypatch, running, machine, mine, wanted):
    monkeypatch.setattr(threads, "_running", lambda: running)
    monkeypatch.setattr(threads, "cpu_count", lambda: mine)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: machine)
    monkeypatch.setattr(threads, "APART", 0.0)
    assert threads.idle_cores() == wanted


def test_the_run_queue_can_be_read_here():
    assert threads._running() is None or threads._running() >= 1
