"""Handing tasks out: a worker that dies at any moment costs a replacement, not the run."""

import pytest

from llmctl.core import hardware
from llmctl.core.errors import IoError_
from llmctl.stages.crawl_filter import CrawlFilterConfig
from llmctl.web import supervise
from llmctl.web.inputs import InputFile, Share
from llmctl.web.plan import Plan
from llmctl.web.supervise import run_tasks

RECORD = "task-{:05d}"


class Dies:
    """Stands for a worker: gone before it reads a task, for the first `deaths` starts."""

    def __init__(self, deaths, folder):
        self.deaths, self.folder = deaths, folder

    def __call__(self, plan, pipe, slot):
        tries = self.folder / "tries"
        with tries.open("a") as f:
            f.write(".")
        if len(tries.read_text()) <= self.deaths:
            pipe.close()
            return
        while True:
            rank = pipe.recv()
            (self.folder / RECORD.format(rank)).touch()
            pipe.send(("done", rank))


@pytest.fixture
def plan(tmp_path):
    file = InputFile(str(tmp_path / "x.warc"), "x.warc")
    shares = [Share(file, "warc", i, i + 1, (0, 0)) for i in range(3)]
    return Plan(
        settings=CrawlFilterConfig(workers=1).settings(), shares=shares, work=tmp_path / "work"
    )


def run(plan, tmp_path, monkeypatch, deaths):
    """The tasks done. Each worker is given time to die before a task is sent to it."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(supervise.multiprocessing, "get_context", lambda kind: context)
    monkeypatch.setattr(context, "set_forkserver_preload", lambda names: None, raising=False)
    monkeypatch.setattr(supervise, "_enter", Dies(deaths, tmp_path))
    start = supervise._start

    def started(context, plan, slot):
        worker = start(context, plan, slot)
        worker.process.join(0.5)
        return worker

    monkeypatch.setattr(supervise, "_start", started)
    run_tasks(plan)
    return sorted(path.name for path in tmp_path.glob("task-*"))


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_worker_that_is_dead_when_its_task_is_sent_is_replaced(
    plan, tmp_path, monkeypatch, deaths
):
    assert run(plan, tmp_path, monkeypatch, deaths) == [RECORD.format(i) for i in range(3)]


def test_a_task_whose_workers_all_die_is_an_error_that_names_its_file(plan, tmp_path, monkeypatch):
    with pytest.raises(IoError_, match=r"x\.warc: the worker on it died 3 times"):
        run(plan, tmp_path, monkeypatch, 3)


def test_workers_are_as_many_as_the_cores_this_process_may_use(plan, monkeypatch):
    """cgroups and affinity are known to core.hardware alone; systems without affinity, too."""
    monkeypatch.delattr(hardware.os, "sched_getaffinity", raising=False)
    assert supervise.cpu_count is hardware.cpu_count and hardware.cpu_count() >= 1
