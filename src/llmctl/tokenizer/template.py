"""Rendering chat templates of others: a process with limits, and texts that cannot spell tokens."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadInput, Mismatch, Refused
from llmctl.tokenizer.bpe import clean_text

MAX_TEMPLATE = 64 << 10  # bytes; the longest in common use has 20 KB
MEMORY, SECONDS = 256 << 20, 1.0  # of a template, beyond an empty one's; CPU seconds a rendering
WAIT = 300  # seconds a reply may take on a machine that is busy with other things
MAX_REPLY = 1 << 29  # bytes
BATCH = 64  # conversations sent at once
JINJA = (3, 1, 6)  # older ones let templates out of the sandbox
MARKS = [chr(c) for c in (*range(0xFDD0, 0xFDF0), *range(0xE000, 0xF900))]  # stand for nothing


@dataclass(frozen=True)
class Painted:
    """A rendering: its text, and [start, end) of each assistant turn in it.

    loose: a turn's end is not known; it is the next control token that ends a turn.
    """

    text: str
    spans: list[tuple[int, int, bool]]


class TemplateProcess:
    """A template in a process of its own, started at the first use and again when it was killed."""

    _owner = 0  # the process that started it
    _process: subprocess.Popen[bytes] | None = None

    def __init__(self, template: str, tokens: dict[str, str]) -> None:
        """tokens: bos_token and its like, as templates name them. Refused (77), Mismatch (78)."""
        if len(template.encode("utf-8", "replace")) > MAX_TEMPLATE:
            raise Mismatch(f"chat template of over {MAX_TEMPLATE:,} bytes; no model needs that")
        version = importlib.metadata.version("jinja2")
        if tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < JINJA:
            raise Refused(f"jinja2 {version} lets chat templates out; pip install 'jinja2>=3.1.6'")
        self.template, self.tokens = template, tokens
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Without the process: a copy starts its own."""
        return {**self.__dict__, "_lock": None, "_process": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __del__(self) -> None:
        if self._owner == os.getpid():
            self.stop()

    def render(self, jobs: Sequence[dict[str, Any]]) -> list[Painted | str]:
        """Each job rendered, or why it cannot be.

        A job: messages, generation, spans (whether turns are located), tools, chars (three marks
        that stand nowhere in it). Refused (77) for a template that takes more than its share of
        time or memory.
        """
        done: list[Painted | str] = []
        with self._lock:
            while len(done) < len(jobs):
                done += self._batch(jobs[len(done) : len(done) + BATCH])
        return done

    def _batch(self, jobs: Sequence[dict[str, Any]]) -> list[Painted | str]:
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(_framed(list(jobs)))
            process.stdin.flush()
            return [_painted(self._reply(process)) for _ in jobs]
        except (BrokenPipeError, EOFError):
            self.stop()
            raise Refused(
                f"the chat template needs more than {SECONDS:g} s of CPU or {MEMORY >> 20} MiB for "
                "a conversation; use a folder with another template"
            ) from None
        except BaseException:  # Ctrl-C between question and answer: what comes next is not ours
            self.stop()
            raise

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid():
            return self._process
        spec = importlib.util.find_spec("jinja2")
        assert spec is not None and spec.origin is not None
        child = str(Path(__file__).with_name("template_child.py"))
        process = subprocess.Popen(
            [sys.executable, "-I", child, str(Path(spec.origin).parents[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
        )
        self._process, self._owner = process, os.getpid()
        setup = {
            "template": self.template,
            "tokens": self.tokens,
            "memory": MEMORY,
            "seconds": SECONDS,
        }
        assert process.stdin is not None
        try:
            process.stdin.write(_framed(setup))
            process.stdin.flush()
            reply = self._reply(process)
        except (BrokenPipeError, EOFError):
            self.stop()
            raise Refused(
                f"the chat template needs more than {SECONDS:g} s of CPU or {MEMORY >> 20} MiB; "
                "use a folder with another template"
            ) from None
        if "error" in reply:
            self.stop()
            raise Mismatch(f"the chat template is no Jinja ({reply['error']}); fetch it again")
        return process

    def _reply(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        (size,) = struct.unpack("<I", self._bytes(process, 4))
        if size > MAX_REPLY:
            raise EOFError
        return json.loads(self._bytes(process, size))

    def _bytes(self, process: subprocess.Popen[bytes], n: int) -> bytes:
        """n bytes of the process's output. EOFError when it ends or keeps silent too long."""
        assert process.stdout is not None
        file, parts, until = process.stdout.fileno(), [], time.monotonic() + WAIT
        while n:
            ready, _, _ = select.select([file], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(file, min(n, 1 << 20)) if ready else b""
            if not piece:
                raise EOFError
            parts.append(piece)
            n -= len(piece)
        return b"".join(parts)

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                try:
                    stream.close()
                except BrokenPipeError:
                    pass


def _framed(value: Any) -> bytes:
    raw = json.dumps(value).encode()
    return struct.pack("<I", len(raw)) + raw


def _painted(reply: dict[str, Any]) -> Painted | str:
    if "error" in reply:
        return str(reply["error"])
    return Painted(reply["text"], [(a, b, loose) for a, b, loose in reply["spans"]])


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a nested value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from texts_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_of(inner)


def free_marks(value: Any, template: str) -> str:
    """Four characters that stand neither in a value's texts nor in a template. BadInput (65)."""
    text = "".join(t for t in texts_of(value) if not t.isascii()) + template
    found = "".join(islice((c for c in MARKS if c not in text), 4))
    if len(found) < 4:
        raise BadInput("a conversation that holds every private character; leave some out")
    return found


class Harmless:
    """Makes texts unable to spell a control token, by a character put into the dangerous places.

    A token could come from a text alone, from two texts that a template puts side by side, or from
    a template's text and ours. Each begins with a letter that is followed by the breaker wherever a
    text holds it; and a text that could go on what a template began has the breaker before it.
    """

    def __init__(self, specials: Iterable[str]) -> None:
        self.specials = [s for s in specials if s]
        self._first = sorted({s[0] for s in self.specials})
        self._longest = max(map(len, self.specials), default=0)
        self._endings = tuple({s[k:] for s in self.specials for k in range(1, len(s))})

    def text(self, text: str, breaker: str) -> str:
        """The text with breakers; taken out again, they leave it as it was."""
        text = clean_text(text)
        bare = text.strip()
        if not bare or not self.specials:
            return text
        goes_on = bare.startswith(self._endings)
        for letter in self._first:
            if letter in text:
                text = text.replace(letter, letter + breaker)
        if goes_on or (len(bare) < self._longest and any(bare in s for s in self.specials)):
            start = len(text) - len(text.lstrip())
            text = text[:start] + breaker + text[start:]
        return text

    def value(self, value: Any, breaker: str) -> Any:
        """Every text in a nested value, keys too."""
        if isinstance(value, str):
            return self.text(value, breaker)
        if isinstance(value, dict):
            return {self.value(k, breaker): self.value(v, breaker) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(v, breaker) for v in value]
        return value
