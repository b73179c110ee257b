"""Test E1: no escape sequence reaches the terminal, however its bytes fall into tokens."""

import io
import json
import os
import pty
import random
import sys
import threading
import tty
import unicodedata

import pytest

from llmctl.chat.show import Show
from llmctl.infer.completion import CallRecord
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import ToolCall
from llmctl.tokenizer.patterns import to_letters
from llmctl.tokenizer.stream import StreamDecoder

KNOWN = [
    "\x1b]0;t\x07", "\x1b]2;t\x1b\\", "\x1b]52;c;eA==\x07", "\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\",
    "\x1b[2J", "\x1b[H", "\x1b[?1049h", "\x1b[?25l", "\x1b[6n", "\x1b[c", "\x1b[>c", "\x1b[21t",
    "\x1b[31m", "\x1b[38;2;1;2;3m", "\x1b[1A", "\x1b[2K", "\x1b[3;5r", "\x1b[4h", "\x1b[!p",
    "\x1bc",
    "\x1b7", "\x1b8", "\x1bD", "\x1bM", "\x1bE", "\x1b(0", "\x1b#8", "\x1b%G", "\x1b=", "\x1b>",
    "\x1bP1$r\x1b\\", "\x1bPq#0~\x1b\\", "\x1b_Gi=1;\x1b\\", "\x1b^x\x1b\\", "\x1bXx\x1b\\",
    "\x1b]4;1;?\x07", "\x1b]10;?\x07", "\x1b]11;?\x07", "\x1b]50;x\x07", "\x1b]104\x07",
    "\x1b]133;A\x07", "\x1b]777;notify;a;b\x07", "\x1b]1337;File=:AA\x07", "\x1b]9;x\x07",
    "\x1b[5i",
    "\x9b2J", "\x9d0;t\x9c", "\x90q\x9c", "\x9e x\x9c", "\x9f x\x9c", "\x84", "\x85",
    "\x8d", "\x8e",
    "a\rb", "a\bb", "\a", "\v", "\f", "\x7f", "\x0e", "\x0f", "\x11", "\x13", "\x00", "\x05",
    "\u202ex\u202c", "\u2066x\u2069", "\U000e0041", "\u200fx",
]  # fmt: skip


@pytest.fixture(scope="module")
def bytewise():
    """A tokenizer whose ids are the 256 bytes: whatever is drawn falls apart at every byte."""
    vocab = {to_letters(bytes([i])): i for i in range(256)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    parts = {
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
        "pre_tokenizer": byte_level,
        "decoder": {"type": "ByteLevel"},
        "added_tokens": [],
    }
    return Tokenizer(json.dumps(parts).encode())


def hostile(seed: int, n: int) -> list[bytes]:
    """The known sequences, then random ones: escapes, parameters, halves of characters."""
    draw = random.Random(seed)
    pieces = [
        b"\x1b",
        b"\x1b[",
        b"\x1b]",
        b"\x9b",
        b"\xc2",
        b"\x80",
        b"\x9d",
        b"\x07",
        b"\r",
        b"\b",
    ]
    pieces += [
        b"0;",
        b"m",
        b"J",
        b"\xe2\x80",
        b"\xae",
        b"\xf3\xa0\x81",
        b"\x81",
        b"ok",
        "é".encode(),
    ]
    pieces += [b"\xf0\x9f", b"\x98\x80", b"\n", b"\t", b" "]
    known = [text.encode() for text in KNOWN]
    return known + [b"".join(draw.choices(pieces, k=draw.randint(1, 12))) for _ in range(n)]


def is_clean(text: str) -> bool:
    return all(c in "\n\t" or unicodedata.category(c) != "Cc" for c in text)


def test_every_byte_its_own_token(bytewise):
    assert len(KNOWN) >= 60
    out = io.StringIO()
    show = Show(out, io.StringIO(), colour=False)
    for raw in hostile(0, 10_000):
        decoder = StreamDecoder(bytewise)
        for id in raw:
            show.answer(decoder.push(id))
        show.answer(decoder.flush())
        show.end_answer()
    assert is_clean(out.getvalue())


def test_everything_that_is_printed_passes_the_filter():
    answers, talk = io.StringIO(), io.StringIO()
    show = Show(answers, talk, colour=False)
    for raw in hostile(1, 100):
        text = raw.decode("utf-8", "surrogateescape")
        for say in (show.note, show.error, show.plain, show.answer):
            say(text)
        show.asked(ToolCall(text, {"code": text}))
        show.asked(ToolCall("other", {text: 1, "b": [text]}))
        show.result(CallRecord(text, text, text, 0.1))
    assert is_clean(answers.getvalue()) and is_clean(talk.getvalue())
    assert "\u202e" not in answers.getvalue() + talk.getvalue()


def test_at_a_terminal_no_raw_byte_arrives(bytewise):
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    seen = bytearray()

    def watch():
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                return
            if not piece:
                return
            seen.extend(piece)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with open(theirs, "w", encoding="utf-8") as out:
        assert out.isatty()
        show = Show(out, out, colour=False)
        for raw in hostile(2, 300):
            decoder = StreamDecoder(bytewise)
            for id in raw:
                show.answer(decoder.push(id))
            show.end_answer()
            show.note(raw.decode("utf-8", "replace"))
    watcher.join(20)
    os.close(ours)
    assert len(seen) > 1000 and is_clean(seen.decode())
    assert not set(seen) & (set(range(32)) - {9, 10} | {127})


@pytest.mark.parametrize("raw", [False, True])
def test_a_file_gets_the_text_as_it_is_only_when_asked(raw, tmp_path):
    out = io.StringIO()
    show = Show(out, sys.stderr, raw=raw, colour=False)
    show.answer("a\x1b[1mb")
    assert out.getvalue() == ("a\x1b[1mb" if raw else "a\\x1b[1mb")
