"""WARC 1.0 records, one gzip member each, as Common Crawl writes them; same input, same bytes."""

from __future__ import annotations

import base64
import hashlib
import uuid
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import BinaryIO

LEVEL = 6  # gzip
CRAWL_START = datetime(2025, 3, 3, 6, 0, tzinfo=UTC)


def gzip_member(data: bytes) -> bytes:
    """One gzip member without a time stamp."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


@dataclass(frozen=True)
class Response:
    """What a server answered."""

    url: str
    body: bytes
    status: str = "200 OK"
    content_type: str = "text/html; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    identified: str = "text/html"  # what a sniffer makes of the payload


class WarcWriter:
    """Writes warcinfo first, then request, response and metadata of each page.

    file: where to; rng: decides record ids and times.
    """

    def __init__(self, file: BinaryIO, name: str, rng: Random) -> None:
        self._file, self._rng = file, rng
        self._time = CRAWL_START + timedelta(seconds=rng.randrange(20 * 86_400))
        self._info = self._record_id()
        info = (
            f"software: llmctl synth\r\nformat: WARC File Format 1.0\r\nisPartOf: synthetic-web\r\n"
            f"description: a seeded synthetic web, no real pages\r\nfilename: {name}\r\n"
        )
        self._record(
            "warcinfo",
            self._info,
            [("WARC-Filename", name)],
            "application/warc-fields",
            info.encode(),
        )

    def write(self, response: Response) -> tuple[str, str]:
        """One fetch. Returns the response's record id and its date."""
        self._time += timedelta(seconds=1 + int(self._rng.random() * 40))
        host, _, path = response.url.partition("://")[2].partition("/")
        request_id, response_id = self._record_id(), self._record_id()
        request = (
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: llmctl-synth/1.0\r\n"
            "Accept: text/html,application/xhtml+xml;q=0.9\r\nAccept-Encoding: br,gzip\r\n"
            "Connection: Keep-Alive\r\n\r\n"
        )
        address = ("WARC-IP-Address", self._address(host))
        target = ("WARC-Target-URI", response.url)
        to = ("WARC-Concurrent-To", f"<urn:uuid:{response_id}>")
        kind = "application/http; msgtype=request"
        self._record("request", request_id, [to, target, address], kind, request.encode())
        date = self._date()
        digest = "sha1:" + base64.b32encode(hashlib.sha1(response.body).digest()).decode()
        fields = [
            ("WARC-Concurrent-To", f"<urn:uuid:{request_id}>"),
            target,
            address,
            ("WARC-Payload-Digest", digest),
            ("WARC-Identified-Payload-Type", response.identified),
        ]
        content = self._http(response)
        self._record("response", response_id, fields, "application/http; msgtype=response", content)
        measured = f"fetchTimeMs: {20 + int(self._rng.random() * 900)}\r\n"
        self._record(
            "metadata",
            self._record_id(),
            [to, target],
            "application/warc-fields",
            measured.encode(),
        )
        return f"<urn:uuid:{response_id}>", date

    def _http(self, response: Response) -> bytes:
        stamp = self._time.strftime("%a, %d %b %Y %H:%M:%S GMT")
        lines = [
            f"HTTP/1.1 {response.status}",
            f"Date: {stamp}",
            *(f"{name}: {value}" for name, value in response.headers),
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            "Connection: keep-alive",
        ]
        return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + response.body

    def _record(
        self, kind: str, record_id: str, fields: list[tuple[str, str]], mime: str, content: bytes
    ) -> None:
        head = [("WARC-Type", kind), ("WARC-Date", self._date())]
        head.append(("WARC-Record-ID", f"<urn:uuid:{record_id}>"))
        if kind != "warcinfo":
            head.append(("WARC-Warcinfo-ID", f"<urn:uuid:{self._info}>"))
        head += [("Content-Length", str(len(content))), ("Content-Type", mime), *fields]
        lines = "\r\n".join(["WARC/1.0", *(f"{name}: {value}" for name, value in head)])
        record = lines.encode() + b"\r\n\r\n" + content + b"\r\n\r\n"
        self._file.write(gzip_member(record))

    def _record_id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def _date(self) -> str:
        return self._time.strftime("%Y-%m-%dT%H:%M:%SZ")

    @staticmethod
    def _address(host: str) -> str:
        """A fixed address of a host, from the block that is reserved for documentation."""
        return f"203.0.113.{1 + zlib.crc32(host.encode()) % 254}"
