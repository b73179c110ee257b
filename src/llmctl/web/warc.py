"""WARC records out of damaged files: one bad record costs that record, not the file.

A compressed WARC (ISO 28500, annex D) is a row of gzip members, one a record, so after any fault
reading goes on at the next gzip header whose contents begin with "WARC/". Sizes from the file are
never allocated before they are checked, and a member that swells beyond a ratio is given up.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llmctl.web.source import GZIP_MAGIC, Source, inflate_head

CHUNK = 1 << 16  # bytes of compressed input taken at a time
OUT_CHUNK = 1 << 20  # bytes of output asked for at a time
MAX_HEADER_BYTES = 1 << 16
MAX_RATIO = 1000  # deflate reaches 1032:1 on constant input, pages stay below 100:1
RATIO_FREE_BYTES = 1 << 20
MAX_BLANK_LINES = 64
_RECORD_AT = re.compile(rb"(?:^|\n)(WARC/\d)")


@dataclass(frozen=True, slots=True)
class Record:
    """One WARC record: lower-case header names, the block (None where it was not wanted)."""

    type: str
    headers: dict[str, str]
    block: bytes | None
    offset: int  # of the gzip member, or of the record in a plain file; bytes


class Damage(Exception):
    """A record that cannot be used; `reason` is counted in the funnel."""

    def __init__(self, reason: str, lost_sync: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lost_sync = lost_sync  # the compressed stream itself is broken


class Plain:
    """The bytes of an uncompressed WARC."""

    def __init__(self, source: Source, offset: int) -> None:
        self.source, self.offset = source, offset
        self._buffer, self._at = b"", 0

    @property
    def position(self) -> int:
        """Where the next record can be said to begin, in the file's own bytes."""
        return self.offset - (len(self._buffer) - self._at)

    def _more(self) -> bytes:
        block = self.source.read(self.offset, OUT_CHUNK)
        self.offset += len(block)
        return block

    def fill(self) -> bool:
        """Take more bytes into the buffer; False when there are none."""
        block = self._more()
        self._buffer = self._buffer[self._at :] + block
        self._at = 0
        return bool(block)

    def line(self) -> bytes:
        """Up to and with the next newline, at most MAX_HEADER_BYTES; empty at the end."""
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            if len(self._buffer) - self._at > MAX_HEADER_BYTES:
                raise Damage("header_too_long")
            if not self.fill():
                end = len(self._buffer) - 1
                break
        if end + 1 - self._at > MAX_HEADER_BYTES:
            raise Damage("header_too_long")
        line, self._at = self._buffer[self._at : end + 1], end + 1
        return line

    def take(self, n: int, keep: bool = True) -> bytes | int:
        """The next n bytes (or, with keep=False, how many of them there were)."""
        pieces, missing = [], n
        while missing:
            piece = self._buffer[self._at : self._at + missing]
            if not piece:
                if not self.fill():
                    break
                continue
            self._at += len(piece)
            missing -= len(piece)
            if keep:
                pieces.append(piece)
        return b"".join(pieces) if keep else n - missing

    def peek(self, n: int) -> bytes:
        while len(self._buffer) - self._at < n and self.fill():
            pass
        return self._buffer[self._at : self._at + n]

    def skip(self, length: int) -> None:
        """Leave a block unread, by seeking; back to its start where that does not end a record."""
        begin = self.position
        if begin + length > self.source.size:
            raise Damage("warc_truncated")
        self._buffer, self._at, self.offset = b"", 0, begin + length
        if not _ends_here(self):
            self._buffer, self._at, self.offset = b"", 0, begin
            raise Damage("bad_content_length")

    def push_back(self, data: bytes) -> None:
        self._buffer, self._at = data + self._buffer[self._at :], 0

    def seek_record(self) -> bool:
        """Drop bytes up to the next line that begins a record; False at the end."""
        while True:
            found = _RECORD_AT.search(self._buffer, self._at)
            if found:
                self._at = found.start(1)
                return True
            self._at = max(self._at, len(self._buffer) - 8)
            before = len(self._buffer) - self._at
            if not self.fill() or len(self._buffer) <= before:
                return False

    def next_record(self) -> bool:
        """Move to the next record's first byte, over blank lines; False at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in b"\r\n":
                self._at += 1
            if self._at < len(self._buffer):
                return True
            if not self.fill():
                return False


class Gzip(Plain):
    """The bytes of one gzip member; `reopen` goes to the next, so no record runs into another's."""

    def __init__(self, source: Source, offset: int) -> None:
        super().__init__(source, offset)
        self.member = offset
        self._open()

    def _open(self) -> None:
        self.member = self.offset
        self._z = zlib.decompressobj(31)
        self._tail = b""
        self._in = self._out = 0
        self._finished = False

    @property
    def position(self) -> int:
        return self.member

    def _more(self) -> bytes:
        while not self._z.eof:
            if not self._tail:
                self._tail = self.source.read(self.offset, CHUNK)
                self.offset += len(self._tail)
                self._in += len(self._tail)
                if not self._tail:
                    raise Damage("warc_truncated", lost_sync=True)
            try:
                block = self._z.decompress(self._tail, OUT_CHUNK)
            except zlib.error as e:
                raise Damage("member_corrupt", lost_sync=True) from e
            self._tail = self._z.unconsumed_tail
            self._out += len(block)
            used = self._in - len(self._tail) - len(self._z.unused_data)
            if self._out > RATIO_FREE_BYTES and self._out > MAX_RATIO * used:
                raise Damage("gzip_bomb", lost_sync=True)
            if block:
                return block
        if not self._finished:
            self._finish()
            if self._continues():
                self._open()
                return self._more()
        return b""

    def _finish(self) -> None:
        """Step back to the first byte behind the finished member."""
        self.offset -= len(self._z.unused_data)
        self._finished = True

    def _continues(self) -> bool:
        """Whether the next member goes on inside this record (block-gzip), by its contents."""
        head = self.source.read(self.offset, 4096)
        return head.startswith(GZIP_MAGIC) and _is_continuation(inflate_head(head, 64))

    def skip(self, length: int) -> None:
        """Leave a block unread, by inflating it into nothing."""
        if self.take(length, keep=False) != length or not _ends_here(self):
            raise Damage("bad_content_length")

    def reopen(self) -> bool:
        """Go to the next member, if there is one here."""
        while self._more():
            pass
        self._buffer, self._at = b"", 0
        if not self.source.read(self.offset, 3) == GZIP_MAGIC:
            return False
        self._open()
        return True

    def jump(self, offset: int) -> None:
        self._buffer, self._at, self.offset = b"", 0, offset
        self._open()


