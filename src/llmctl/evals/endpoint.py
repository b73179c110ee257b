"""A model behind an OpenAI-compatible address: questions out, replies in, nothing else.

The key is read from OPENAI_API_KEY and goes to the named host alone: redirects are refused, and
plain http is refused for a key unless the host is this machine. Replies are capped in bytes and
seconds. What was paid for is kept in a journal, so that a run that was killed does not ask twice.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from llmctl.core.console import printable
from llmctl.core.errors import BadInput, IoError_, Refused, UsageError

KEY = "OPENAI_API_KEY"
MAX_REPLY = 4 << 20  # bytes of one response
TIMEOUT = 120.0  # seconds for one response, all of it
TRIES, WAIT, LONGEST_WAIT = 4, 1.0, 30.0  # attempts; seconds before the second one, doubled
AGAIN = (408, 409, 429, 500, 502, 503, 504)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
Message = dict[str, Any]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Journal:
    """Replies by the hash of what was asked, one JSON line each; a torn last line is forgotten."""

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self.replies: dict[str, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            for line in path.read_bytes().split(b"\n"):
                try:
                    key, reply = json.loads(line)
                    self.replies[key] = reply
                except (ValueError, TypeError):
                    continue
        self._file = open(path, "ab")
        self._file.write(b"\n")  # ends what a killed writer left

    def add(self, key: str, reply: str) -> None:
        """Keep a reply."""
        with self._lock:
            self.replies[key] = reply
            self._file.write(json.dumps([key, reply]).encode() + b"\n")
            self._file.flush()


class Endpoint:
    """Answers from an OpenAI-compatible address. url: the base, such as https://host/v1.

    workers: requests under way at once. UsageError (2) for an address that cannot be one.
    """

    def __init__(
        self,
        url: str,
        model: str = "",
        *,
        workers: int = 4,
        timeout: float = TIMEOUT,
        journal: Journal | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{printable(url)}: no address; write it as https://host/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UsageError(f"an address holds no name, key or query; put the key into {KEY}")
        self.base = url.rstrip("/").removesuffix("/chat/completions")
        self.host, local = parts.hostname, parts.hostname in LOOPBACK
        self._key = os.environ.get(KEY, "")
        if self._key and parts.scheme == "http" and not local:
            raise Refused(f"{self.base}: {KEY} would go over the network unencrypted; use https")
        handlers: list[Any] = [_NoRedirect()]
        if local:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self.workers, self.timeout, self.journal = max(1, workers), timeout, journal
        self._sleep = sleep
        self.model = model or self._first_model()
        self.name = f"{self.model} at {self.host}"

    def reply(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        seed: int = 0,
        on_reply: Callable[[], None] = lambda: None,
    ) -> list[str]:
        """A reply to each conversation, greedy as far as the other side allows, in order."""

        def one(messages: Sequence[Message]) -> str:
            body = {"model": self.model, "messages": list(messages), "temperature": 0}
            reply = self._ask(body | {"max_tokens": max_tokens, "seed": seed % (1 << 31)})
            on_reply()
            return reply

        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(one, messages) for messages in prompts]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, body: dict[str, Any]) -> str:
        data = json.dumps(body).encode()
        key = hashlib.sha256(self.base.encode() + b"\n" + data).hexdigest()
        if self.journal is not None and key in self.journal.replies:
            return self.journal.replies[key]
        found = self._json("/chat/completions", data)
        try:
            reply = found["choices"][0]["message"]["content"] or ""
        except (KeyError, IndexError, TypeError):
            reply = None
        if not isinstance(reply, str):
            raise BadInput(f"{self.base}: the response holds no choices[0].message.content")
        if self.journal is not None:
            self.journal.add(key, reply)
        return reply

    def _first_model(self) -> str:
        found = self._json("/models", None)
        try:
            name = found["data"][0]["id"]
        except (KeyError, IndexError, TypeError):
            name = None
        if not isinstance(name, str):
            raise UsageError(f"{self.base}: names no model of its own; say which one to ask")
        return name

    def _json(self, path: str, data: bytes | None) -> Any:
        """The response to a request, tried again where that may help."""
        wait, said = WAIT, ""
        for attempt in range(TRIES):
            try:
                raw = self._send(path, data)
                return json.loads(raw)
            except urllib.error.HTTPError as error:
                with error:
                    said = f"{error.code} {_excerpt(error)}"
                    if 300 <= error.code < 400:
                        raise Refused(
                            f"{self.base}: sends elsewhere ({error.code}); name the right address"
                        ) from None
                    if error.code not in AGAIN:
                        raise UsageError(
                            f"{self.base}: {said}; check the address, the model and {KEY}"
                        ) from None
                    wait = _asked_wait(error, wait)
            except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
                said = f"{type(error).__name__}: {printable(str(error))[:200]}"
            if attempt + 1 < TRIES:
                self._sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
        raise IoError_(
            f"{self.base}: no usable response in {TRIES} tries ({said}); try again later"
        )

    def _send(self, path: str, data: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.base + path, data, headers)
        deadline = time.monotonic() + self.timeout
        with self._opener.open(request, timeout=self.timeout) as response:
            parts, size = [], 0
            while piece := response.read1(1 << 16):
                parts.append(piece)
                size += len(piece)
                if size > MAX_REPLY:
                    raise BadInput(f"{self.base}: a response of more than {MAX_REPLY:,} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"longer than {self.timeout:.0f} s")
            return b"".join(parts)


def _excerpt(error: urllib.error.HTTPError) -> str:
    """The beginning of what an error response says."""
    try:
        return printable(" ".join(error.read(2000).decode("utf-8", "replace").split()))[:200]
    except (OSError, http.client.HTTPException):
        return ""


def _asked_wait(error: urllib.error.HTTPError, otherwise: float) -> float:
    """Seconds the other side asks to wait."""
    try:
        return min(max(float(error.headers.get("Retry-After", "")), 0.0), LONGEST_WAIT)
    except ValueError:
        return otherwise
