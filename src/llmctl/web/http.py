"""An HTTP response out of a crawl: headers, the body undone from its codings, its text.

Bodies are decoded as a stream under a cap, so that a small body cannot become a huge one.
"""

import codecs
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

MAX_HEADER_BYTES = 1 << 16
SNIFF_BYTES = 4096
HTML_TYPES = ("text/html", "application/xhtml+xml")
UNSAID_TYPES = ("", "application/octet-stream", "text/plain", "application/xml", "text/xml")
_ROOT = re.compile(rb"<(?:!doctype\s+html|html)\b", re.IGNORECASE)
# What a page starts with, after Gecko's and the WHATWG's sniffing tables.
_HTML = re.compile(
    rb"<(?:!doctype\s+html|html|head|title|body|script|style|meta|table|a\s+href|h[1-6]|div|p|br"
    rb"|font|iframe|link|base|frameset|center|ul)\b",
    re.IGNORECASE,
)
_META_CHARSET = re.compile(
    rb"<meta[^>]{0,300}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.\-]{2,40})", re.I
)
_XML_CHARSET = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_:.\-]{2,40})")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]{0,256})?\r?\n")
# Not charsets of pages: a page whose meta says UTF-16 in ASCII bytes is not UTF-16.
_NEVER = ("unicode-escape", "raw-unicode", "utf-7", "utf-16", "utf-32")
# Labels that browsers read as a superset of what they name (WHATWG Encoding Standard, 4.2).
_SUPERSETS = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "big5": "big5hkscs",
}


class Undecodable(Exception):
    """A body that cannot be undone from its codings; the message is the funnel's reason."""