def _is_continuation(head: bytes) -> bool:
    text = head.lstrip(b"\r\n")
    return bool(text) and not text.startswith(b"WARC/")


def next_member(source: Source, start: int) -> int:
    """Offset of the first gzip member from `start` on whose contents begin a record, or -1."""
    while (start := source.find(GZIP_MAGIC, start)) >= 0:
        if inflate_head(source.read(start, 4096), 64).lstrip(b"\r\n").startswith(b"WARC/"):
            return start
        start += 1
    return -1


def records(
    source: Source,
    wanted: Callable[[dict[str, str]], bool],
    on_damage: Callable[[str, int], None],
    max_bytes: int,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Record]:
    """Every readable record that begins in [start, stop).

    `wanted(headers)` decides whether a record's block is read; `on_damage(reason, offset)` hears
    of every record lost. max_bytes: the largest block taken.
    """
    stop = source.size if stop is None else stop
    if source.read(0, 3) == GZIP_MAGIC or start > 0:
        yield from _gzip_records(source, wanted, on_damage, max_bytes, start, stop)
        return
    stream = Plain(source, start)
    while stream.next_record():
        try:
            yield _record(stream, wanted, max_bytes)
        except Damage as damage:
            on_damage(damage.reason, stream.position)
            if not stream.seek_record():
                return


def _gzip_records(
    source: Source,
    wanted: Callable[[dict[str, str]], bool],
    on_damage: Callable[[str, int], None],
    max_bytes: int,
    start: int,
    stop: int,
) -> Iterator[Record]:
    at = next_member(source, start) if start > 0 else 0
    if at < 0 or at >= stop:
        return
    stream = Gzip(source, at)
    while True:
        lost = False
        try:
            while stream.next_record():
                try:
                    yield _record(stream, wanted, max_bytes)
                except Damage as damage:
                    if damage.lost_sync:
                        raise
                    on_damage(damage.reason, stream.member)
                    if not stream.seek_record():
                        break
        except Damage as damage:
            on_damage(damage.reason, stream.member)
            lost = True
        if not lost and stream.offset >= source.size:
            return
        if lost or not stream.reopen():
            if not lost:
                _trailing(source, stream.offset, on_damage)
            at = next_member(source, stream.member + 1 if lost else stream.offset)
            if at < 0 or at >= stop:
                return
            stream.jump(at)
        if stream.member >= stop:
            return


def _trailing(source: Source, offset: int, on_damage: Callable[[str, int], None]) -> None:
    """Zeros behind the last member are padding; anything else is worth a word."""
    if source.read(offset, CHUNK).strip(b"\0"):
        on_damage("trailing_garbage", offset)


def _record(stream: Plain, wanted: Callable[[dict[str, str]], bool], max_bytes: int) -> Record:
    offset = stream.position
    version = stream.line()
    if not version.startswith(b"WARC/"):
        raise Damage("bad_record_header")
    headers = _headers(stream)
    text = headers.get("content-length", "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Damage("bad_content_length")
    length = int(text)
    take = wanted(headers)
    if not take or length > max_bytes:
        stream.skip(length)
        if take:
            raise Damage("too_big")
        return Record(headers.get("warc-type", ""), headers, None, offset)
    block = stream.take(length)
    assert isinstance(block, bytes)
    if len(block) < length:
        raise Damage("warc_truncated" if _at_end(stream) else "bad_content_length")
    if not _ends_here(stream):
        stream.push_back(block)
        raise Damage("bad_content_length")
    return Record(headers.get("warc-type", ""), headers, block, offset)


def _ends_here(stream: Plain) -> bool:
    """Whether a record's block is followed by nothing, or by blank lines and another record."""
    tail = stream.peek(16).lstrip(b"\r\n")
    return not tail or tail.startswith(b"WARC/"[: len(tail)])


def _at_end(stream: Plain) -> bool:
    return stream.offset >= stream.source.size


def _headers(stream: Plain) -> dict[str, str]:
    """Named fields up to the blank line; the first of several wins, folded lines are joined."""
    headers: dict[str, str] = {}
    size, last = 0, ""
    while True:
        raw = stream.line()
        size += len(raw)
        if not raw.endswith(b"\n"):
            raise Damage("warc_truncated")
        if size > MAX_HEADER_BYTES:
            raise Damage("header_too_long")
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            return headers
        if line[0] in " \t" and last:
            headers[last] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        last = name.strip().lower()
        if colon:
            headers.setdefault(last, value.strip())
