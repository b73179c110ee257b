"""The recipe's last block: a task's results on disk, complete or not there.

Four files a task: NNNNN.parquet (documents that passed), .sig (their signatures),
.rejected.parquet (when kept) and .json (funnel and what was wrong with the input), which is
written last.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from llmctl.core.files import publish, temporary_name, write_json
from llmctl.web.blocks import Task
from llmctl.web.dedup import row_bytes
from llmctl.web.parts import REJECTED, TASK_SCHEMA, ParquetRows, document_row, rejected_row

PULSE_SECONDS = 0.5


class TaskWriter(PipelineStep):
    """Writes what the task's blocks let through and what they counted."""

    name = "💽 Task files"
    type = "💽 - WRITER"

    def __init__(self, task: Task, folder: Path, dedup: str) -> None:
        super().__init__()
        self.task, self.folder, self.dedup = task, folder, dedup

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self.folder.mkdir(parents=True, exist_ok=True)
        base = self.folder / f"{rank:05d}"
        rows = ParquetRows(base.with_suffix(".parquet"), TASK_SCHEMA)
        rejected = (
            ParquetRows(self.folder / f"{rank:05d}.rejected.parquet", REJECTED)
            if self.task.keep_rejected
            else None
        )
        signatures = base.with_suffix(".sig")
        temporary = temporary_name(signatures)
        empty = bytes(row_bytes(self.dedup))
        try:
            with temporary.open("wb") as out:
                for doc in data:
                    rows.add(document_row(doc))
                    out.write(doc.metadata["_signature"] or empty)
                    self._drain(rejected)
                    yield doc
            self._drain(rejected)
            rows.close()
            if rejected:
                rejected.close()
            publish(temporary, signatures)
        finally:
            temporary.unlink(missing_ok=True)
        write_json(
            base.with_suffix(".json"),
            {
                "documents": rows.rows,
                "funnel": self.task.funnel.to_json(timing=True),
                "files": self.task.files,
            },
        )

    def _drain(self, rejected: ParquetRows | None) -> None:
        if rejected:
            for item in self.task.rejected:
                rejected.add(rejected_row(item))
            self.task.rejected.clear()


class Pulse(PipelineStep):
    """Tells the parent how many pages this worker has read; first behind the reader."""

    name = "💓 Pulse"
    type = "📖 - READER"

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        said, pages = time.monotonic(), 0
        for doc in data:
            pages += 1
            yield doc
            if time.monotonic() - said > PULSE_SECONDS:
                beat(pages)
                said, pages = time.monotonic(), 0
        beat(pages)


def beat(pages: int) -> None:
    """Tell of pages done since the last beat."""
    if pages and _listener is not None:
        _listener(pages)


_listener: Callable[[int], None] | None = None


def on_pulse(listener: Callable[[int], None]) -> None:
    """Have a function hear of the pages that this process works off."""
    global _listener
    _listener = listener