@dataclass(frozen=True, slots=True)
class Response:
    """status 0: none was given. headers: lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_response(block: bytes) -> Response:
    """Split an HTTP message; a block that is none is taken as a body without headers."""
    if not block.startswith(b"HTTP/"):
        return Response(0, {}, block)
    end = re.compile(rb"\r?\n\r?\n").search(block, 0, MAX_HEADER_BYTES)
    if end is None:
        raise Undecodable("bad_http_header")
    lines = block[: end.start()].decode("latin-1").replace("\r\n", "\n").split("\n")
    status = lines[0].split(" ", 2)[1:2]
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    code = int(status[0]) if status and status[0].isdigit() and len(status[0]) == 3 else 0
    return Response(code, headers, block[end.end() :])


def decode_body(response: Response, max_bytes: int) -> bytes:
    """The body without transfer and content codings; Undecodable where one is wrong or too big."""
    body = response.body
    if "chunked" in response.headers.get("transfer-encoding", "").lower():
        body = _unchunk(body)
    codings = response.headers.get("content-encoding", "").lower()
    for coding in reversed([c.strip() for c in codings.split(",")][:4]):
        if coding in ("gzip", "x-gzip", "deflate", "br"):
            body = _undo(coding, body, max_bytes)
    return body


def _unchunk(body: bytes) -> bytes:
    """Join the chunks. A body that does not start with a chunk was stored joined already."""
    pieces: list[bytes] = []
    at = 0
    while found := _CHUNK_SIZE.match(body, at):
        size = int(found[1], 16)
        if size == 0:
            return b"".join(pieces)
        at = found.end()
        pieces.append(body[at : at + size])  # slicing never allocates beyond the body
        at += size
        if at >= len(body):
            return b"".join(pieces)  # cut short: what there is
        at += 2 if body[at : at + 2] == b"\r\n" else body[at : at + 1] == b"\n"
    if not pieces:
        return body
    raise Undecodable("http_encoding")


def _undo(coding: str, body: bytes, max_bytes: int) -> bytes:
    if coding == "br":
        return _unbrotli(body, max_bytes)
    gzipped = body.startswith(b"\x1f\x8b")
    if coding != "deflate" and not gzipped:
        return body  # the crawler had undone it and kept the header
    # "deflate" means zlib's wrapper, and some servers leave it out (RFC 9110, 8.4.1.2)
    for wbits in (31,) if gzipped else (15, -15):
        try:
            return _inflate(zlib.decompressobj(wbits), body, max_bytes)
        except zlib.error:
            continue
    if coding == "deflate" and not gzipped and _HTML.search(body, 0, SNIFF_BYTES):
        return body
    raise Undecodable("http_encoding")


def _inflate(decoder: "zlib._Decompress", body: bytes, max_bytes: int) -> bytes:
    data = decoder.decompress(body, max_bytes + 1)
    if len(data) > max_bytes:
        raise Undecodable("too_big")
    return data


def _unbrotli(body: bytes, max_bytes: int) -> bytes:
    import brotli

    decoder, pieces, size = brotli.Decompressor(), [], 0
    try:
        for at in range(0, len(body), 4096):  # brotli swells without bound: feed it by the spoon
            piece = decoder.process(body[at : at + 4096])
            size += len(piece)
            if size > max_bytes:
                raise Undecodable("too_big")
            pieces.append(piece)
    except brotli.error as e:
        if _HTML.search(body, 0, SNIFF_BYTES):
            return body
        raise Undecodable("http_encoding") from e
    return b"".join(pieces)


def is_html(declared: str, identified: str | None, body: bytes) -> bool:
    """Whether a body is a web page, by its crawler's word, else by its server's and its own look.

    declared: the HTTP Content-Type; identified: the crawler's WARC-Identified-Payload-Type.
    """
    if identified:
        return identified in HTML_TYPES
    kind = declared.partition(";")[0].strip().lower()
    head = body[:SNIFF_BYTES]
    if kind not in HTML_TYPES and kind not in UNSAID_TYPES:
        return False
    if kind in HTML_TYPES[1:]:
        return bool(head.strip())
    if kind.endswith(("xml", "plain")):  # feeds and listings quote HTML: ask for its root
        return _ROOT.search(head) is not None
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff")) or (head[1::2].count(0) * 4 > len(head))
    return wide and kind in HTML_TYPES or _HTML.search(head) is not None


def decode_text(body: bytes, declared: str, count: Callable[[str], None]) -> str:
    """Bytes of a page -> text that is valid Unicode, and never fails.

    In this order: byte-order mark, UTF-8, the charset that the server or the page declares, a
    guess. The byte evidence of UTF-8 goes before the declaration, since UTF-8 that is valid is
    hardly ever anything else.
    """
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
    ):
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        pass
    name = _declared_codec(body, declared)
    if name == "utf-8":  # a torn character or two in an honest UTF-8 page
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(body)  # less a cut last one
        torn = text.count("\ufffd")
        whole = sum(c > "\x7f" for c in text) - torn
        if torn == 0 or (torn * 200 < len(text) and whole > torn):  # else: another charset's bytes
            count("charset_repaired")
            return text
    elif name:
        try:
            return body.decode(name)
        except (UnicodeDecodeError, ValueError):
            text = body.decode(name, "replace")
            if text.count("\ufffd") * 200 < len(text):
                count("charset_repaired")
                return text
    count("charset_guess")
    return _guess(body)


def _declared_codec(body: bytes, declared: str) -> str:
    label = re.search(r"charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.\-]{2,40})", declared, re.IGNORECASE)
    if label and (name := codec_name(label[1])):
        return name
    head = body[:SNIFF_BYTES]
    found = _META_CHARSET.search(head) or _XML_CHARSET.search(head)
    return codec_name(found[1].decode("latin-1")) if found else ""


@lru_cache(512)
def codec_name(label: str) -> str:
    """Python's codec for a charset label, as browsers would read it; empty when there is none."""
    label = label.strip().lower()
    try:
        info = codecs.lookup(label.removeprefix("x-"))
    except (LookupError, ValueError):
        return ""
    if not getattr(info, "_is_text_encoding", True) or info.name in (
        "idna",
        "punycode",
        "undefined",
    ):
        return ""
    if info.name.replace("_", "-").startswith(_NEVER):
        return ""
    return _SUPERSETS.get(info.name, info.name)


WESTERN = 0.03  # share of high bytes up to which a text is English with quotes and accents


def _guess(body: bytes) -> str:
    """Undeclared, or declared wrongly: cp1252 where almost all is ASCII, as browsers take it, since
    so few bytes say nothing to a detector; else what the detector finds."""
    from charset_normalizer import from_bytes

    if sum(byte > 0x7F for byte in body) <= WESTERN * len(body):
        return body.decode("cp1252", "replace")

    best = from_bytes(body[: 1 << 15], steps=5, chunk_size=1024).best()
    name = codec_name(best.encoding) if best else ""
    return body.decode(name or "cp1252", "replace")


def clean_text(text: str) -> str:
    """No NUL or other C0 control but tab and newlines, no lone surrogate."""
    if _CONTROL.search(text):
        text = _CONTROL.sub("", text)
    if not text.isascii():
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text
