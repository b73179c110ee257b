"""Writing files so that no reader ever sees a torn one.

One protocol for the whole house: write under a temporary name on the same file system, flush,
fsync, rename, fsync the directory. What crashes in between leaves a `*.tmp.*`, never a half file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from llmctl.core.errors import Mismatch

CHUNK = 1 << 20  # bytes read at once when hashing


def fsync_dir(folder: Path) -> None:
    """Make the renames inside a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def temporary_name(path: Path) -> Path:
    """A name beside `path` for a file under construction."""
    return path.with_name(f"{path.name}.tmp.{os.getpid()}.{uuid.uuid4().hex[:8]}")


def publish(temporary: Path, path: Path) -> None:
    """Give a finished temporary file its name: fsync, rename, fsync the folder."""
    fd = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
    fsync_dir(path.parent)


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """A binary file handle whose content appears under `path` whole, or not at all."""
    path = Path(path)
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as handle:
            yield handle
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Delete what a killed writer left behind. Call it only while holding the folder's lock."""
    for leftover in folder.rglob("*.tmp.*"):
        if leftover.is_file():
            leftover.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically: two spaces, keys in the order given, one newline at the end."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as handle:
        handle.write(text.encode())


def read_json(path: Path | str, *, limit: int = 64 << 20) -> Any:
    """Read a JSON file of at most `limit` bytes; Mismatch (78) when it is not JSON."""
    path = Path(path)
    size = path.stat().st_size
    if size > limit:
        raise Mismatch(f"{path}: {size:,} bytes, more than the {limit:,} allowed for such a file")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Mismatch(f"{path}: not valid JSON ({error}); copy the file again") from None


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's content, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def human_bytes(n: float) -> str:
    """'3.2 MB': decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(n) < 1000 or unit == "TB":
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1000
    return ""


def folder_bytes(folder: Path) -> int:
    """Bytes of all regular files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total
