"""What a model drew, as messages; what it is given, as ids."""

import pytest

from llmctl.chat.voice import BaseVoice, ChatVoice, plain_text
from llmctl.infer.completion import CallRecord, Completion
from llmctl.tokenizer.chat import chat_format, check_messages

OFF = "error: off"


@pytest.fixture
def voice(chat_letters):
    return ChatVoice(chat_format(chat_letters))


def completion(voice, *pieces, calls=(), reason="stop"):
    """pieces: (text or control token, sampled)."""
    tokenizer = voice.format.tokenizer
    done = Completion(0, [1], finish_reason=reason, calls=list(calls))
    for text, sampled in pieces:
        special = tokenizer.id_of(text)
        ids = tokenizer.encode(text) if special is None else [special]
        done.ids += ids
        done.sampled += [sampled] * len(ids)
    return done


def assistant(content):
    return {"role": "assistant", "content": content}


def with_call(content, code):
    call = {"type": "function", "function": {"name": "python", "arguments": {"code": code}}}
    return assistant(content) | {"tool_calls": [call]}


def result(text):
    return {"role": "tool", "name": "python", "content": text}


TURN = [("let me see ", True), ("<|python|>", True), ("1+1", True), ("<|im_end|>", True)]
FORCED = [("2 and a header", False)]
RECORD = CallRecord("python", {"code": "1+1"}, "2", 0.1)


def test_a_plain_answer(voice):
    done = completion(voice, ("hello", True), ("<|im_end|>", True))
    assert voice.messages(done, OFF) == [assistant("hello")]
    assert voice.messages(completion(voice, ("<|im_end|>", True)), OFF) == []


def test_a_call_its_result_and_the_answer(voice):
    done = completion(voice, *TURN, *FORCED, ("two", True), calls=[RECORD])
    found = voice.messages(done, OFF)
    assert found == [with_call("let me see ", "1+1"), result("2"), assistant("two")]
    assert check_messages([{"role": "user", "content": "?"}, *found]) is None


def test_a_call_nobody_answered_is_told_so(voice):
    assert voice.messages(completion(voice, *TURN), OFF) == [
        with_call("let me see ", "1+1"),
        result(OFF),
    ]


def test_an_answer_cut_in_the_middle_of_a_call_keeps_its_words(voice):
    cut = completion(voice, *TURN[:3], reason=None)
    assert voice.messages(cut, OFF) == [assistant("let me see ")]
    assert voice.messages(completion(voice, *TURN[1:3], reason="length"), OFF) == []


def test_a_call_that_cannot_be_read_is_left_out(voice):
    bad = [("well ", True), ("<|tool|>", True), ("{nonsense", True), ("<|im_end|>", True)]
    record = CallRecord("", "{nonsense", "error: no JSON", 0.0)
    done = completion(voice, *bad, *FORCED, ("sorry", True), calls=[record])
    assert voice.messages(done, OFF) == [assistant("well sorry")]


def test_a_base_model_is_given_a_page_and_stops_at_the_next_question(letters):
    voice = BaseVoice(letters, [0])
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
        assistant("hello"),
        {"role": "user", "content": "bye"},
    ]
    text = "Be kind.\n\nUser: hi\nAssistant: hello\nUser: bye\nAssistant:"
    assert plain_text(messages) == text
    assert voice.ids(messages) == [0, *letters.encode(text)]
    done = Completion(0, [1], text=" well\n", finish_reason="stop")
    assert voice.messages(done, OFF) == [assistant("well")]
    stopped = Completion(0, [1], ids=letters.encode(" so\nUser: x"))
    assert voice.messages(stopped, OFF) == [assistant("so")]
    assert voice.messages(Completion(0, [1], text=" \n", finish_reason="stop"), OFF) == []
