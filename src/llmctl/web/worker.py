"""A worker process: runs datatrove's tasks one after another, as its parent hands them out."""

import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

from datatrove.executor.local import LocalPipelineExecutor

from llmctl.core.errors import LlmctlError, from_exception
from llmctl.core.signals import die_with_parent
from llmctl.web import tasks, words
from llmctl.web.plan import Plan, build_pipeline, word_language


def worker_main(plan: Plan, pipe: Connection, slot: int) -> None:
    """Take task numbers from the pipe until it says None; answer each with its outcome."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _talk_to_log(plan, slot)
    tasks.on_pulse(lambda pages: pipe.send(("pages", pages)))
    words.words_for(word_language(plan.settings.languages))
    while (rank := pipe.recv()) is not None:
        try:
            run_task(plan, rank)
        except BaseException as error:
            known = from_exception(error) if isinstance(error, Exception) else None
            traceback.print_exc()
            pipe.send(("error", type(known or error).__name__, str(known or error)))
            if not isinstance(error, LlmctlError):
                return
        else:
            pipe.send(("done", rank))


def run_task(plan: Plan, rank: int) -> None:
    """One task by datatrove's executor, which marks it complete when its files are on disk."""
    executor = LocalPipelineExecutor(
        build_pipeline(plan), tasks=len(plan.shares), workers=1, logging_dir=str(plan.logs)
    )
    executor._run_for_rank(rank, local_rank=1)


def _talk_to_log(plan: Plan, slot: int) -> None:
    """What libraries print goes to a file: the terminal belongs to the run's own words."""
    plan.logs.mkdir(parents=True, exist_ok=True)
    fd = os.open(plan.logs / f"worker-{slot}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
