"""The base of our datatrove blocks: a filter that counts, and can keep what it drops."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from llmctl.web.funnel import Funnel


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a page goes: the rule, the value measured, the threshold it missed (None: no number)."""

    rule: str
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A page that was dropped, as `--keep-rejected` stores it."""

    document: Document
    step: str
    drop: Drop


class Task:
    """What the blocks of one task share while they run: its funnel, its rejects, its pulse.

    Made anew, with the blocks, for each task.
    """

    def __init__(self, keep_rejected: bool = False) -> None:
        self.keep_rejected = keep_rejected
        self.funnel = Funnel()
        self.rejected: list[Rejected] = []
        self.files: list[
            dict[str, Any]
        ] = []  # one row per input file (part): what was wrong with it

    def drop(self, document: Document, step: str, drop: Drop) -> None:
        self.funnel.dropped(step, drop.rule, len(document.text))
        if self.keep_rejected:
            self.rejected.append(Rejected(document, step, drop))


class Step(PipelineStep):
    """A block that judges one page at a time: None from `judge` keeps it, changed or not."""

    type = "🔻 - FILTER"
    step = ""

    task: Task

    def judge(self, doc: Document) -> Drop | None:
        raise NotImplementedError

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        yield from judged(self.task, self.step, self.judge, data)


def judged(
    task: Task, step: str, judge: Callable[[Document], Drop | None], data: Any
) -> Iterator[Document]:
    """Pass on the pages that `judge` keeps; count all of them."""
    funnel = task.funnel
    count = funnel.step(step)
    for doc in data:
        begin, chars = time.thread_time(), len(doc.text)
        drop = judge(doc)
        count.seconds += time.thread_time() - begin
        if drop is not None:
            task.drop(doc, step, drop)
            continue
        funnel.kept(step, chars, len(doc.text))
        yield doc
