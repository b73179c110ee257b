"""Main text out of HTML, in a child process, under caps on tags and depth first, a clock last.

The caps decide the same way on every machine. The clock is the child's CPU time, which a busy
machine does not run down, and each of its verdicts is written to the task's ledger, so that a
rerun repeats it.
"""

import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.extractors.base import BaseExtractor

from llmctl.core.errors import BadInput
from llmctl.web.blocks import Drop, Step, Task, judged
from llmctl.web.extract_child import EXTRACTORS, FAILED, TEXT, fork_child, load
from llmctl.web.http import clean_text

MAX_DEPTH = 5_000  # of open tags; libxml2 itself gives up at 256 unless told otherwise
MAX_ATTRIBUTES = 10_000  # of one tag; they cost quadratic time in libxml2
LONG_TAG = 20_000  # characters; a shorter one cannot hold as many
MEMORY_MB = 2048  # that one page may take
MAX_CRASHES = 100  # of the child in one task: more is no longer the pages' fault
WALL_FACTOR = 30  # a child that neither works nor answers for so many limits is stuck
CARE_FROM = 20_000  # "<" in a page from which depth and tag lengths are looked at
TICKS = os.sysconf("SC_CLK_TCK")
_VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr !doctype !-- ?xml".split()
)
_OPENER = re.compile(r"<(script|style)\b", re.IGNORECASE)
_CLOSERS = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in ("script", "style")}
_ATTRIBUTE = re.compile(r"""[^\s=>"']+(?:\s{0,9}=\s{0,9}(?:"[^"]*"|'[^']*'|[^\s>"']*))?""")
_TAG = re.compile(r"<(/?)([a-zA-Z!?][a-zA-Z0-9\-]*)")


class PageKilled(Exception):
    """The child had to be ended on this page; the message is the funnel's rule."""


class Child:
    """One extraction process, started when needed and again after it was ended."""

    def __init__(self, name: str, time_limit: float) -> None:
        self.name, self.time_limit = name, time_limit
        self.cpu_seconds = 0.0  # of the processes that have ended
        self._pid = 0
        self._pipe: Connection | None = None
        load(name)

    def extract(self, html: str) -> str | None:
        """The text of a page. PageKilled: over its time, or dead; ValueError: it failed."""
        if self._pipe is None:
            self._pid, self._pipe = fork_child(self.name, MEMORY_MB)
        try:
            self._pipe.send_bytes(html.encode("utf-8", "surrogatepass"))
            self._wait()
            reply = self._pipe.recv_bytes()
        except (EOFError, ConnectionError) as e:
            self.close()
            raise PageKilled("extract_crash") from e
        if reply[:1] == FAILED:
            raise ValueError(reply[1:].decode())
        return reply[1:].decode("utf-8", "surrogatepass") if reply[:1] == TEXT else None

    def _wait(self) -> None:
        """Until the child answers; PageKilled when its page has used up its CPU time."""
        assert self._pipe is not None
        if self._pipe.poll(0.2):
            return
        begin, wall = _cpu_seconds(self._pid) - 0.2, time.monotonic()
        while not self._pipe.poll(0.1):
            spent = _cpu_seconds(self._pid) - begin
            if spent > self.time_limit or time.monotonic() - wall > WALL_FACTOR * self.time_limit:
                self.close()
                raise PageKilled("extract_timeout")

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                used = os.wait4(self._pid, 0)[2]
                self.cpu_seconds += used.ru_utime + used.ru_stime


