"""Text as it streams: whole characters, no part of a stop string, nothing to steer a terminal."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadInput, NoInput
from llmctl.infer import printer
from llmctl.infer.engine import Completion, Event
from llmctl.infer.prompts import read_prompts
from llmctl.infer.text import TextStream


class Bytes:
    """A tokenizer of the 256 bytes."""

    byte_level = True
    token_bytes = [bytes([i]) for i in range(256)]

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids):
        return bytes(ids)


def run(data: bytes, stop=()):
    stream, shown = TextStream(Bytes(), stop), []
    for byte in data:
        stream.push(byte)
        shown.append(stream.new_text())
        if stream.stopped:
            break
    stream.finish()
    shown.append(stream.new_text(final=True))
    return stream, shown


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=40))
def test_any_bytes_stream_to_what_they_decode_to(data):
    stream, shown = run(data)
    assert "".join(shown) == stream.text == data.decode("utf-8", "replace")
    assert all("\ufffd" not in piece for piece in shown[:-1]) or "\ufffd" in stream.text


def test_a_character_of_four_bytes_comes_whole():
    _, shown = run("a🙂b".encode())
    assert shown == ["a", "", "", "", "🙂", "b", ""]


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="ab", max_size=30),
    stop=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_the_earliest_stop_cuts_and_nothing_of_it_is_shown(text, stop):
    stream, shown = run(text.encode(), stop)
    ends = [i for i in range(len(text) + 1) if any(text[:i].endswith(s) for s in stop)]
    wanted = text
    if ends:  # the first moment at which any of them is complete
        seen = text[: ends[0]]
        wanted = seen[: min(seen.find(s) for s in stop if s in seen)]
    assert stream.text == wanted == "".join(shown)
    assert stream.stopped == bool(ends)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def event(text, index=0, done=True, **more):
    finish = "length" if done else None
    return Event(Completion(index, [1], [65], text, finish, **more), text)


def shown(events, prompts, out=None, kind=printer.TextPrinter, **options):
    out = out or io.StringIO()
    options = {"echo": False, "stream": True, "raw": False} | options
    made = kind(prompts, out=out, **options)
    for one in events:
        made.take(one)
    return out.getvalue()


EVIL = "a\x1b]0;x\x07\x9b2J\r\u202eb\U000e0041\x7f\tc\n"


def test_a_terminal_sees_control_characters_spelt_out():
    text = shown([event(EVIL)], ["p"], Terminal())
    assert "\\x1b" in text and "<U+202E>" in text and "\t" in text
    assert not set(text) & set("\x1b\x07\x9b\r\u202e\U000e0041\x7f")
    assert shown([event(EVIL)], ["p"], Terminal(), raw=True) == EVIL
    assert shown([event(EVIL)], ["p"]) == EVIL  # a pipe gets what the model wrote


def test_results_come_in_order_with_a_line_between():
    events = [
        event("two", 1),
        event("on", 0, done=False),
        event("e", 0),
    ]
    assert shown(events, ["P", "Q"]) == "one\n---\ntwo\n"
    assert shown(events, ["P", "Q"], echo=True) == "Pone\n---\nQtwo\n"


def test_without_streaming_nothing_is_shown_before_its_end():
    assert shown([event("on", 0, done=False)], ["P"], stream=False) == ""
    assert shown([event("on", 0, done=False)], ["P"]) == "on"


def test_json_lines_hold_one_object_each_and_no_control_character():
    out = io.StringIO()
    made = printer.JsonPrinter(Bytes(), 2, ["p", "p"], echo=True, stream=True, raw=True, out=out)
    made.take(event(EVIL, 1))
    made.take(event("x", 0))
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(r["index"], r["sample"], r["text"]) for r in rows] == [(0, 0, "x"), (0, 1, EVIL)]
    assert rows[0]["finish_reason"] == "length" and rows[0]["tokens"] == 1
    assert not set(out.getvalue()) & set("\x1b\x9b\x7f\r")


def test_the_odds_of_each_token_are_drawn_as_bars():
    out = io.StringIO()
    made = printer.ProbsPrinter(Bytes(), ["p"], echo=False, stream=True, raw=False, out=out)
    made.take(event("A", probs=[[(66, 0.5), (67, 0.25)]], logprobs=[-3.0]))
    lines = out.getvalue().splitlines()
    assert lines[0] == "token 1" and lines[1].startswith(" 50.00%  " + "█" * 15 + " ")
    assert lines[3].startswith("  4.98%") and lines[3].endswith('"A" ◂')  # drawn, not among them
    assert lines[4] == 'text: "pA"'


def test_prompts_of_text_and_of_json_lines(tmp_path):
    plain = tmp_path / "a.txt"
    plain.write_text("one\r\n\n two, three\n")
    assert read_prompts(str(plain)) == ["one", " two, three"]
    rows = tmp_path / "a.jsonl"
    rows.write_text('{"prompt": "x\\ny"}\n{"prompt": "", "more": 1}\n')
    assert read_prompts(str(rows)) == ["x\ny", ""]


@pytest.mark.parametrize(
    "text, error, said",
    [
        (b"", NoInput, "no prompt"),
        (b"\n \n", NoInput, "no prompt"),
        (b"\xff", BadInput, "UTF-8"),
        (b'{"prompt": 1}', BadInput, "line 1"),
        (b'{"prompt": "a"}\n\nnope', BadInput, "line 3"),
    ],
)
def test_bad_prompt_files_are_one_sentence(tmp_path, text, error, said):
    file = tmp_path / "p"
    file.write_bytes(text)
    with pytest.raises(error, match=said):
        read_prompts(str(file))
