"""Tools that a model may call while it answers, and the calls that are under way.

The engine ends a turn where the model does, asks the box whether it ends with a call, and lets the
row go; a thread runs the tool while other rows go on. Rows come back at a step that is fixed when
they leave: which rows share a batch, and with it the last bit of every logit, does not depend on
how fast a tool was. So the same seed gives the same text, tools or not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from llmctl.core.hardware import cpu_count
from llmctl.infer.completion import CallRecord
from llmctl.tokenizer.chat import PLAIN_CALLS, TOOL, CallError, ChatFormat, ToolCall

MAX_CALLS, MAX_MALFORMED = 8, 3  # in one answer
RESULT_BYTES = 16 << 10  # longest result given to a model
HOLD = 8  # decode steps a row stays away for a call, when others go on
Row = TypeVar("Row")


class Tool(Protocol):
    """Something a model can call. `run` never raises for what the model wrote: it says "error:
    …", which the model reads. `cancel`, from any thread, ends what is running soon."""

    name: str

    def run(self, arguments: str | dict[str, Any]) -> str: ...

    def cancel(self) -> None: ...


@dataclass
class ToolBox:
    """Tools by name, for a model that speaks `format`.

    in_order: see the module; False: a row comes back as soon as its tool is done, which is faster
    where some calls are slow, and the last bits of logits then depend on the clock.
    """

    format: ChatFormat
    tools: Mapping[str, Tool]
    max_calls: int = MAX_CALLS
    max_malformed: int = MAX_MALFORMED
    result_bytes: int = RESULT_BYTES
    in_order: bool = True
    markers: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        """markers: ids that begin a call to one of the tools here, in our own format."""
        names = [special for name, (special, _) in PLAIN_CALLS.items() if name in self.tools]
        found = [self.format.tokenizer.id_of(s) for s in [*names, TOOL]] if self.format.own else []
        self.markers = frozenset(i for i in found if i is not None)

    def asked(self, ids: Sequence[int]) -> ToolCall | str | None:
        """What a turn that has ended asks for: a call to a tool here, or what to tell the model
        about a call that cannot be run; None: nothing this box answers, so the answer ends."""
        if ids[-1] != self.format.end_id:  # the end of a document, which no result can follow
            return None
        try:
            call = self.format.call_of(ids)
        except CallError as error:
            return f"error: {error}"
        if call is not None and call.name not in self.tools:
            if call.name in PLAIN_CALLS:
                return None
            return f"error: no tool {call.name[:60]!r}; there is {', '.join(sorted(self.tools))}"
        return call

    def exhausted(self, done: Sequence[CallRecord]) -> bool:
        """Whether no further call is answered after these."""
        malformed = sum(not record.name for record in done)
        return len(done) >= self.max_calls or malformed >= self.max_malformed

    def run(self, call: ToolCall | str, text: str) -> CallRecord:
        """Answer a call, or tell the model what was wrong with it (`text`, as it wrote it)."""
        if isinstance(call, str):
            return CallRecord("", text, self.shortened(call), 0.0)
        started = time.perf_counter()
        try:
            result = self.tools[call.name].run(call.arguments)
        except Exception as error:
            result = f"error: {type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
        return CallRecord(call.name, call.arguments, self.shortened(result), seconds)

    def shortened(self, text: str) -> str:
        """A result as long as it may be at most, at a character's end."""
        raw = text.encode("utf-8", "replace")
        if len(raw) <= self.result_bytes:
            return raw.decode()
        note = " … (cut)"
        return raw[: max(0, self.result_bytes - len(note) - 2)].decode("utf-8", "ignore") + note

    def cancel(self) -> None:
        """End all running tools."""
        for tool in self.tools.values():
            tool.cancel()


class Running(Generic[Row]):
    """The calls of one request that are under way. Used by one thread; tools run in others."""

    def __init__(self, box: ToolBox) -> None:
        self.box = box
        self.pool = ThreadPoolExecutor(min(8, 2 * cpu_count()), "tool")
        self.away: list[tuple[int, Row, Future[CallRecord]]] = []  # by the step they come back at
        self.lock, self.active, self.stopping = threading.Lock(), 0, False

    def start(self, row: Row, call: ToolCall | str, text: str, step: int) -> None:
        """Run a call for a row that left at this step."""
        self.away.append((step + HOLD, row, self.pool.submit(self._run, call, text)))

    def _run(self, call: ToolCall | str, text: str) -> CallRecord:
        with self.lock:
            if self.stopping:
                return self.box.run("error: stopped", text)
            self.active += 1
        try:
            return self.box.run(call, text)
        finally:
            with self.lock:
                self.active -= 1

    def back(self, step: int, *, idle: bool) -> Iterator[tuple[Row, CallRecord]]:
        """Rows that come back now; idle: nothing else goes on, so wait for some."""
        if not self.away:
            return
        if self.box.in_order:
            first = self.away[0][0]
            due = [x for x in self.away if x[0] <= max(step, first if idle else step)]
        else:
            if idle:
                wait([future for _, _, future in self.away], return_when=FIRST_COMPLETED)
            due = [x for x in self.away if x[2].done()]
        for entry in due:
            record = entry[2].result()
            self.away.remove(entry)
            yield entry[1], record

    def stop(self) -> None:
        """End what runs, wherever a signal has struck, and the threads."""
        with self.lock:
            self.stopping = True
        self.pool.shutdown(wait=False, cancel_futures=True)
        while self.active:  # again: a tool may just be about to begin
            self.box.cancel()
            time.sleep(0.01)
        self.pool.shutdown(wait=True)
