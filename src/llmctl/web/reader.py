"""The recipe's first block: pages out of WARC and WET files, documents out of parquet and JSONL.

Every response (or conversion) record is counted as it comes in, and each that yields no page with
its reason.
"""

import io
import json
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from llmctl.core.errors import BadInput, IoError_
from llmctl.web import http
from llmctl.web.blocks import Task
from llmctl.web.inputs import DOCUMENT_KINDS, WARC_KINDS, Share
from llmctl.web.source import Source
from llmctl.web.urls import MAX_URL
from llmctl.web.warc import Record, next_member, records

PAGE_TYPES = ("response", "conversion")
PARTIAL = frozenset({"warc_truncated", "member_corrupt"})  # a file with one of these is incomplete
_BREAKS = dict.fromkeys([*range(0x20), 0x7F], None)


class PageReader(PipelineStep):
    """The pages of one task's share: HTML (or plain text) with url, date, dump, file_path."""

    name = "🕷 Pages"
    type = "📖 - READER"
    step = "read"

    def __init__(self, task: Task, shares: Sequence[Share], max_bytes: int, dump: str) -> None:
        super().__init__()
        self.task, self.shares = task, shares
        self.max_bytes, self.dump = max_bytes, dump

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self.damage: Counter[str] = Counter()
        self.first_damage = -1
        count, pages = self.task.funnel.step(self.step), self._read(self.shares[rank])
        while True:
            begin = time.thread_time()
            page = next(pages, None)
            count.seconds += time.thread_time() - begin
            if page is None:
                return
            yield page

    def _read(self, share: Share) -> Iterator[Document]:
        with Source(share.file.location) as source:
            if source.stamp != share.stamp:
                raise IoError_(f"{share.file.location}: changed while it was read; run again")
            if share.kind in DOCUMENT_KINDS:
                yield from self._documents(source, share)
            else:
                yield from self._pages(source, share)
            if not source.unchanged():
                raise IoError_(f"{share.file.location}: changed while it was read; run again")
        self.task.files.append(self._report(share))

    def _report(self, share: Share) -> dict[str, Any]:
        return {
            "file": share.file.location,
            "start": share.start,
            "kind": share.kind,
            "bad": share.kind not in (*WARC_KINDS, *DOCUMENT_KINDS) and not self._salvaged,
            "partial": bool(PARTIAL & self.damage.keys()),
            "damage": dict(sorted(self.damage.items())),
            "first_damage": self.first_damage,
        }

    _salvaged = False

    def _pages(self, source: Source, share: Share) -> Iterator[Document]:
        self._salvaged = False
        if share.kind not in WARC_KINDS:
            if not (share.kind == "gzip-damaged" and next_member(source, 0) >= 0):
                return
            self._salvaged = True  # its first member is broken, later ones are not
        found = records(source, _wanted, self._damaged, self.max_bytes, share.start, share.stop)
        for record in found:
            if record.block is None:
                self.task.funnel.notes[f"skipped_{record.type[:20] or 'untyped'}"] += 1
                continue
            if page := self._page(record, share):
                yield page

    def _damaged(self, reason: str, offset: int) -> None:
        self.damage[reason] += 1
        if self.first_damage < 0:
            self.first_damage = offset
        self.task.funnel.dropped(self.step, reason, 0)

    def _page(self, record: Record, share: Share) -> Document | None:
        """The page of a record, or None, counted either way."""
        try:
            text, is_text = self._text(record)
        except http.Undecodable as e:
            self.task.funnel.dropped(self.step, str(e), 0)
            return None
        funnel = self.task.funnel
        if not text.strip():
            funnel.dropped(self.step, "empty_body", len(text))
            return None
        funnel.kept(self.step, len(text), len(text))
        headers = record.headers
        identity = headers.get("warc-record-id") or f"{share.file.shown}#{record.offset}"
        return Document(
            text=text,
            id=clean_line(identity, 200),
            metadata={
                "dump": self.dump,
                "url": clean_line(headers.get("warc-target-uri", "").strip("<>"), MAX_URL),
                "date": clean_line(headers.get("warc-date", ""), 40) or None,
                "file_path": share.file.shown,
                "_is_text": is_text,
            },
        )

    def _text(self, record: Record) -> tuple[str, bool]:
        """(text, whether it is plain text already)."""
        assert record.block is not None
        headers, note = record.headers, self.task.funnel.notes.update
        identified = headers.get("warc-identified-payload-type")
        if record.type == "conversion":
            kind = identified or headers.get("content-type", "text/plain")
            if not kind.startswith("text/plain"):
                raise http.Undecodable("not_html")
            return http.decode_text(record.block, "", lambda what: note([what])), True
        response = http.parse_response(record.block)
        if response.status and not 200 <= response.status < 300:
            raise http.Undecodable(f"http_status_{response.status // 100}xx")
        body = http.decode_body(response, self.max_bytes)
        if len(body) > self.max_bytes:
            raise http.Undecodable("too_big")
        declared = response.headers.get("content-type", "")
        if not http.is_html(declared, identified, body):
            raise http.Undecodable("not_html" if body.strip() else "empty_body")
        return http.decode_text(body, declared, lambda what: note([what])), False

    def _documents(self, source: Source, share: Share) -> Iterator[Document]:
        rows = _parquet_rows(source) if share.kind == "parquet" else self._json_rows(source, share)
        funnel = self.task.funnel
        for number, row in enumerate(rows):
            text = row.pop("text", None)
            if not isinstance(text, str) or not text.strip():
                funnel.dropped(self.step, "no_text", 0)
                continue
            if len(text) > self.max_bytes:
                funnel.dropped(self.step, "too_big", len(text))
                continue
            funnel.kept(self.step, len(text), len(text))
            identity = row.get("id") or f"{share.file.shown}#{number}"
            date = row.get("date")
            yield Document(
                text=text,
                id=clean_line(str(identity), 200),
                metadata={
                    "dump": clean_line(str(row.get("dump") or self.dump), 200),
                    "url": clean_line(str(row.get("url") or ""), MAX_URL),
                    "date": clean_line(str(date), 40) if date is not None else None,
                    "file_path": share.file.shown,
                    "_is_text": True,
                },
            )

    def _json_rows(self, source: Source, share: Share) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(_lines(source, self.max_bytes * 2), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                self._damaged("bad_json_line", number)
                continue
            if "text" not in row and number == 1:
                raise BadInput(
                    f"{share.file.location}: line 1 has no key 'text' (it has "
                    f"{', '.join(sorted(map(str, row))[:8])}); rename the one that holds the text"
                )
            yield row


def _wanted(headers: dict[str, str]) -> bool:
    return headers.get("warc-type", "").lower() in PAGE_TYPES


def clean_line(value: str, limit: int) -> str:
    """One line of valid Unicode without control characters, at most `limit` characters."""
    if value.isascii() and value.isprintable():
        return value[:limit]
    value = value[: 4 * limit].encode("utf-8", "replace").decode().translate(_BREAKS)
    return value[:limit]


def _lines(source: Source, limit: int) -> Iterator[bytes]:
    """Lines of a plain or gzip file; one longer than `limit` bytes comes as an empty object."""
    gzipped = source.read(0, 2) == b"\x1f\x8b"
    decoder, held, at = zlib.decompressobj(47), b"", 0
    while block := source.read(at, 1 << 20):
        at += len(block)
        pieces = _inflated(decoder, block, source) if gzipped else [block]
        for piece in pieces:
            *lines, held = (held + piece).split(b"\n")
            yield from (line if len(line) <= limit else b"{}" for line in lines)
            if len(held) > 2 * limit:
                raise BadInput(f"{source.location}: a line of more than {limit:,} bytes; split it")
    if held:
        yield held


def _inflated(decoder: Any, block: bytes, source: Source) -> Iterator[bytes]:
    try:
        while block:
            yield decoder.decompress(block, 1 << 20)
            block = decoder.unconsumed_tail or (decoder.unused_data if not decoder.eof else b"")
    except zlib.error as e:
        raise BadInput(f"{source.location}: damaged gzip ({e}); fetch it again") from e


def _parquet_rows(source: Source) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(
            pa.PythonFile(_Seekable(source), mode="r"), page_checksum_verification=True
        )
        if "text" not in file.schema_arrow.names:
            raise BadInput(
                f"{source.location}: no column 'text' (it has "
                f"{', '.join(file.schema_arrow.names[:12])}); rename the one that holds the text"
            )
        wanted = [c for c in ("text", "id", "url", "date", "dump") if c in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=256, columns=wanted):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as e:
        raise BadInput(f"{source.location}: damaged parquet ({e}); fetch it again") from e


class _Seekable(io.RawIOBase):
    """A source as the file object that pyarrow reads from."""

    def __init__(self, source: Source) -> None:
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._source.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, n: int = -1) -> bytes:
        data = self._source.read(self._at, self._source.size - self._at if n < 0 else n)
        self._at += len(data)
        return data
