"""WARC files made by hand for the tests, byte by byte, so that each fault is where it should be."""

import gzip
import random

WORDS = (
    "river stone harbour window morning letter baker bridge winter teacher garden engine market "
    "valley sister paper lantern railway council orchard kitchen doctor museum island forest "
    "captain village summer school factory sailor painter station church library theatre farmer"
).split()
VERBS = "found carried painted opened crossed remembered repaired described counted watched".split()
SMALL = "the of and to with that in for from by near under over after before".split()


def sentence(rng: random.Random) -> str:
    middle = " ".join(rng.choice(WORDS if i % 2 else SMALL) for i in range(rng.randint(6, 14)))
    return f"The {rng.choice(WORDS)} {rng.choice(VERBS)} {middle} and the {rng.choice(WORDS)}."


def prose(seed: int, paragraphs: int = 6) -> str:
    """English-looking text that passes every filter; equal for equal seeds."""
    rng = random.Random(seed)
    blocks = [" ".join(sentence(rng) for _ in range(5)) for _ in range(paragraphs)]
    return "\n".join(blocks)


def page(text: str, title: str = "A page") -> bytes:
    body = "".join(f"<p>{line}</p>\n" for line in text.split("\n"))
    return (
        f"<!DOCTYPE html><html lang='en'><head><title>{title}</title></head><body>"
        f"<nav><a href='/'>Home</a></nav><article><h1>{title}</h1>{body}</article></body></html>"
    ).encode()


def http(body: bytes, content_type: str = "text/html; charset=utf-8", *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {content_type}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def record(url: str, block: bytes, kind: str = "response", **fields: str) -> bytes:
    """One WARC record; fields replace or add headers (content_length="5" lies)."""
    headers = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:test:{url}>",
        "WARC-Target-URI": url,
        "WARC-Date": "2026-01-02T03:04:05Z",
        "Content-Type": "application/http; msgtype=response",
        "Content-Length": str(len(block)),
    }
    headers |= {name.replace("_", "-").title(): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value != ""]
    return b"WARC/1.0\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def member(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def pages_warc(n: int, seed: int = 0, host: str = "pages.example.net") -> list[bytes]:
    """n gzip members, each a good page of its own text."""
    return [
        member(record(f"http://{host}/{i}", http(page(prose(seed + i), f"Page {i}"))))
        for i in range(n)
    ]
