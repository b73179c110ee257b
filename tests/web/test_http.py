"""HTTP bodies: every coding undone, every charset read, nothing swells beyond its cap."""

import gzip
import zlib

import brotli
import pytest

from llmctl.web.http import (
    Undecodable,
    clean_text,
    codec_name,
    decode_body,
    decode_text,
    is_html,
    parse_response,
)

PAGE = b"<html><body>" + b"Some words of text. " * 50 + b"</body></html>"


def body_of(block: bytes, cap: int = 1 << 20) -> bytes:
    return decode_body(parse_response(block), cap)


def response(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *headers]).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, size: int = 100) -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(body) + coder.flush()


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(PAGE)),
        ("x-gzip", gzip.compress(PAGE)),
        ("gzip, gzip", gzip.compress(gzip.compress(PAGE))),
        ("deflate", zlib.compress(PAGE)),
        ("deflate", raw_deflate(PAGE)),
        ("br", brotli.compress(PAGE)),
        ("gzip", PAGE),  # undone by the crawler, header kept
        ("br", PAGE),
        ("identity", PAGE),
    ],
)
def test_content_codings(coding, packed):
    assert body_of(response(packed, f"Content-Encoding: {coding}")) == PAGE
    both = ("Transfer-Encoding: chunked", f"Content-Encoding: {coding}")
    assert body_of(response(chunked(packed), *both)) == PAGE


def test_a_body_that_only_says_chunked_is_taken_as_it_is():
    assert body_of(response(PAGE, "Transfer-Encoding: chunked")) == PAGE


def test_chunks_that_break_off_in_the_middle_are_refused():
    wrong = chunked(PAGE)[:300] + b"zz\r\n" + chunked(PAGE)[300:]
    with pytest.raises(Undecodable):
        body_of(response(wrong, "Transfer-Encoding: chunked"))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_small_bodies_cannot_become_huge(coding):
    bomb = bytes(50 << 20)
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}[coding](bomb)
    with pytest.raises(Undecodable, match="too_big"):
        body_of(response(packed, f"Content-Encoding: {coding}"), cap=1 << 20)


def noted(body: bytes, declared: str = "") -> tuple[str, list[str]]:
    notes: list[str] = []
    return decode_text(body, declared, notes.append), notes


def test_charsets():
    assert noted("naïve café".encode())[0] == "naïve café"
    assert noted("\ufeffhello".encode())[0] == "hello"
    assert noted("hello żółw".encode("utf-16"))[0] == "hello żółw"
    assert noted("“smart”".encode("cp1252"), "text/html; charset=ISO-8859-1")[0] == "“smart”"
    meta = b"<meta charset='koi8-r'>" + "Привет, мир".encode("koi8-r")
    assert noted(meta)[0].endswith("Привет, мир")
    wrong = noted(
        "Das Wetter wird schöner, größer und grüner.".encode("cp1252"), "charset=nonsense"
    )
    assert "sch" in wrong[0] and wrong[1] == ["charset_guess"]
    torn = ("word " * 300).encode() + b"\xe2\x80"
    assert noted(torn, "text/html; charset=utf-8")[1] == ["charset_repaired"]
    mixed = ("naïve café " * 300).encode() + b"caf\xe9 word"
    assert noted(mixed, "text/html; charset=utf-8")[1] == ["charset_repaired"]


def test_western_page_declared_as_utf8_is_read_as_it_was_written():
    text = "“I have lived here for years,” said André. " + "Plain words follow. " * 40
    assert noted(text.encode("cp1252"), "text/html; charset=utf-8")[0] == text


def test_no_label_names_code_or_a_non_text_codec():
    for label in ("rot13", "zip", "base64", "unicode_escape", "idna", "utf-7", "nonsense", "hex"):
        assert codec_name(label) == ""
    assert codec_name("latin1") == "cp1252" and codec_name("GBK") == "gb18030"


def test_html_is_known_by_its_server_and_its_look():
    assert is_html("text/html", None, PAGE)
    assert is_html("application/xhtml+xml", None, b"<?xml version='1.0'?><html>")
    assert is_html("", None, PAGE) and is_html("text/plain", None, b"<!DOCTYPE html><p>")
    assert not is_html("image/png", None, PAGE)
    assert not is_html("text/html", None, b"\x89PNG\r\n\x1a\n")
    assert not is_html("text/xml", None, b"<?xml version='1.0'?><rss><title>News</title>")
    assert is_html("image/png", "text/html", b"") and not is_html("text/html", "image/png", PAGE)


def test_clean_text_is_valid_unicode_without_controls():
    text = clean_text("a\x00b\x07c\td\ne\ud800f")
    assert text == "abc\td\ne?f" or text == "abc\td\ne\ufffd\ufffd\ufffdf"
    text.encode("utf-8")