def _cpu_seconds(pid: int) -> float:
    """CPU seconds a process has used; infinite once it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return 0.0  # its pipe is at its end, which says more than a clock
    return (int(fields[11]) + int(fields[12])) / TICKS


def over_cap(html: str, max_tags: int) -> Drop | None:
    """Which cap a page exceeds, if any. Costs a scan only where a page is large."""
    tags = html.count("<")
    if tags > max_tags:
        return Drop("too_many_tags", tags, max_tags)
    if len(html) > LONG_TAG and (most := _most_attributes(html)) > MAX_ATTRIBUTES:
        return Drop("too_many_attributes", most, MAX_ATTRIBUTES)
    if tags > CARE_FROM and (depth := _depth(html)) > MAX_DEPTH:
        return Drop("too_deep", depth, MAX_DEPTH)
    return None


def _most_attributes(html: str) -> int:
    """Attributes of the start tag that has most, among tags long enough to matter."""
    if max(map(len, html.split("<"))) < LONG_TAG:
        return 0
    pieces = _without_scripts(html).split("<")  # `a<b` in a script is no tag
    tags = (piece for piece in pieces if len(piece) >= LONG_TAG and piece[:1].isalpha())
    return max((sum(1 for _ in _ATTRIBUTE.finditer(tag)) - 1 for tag in tags), default=0)


def _without_scripts(html: str) -> str:
    """The page without its scripts and styles; one that is never closed stays.

    In time linear in the page: once a name has no closer left, it is not looked for again. (One
    regular expression for opener to closer looks to the page's end from every unclosed opener.)
    """
    kept, at, search = [], 0, 0
    left = dict(_CLOSERS)
    while left and (opener := _OPENER.search(html, search)):
        search, name = opener.end(), opener[1].lower()
        if name not in left:
            continue
        if closer := left[name].search(html, search):
            kept.append(html[at : opener.start()])
            at = search = closer.end()
        else:
            del left[name]
    return "".join([*kept, html[at:]])


def _depth(html: str) -> int:
    """How far opening tags run ahead of closing ones, at most."""
    depth = deepest = 0
    for slash, name in _TAG.findall(html):
        if slash:
            depth = max(depth - 1, 0)
        elif name.lower() not in _VOID:
            depth += 1
            deepest = max(deepest, depth)
    return deepest


class Ledger:
    """Verdicts that a clock or a crash decided, on disk at once, so that a rerun repeats them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, str] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                with suppress(ValueError, KeyError):  # a torn last line was never acted upon
                    entry = json.loads(line)
                    self._known[entry["page"]] = entry["verdict"]

    def __getitem__(self, page: str) -> str | None:
        return self._known.get(page)

    def __setitem__(self, page: str, verdict: str) -> None:
        self._known[page] = verdict
        with self.path.open("a") as f:
            f.write("\n" * bool(f.tell()) + json.dumps({"page": page, "verdict": verdict}))
            f.flush()
            os.fsync(f.fileno())

    def __len__(self) -> int:
        return len(self._known)


class MainText(Step, BaseExtractor):
    """Replaces a page's HTML by its main text. Documents that are text already pass through."""

    name = "⛏ Main text"
    type = "🛢 - EXTRAC"
    step = "extract"

    def __init__(
        self, task: Task, state: Path, extractor: str, time_limit: float, max_tags: int
    ) -> None:
        BaseExtractor.__init__(self, timeout=time_limit)
        if extractor not in EXTRACTORS:
            raise BadInput(f"extractor {extractor!r}: known are {', '.join(EXTRACTORS)}")
        self.task, self.state = task, state
        self.extractor, self.max_tags = extractor, max_tags

    def extract(self, text: str) -> str:
        """datatrove's entry: without the child, for one page."""
        return EXTRACTORS[self.extractor](text) or ""

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        self.state.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(self.state / f"{rank:05d}.jsonl")
        self._crashes = 0
        self._child = Child(self.extractor, self.timeout)
        try:
            yield from judged(self.task, self.step, self.judge, data)
        finally:
            self._child.close()
            self.task.funnel.step(self.step).seconds += self._child.cpu_seconds

    def judge(self, doc: Document) -> Drop | None:
        if doc.metadata.pop("_is_text", False):
            doc.text = clean_text(doc.text)
            return None if doc.text.strip() else Drop("empty")
        if drop := over_cap(doc.text, self.max_tags):
            return drop
        page = hashlib.sha256(doc.text.encode("utf-8", "surrogatepass")).hexdigest()
        if verdict := self._ledger[page]:
            return Drop(verdict, None, self.timeout if verdict == "extract_timeout" else None)
        try:
            text = self._child.extract(doc.text)
        except PageKilled as e:
            self._ledger[page] = str(e)
            return self._killed(str(e))
        except ValueError:
            return Drop("extract_error")
        doc.text = clean_text(text or "")
        return None if doc.text else Drop("no_main_text")

    def _killed(self, verdict: str) -> Drop:
        self._crashes += verdict == "extract_crash"
        if self._crashes > MAX_CRASHES:
            raise BadInput(
                f"the extractor crashed on more than {MAX_CRASHES} pages of one input file; "
                "look at its pages, or give the machine more memory"
            )
        return Drop(verdict, None, self.timeout if verdict == "extract_timeout" else None)
