"""Where conversations lie on disk: private files, written whole or not at all.

Transcripts are written after every turn under $XDG_STATE_HOME/llmctl/chat (~/.local/state/…), one
file a conversation, readable by their owner alone. A symbolic link is never followed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadInput, NoInput, Refused, UsageError
from llmctl.core.files import fsync_dir, temporary_name

SIZE_LIMIT = 64 << 20  # bytes of a conversation file
PRIVATE = 0o600


def state_folder() -> Path:
    """Where this user's transcripts and history lie; made when missing, closed to others."""
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    folder = base / "llmctl" / "chat"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 atomically. Refused (77) where a symbolic link has its name."""
    if path.is_symlink():
        raise Refused(f"{path}: a symbolic link, which is not followed; name the file itself")
    if path.is_dir():
        raise UsageError(f"{path}: a folder; name a file in it")
    temporary = temporary_name(path)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, PRIVATE), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    fsync_dir(path.parent)


def write_row(path: Path, row: dict[str, Any]) -> None:
    """Write a conversation: one JSON object, one line."""
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    write_private(path, line.encode("utf-8", "replace") + b"\n")


def read_rows(path: Path) -> list[Any]:
    """The JSON objects of a file: one a line, or one over many lines.

    NoInput (66) when there is none, BadInput (65) names the line that is no JSON.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NoInput(f"{path}: no such file; check the path") from None
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise BadInput(f"{path}: no regular file")
        if facts.st_size > SIZE_LIMIT:
            raise BadInput(f"{path}: {facts.st_size:,} bytes, at most {SIZE_LIMIT:,} are read")
        raw = file.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start:,}") from None
    with contextlib.suppress(ValueError, RecursionError):
        whole = _loads(text)
        return whole if isinstance(whole, list) else [whole]
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise NoInput(f"{path}: nothing in it")
    rows = []
    for number, line in lines:
        try:
            rows.append(_loads(line))
        except (ValueError, RecursionError):
            raise BadInput(f"{path}, line {number}: not JSON; one conversation a line") from None
    return rows


def _loads(text: str) -> Any:
    """JSON; numbers it has no place for, such as NaN and 1e999, become null."""
    return json.loads(text, parse_constant=lambda name: None, parse_float=_finite)


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


class Transcript:
    """The file one conversation is kept in. Written anew after each turn; nothing is written
    before the first. A file that somebody else has written meanwhile is left to them."""

    def __init__(self, folder: Path, model: str, path: Path | None = None) -> None:
        self.folder, self.model = folder, model
        self.path = path
        self.seen = _mark(path) if path else None

    def write(self, row: dict[str, Any]) -> Path:
        """Keep the conversation as it is now; the file's path. OSError when it cannot be kept."""
        if self.path is None or _mark(self.path) != self.seen:
            self.path = self._new_path()
        write_row(self.path, row)
        self.seen = _mark(self.path)
        return self.path

    def _new_path(self) -> Path:
        stem = time.strftime("%Y-%m-%dT%H-%M-%S")
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(self.model).name).strip(".")[:60]
        for number in range(1, 1000):
            tail = f"-{number}" if number > 1 else ""
            path = self.folder / f"{stem}-{name}{tail}.jsonl"
            if not os.path.lexists(path):
                return path
        raise FileExistsError(f"{self.folder}: too many transcripts of one second")


def _mark(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written by anybody; None when it is not there."""
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def latest(folder: Path, model_id: str) -> Path | None:
    """The newest transcript of a talk with that model; None when there is none."""
    for path in newest_first(folder):
        with contextlib.suppress(Exception):  # a transcript that cannot be read is not the one
            row = read_rows(path)[0]
            if row["chat"]["model"]["id"] == model_id:
                return path
    return None


def newest_first(folder: Path) -> Iterator[Path]:
    """The transcripts of a folder."""
    found = [p for p in folder.glob("*.jsonl") if p.is_file() and not p.is_symlink()]
    yield from sorted(found, key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)


class History:
    """Lines typed before, oldest first, kept in a private file; newlines stand as JSON has them.

    Without a file, or when it cannot be written, the history lives as long as the program.
    """

    KEPT = 2000  # entries read back

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.trouble = ""  # why the file is not used, to be said once

    def load(self) -> list[str]:
        """The entries of earlier sessions."""
        if self.path is None:
            return []
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        except OSError as error:
            self._give_up(error)
            return []
        with os.fdopen(fd, "rb") as file:
            size = os.fstat(fd).st_size
            file.seek(max(0, size - (4 << 20)))
            lines = file.read().decode("utf-8", "replace").split("\n")
        found = []
        for line in lines[-self.KEPT :]:
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, str):
                    found.append(entry)
        return found

    def append(self, entry: str) -> None:
        """Keep one more."""
        if self.path is None:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags, PRIVATE)
            with os.fdopen(fd, "wb") as file:
                file.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.trouble = f"history is not kept: {self.path}: {error.strerror}"
        self.path = None
