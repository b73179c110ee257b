"""Random-access bytes of one input file, local (mapped) or remote (fsspec), and their kind.

The kind of a file is read from its first bytes, never from its name.
"""

import mmap
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadInput, IoError_, NoInput

READ_TRIES = 3  # a read error is often a moment of a network file system
HEAD_BYTES = 65_536
GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGICS = (b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\x5d\x2a\x4d\x18")
PARQUET_MAGIC = b"PAR1"


class Source:
    """One file, opened once: `size` (bytes), `read(offset, n)`, `find(needle, start)`."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._map: mmap.mmap | None = None
        self._file: Any = None
        if "://" in location:
            self._open_remote()
        else:
            self._open_local()

    def _open_local(self) -> None:
        try:
            self._file = Path(self.location).open("rb")  # noqa: SIM115 (closed by close())
            status = os.fstat(self._file.fileno())
        except FileNotFoundError as e:
            raise NoInput(f"{self.location}: no such file; check the path") from e
        except OSError as e:
            raise IoError_(f"{self.location}: {e.strerror}; check the file's permissions") from e
        self.size = status.st_size
        self.stamp = (status.st_size, status.st_mtime_ns)
        if self.size:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def _open_remote(self) -> None:
        import fsspec

        try:
            self._file = fsspec.open(self.location, "rb", block_size=8 << 20).open()
            self.size = int(self._file.size)
        except FileNotFoundError as e:
            raise NoInput(f"{self.location}: not found; check the URL") from e
        except ImportError as e:
            raise BadInput(f"{self.location}: {e}; install the package that fsspec names") from e
        except (OSError, TypeError) as e:
            raise IoError_(f"{self.location}: cannot be opened ({e}); try again later") from e
        self.stamp = (self.size, 0)

    def read(self, offset: int, n: int) -> bytes:
        """Up to n bytes from offset; fewer only at the end of the file."""
        if self._map is not None:
            return self._map[offset : offset + n]
        if self.size == 0 or offset >= self.size:
            return b""
        for attempt in range(READ_TRIES):
            try:
                self._file.seek(offset)
                return bytes(self._file.read(n))
            except OSError as e:
                if attempt + 1 == READ_TRIES:
                    raise IoError_(
                        f"{self.location}: read error at byte {offset:,} ({e}), "
                        f"{READ_TRIES} times; fetch the file again"
                    ) from e
                time.sleep(2.0**attempt)
        raise AssertionError("unreachable")

    def find(self, needle: bytes, start: int) -> int:
        """Offset of the first `needle` at or after `start`, -1 if there is none."""
        if self._map is not None:
            return self._map.find(needle, start)
        step, overlap = 4 << 20, len(needle) - 1
        while start < self.size:
            block = self.read(start, step + overlap)
            if (at := block.find(needle)) >= 0:
                return start + at
            start += step
        return -1

    def unchanged(self) -> bool:
        """Whether a local file still has the size and time it had when it was opened."""
        if "://" in self.location:
            return True
        with suppress(OSError):
            status = Path(self.location).stat()
            return (status.st_size, status.st_mtime_ns) == self.stamp
        return False

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def kind_of(source: Source) -> str:
    """What a file holds: gzip-warc, warc, parquet, json, gzip-json; arc, html, zstd, empty, …"""
    if source.size == 0:
        return "empty"
    head = source.read(0, HEAD_BYTES)
    if head.startswith(GZIP_MAGIC):
        inner = inflate_head(head)
        kind = _plain_kind(inner)
        return f"gzip-{kind}" if kind in ("warc", "json") else "gzip-" + (kind or "damaged")
    if head[:4] in ZSTD_MAGICS:
        return "zstd"
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    return _plain_kind(head)


def _plain_kind(head: bytes) -> str:
    body = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if body.startswith(b"WARC/"):
        return "warc"
    if body.startswith(b"filedesc:"):
        return "arc"
    if body.startswith(b"{"):
        return "json"
    if not head.strip(b"\0"):
        return "zeros" if head else "damaged"
    if b"\nWARC/" in head or b"\nwarc-type:" in head.lower():
        return "warc"  # its first record is damaged, later ones are not
    return "html" if body[:1] == b"<" else "unknown"


def inflate_head(data: bytes, n: int = 4096) -> bytes:
    """The first n bytes of a gzip member, or what can be had of them."""
    import zlib

    try:
        return zlib.decompressobj(31).decompress(data, n)
    except zlib.error:
        return b""
