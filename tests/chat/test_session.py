"""The talk without a terminal: what lines do, what is kept, what errors leave behind."""

import io
import json
import os
import signal
import time
from types import SimpleNamespace

import pytest

from llmctl.chat.actions import do
from llmctl.chat.answer import repeats
from llmctl.chat.session import Chat, Tools
from llmctl.chat.show import Show
from llmctl.chat.store import Transcript
from llmctl.chat.voice import ChatVoice
from llmctl.core.errors import Diverged, Interrupted, Refused
from llmctl.infer.completion import CallRecord, Completion, Event, Stats
from llmctl.infer.params import SamplingParams
from llmctl.tokenizer.chat import ToolCall, chat_format, check_messages


class Lines:
    """A reader that has all lines already; an exception among them is raised."""

    interactive = can_prefill = True
    typed = trouble = ""

    def __init__(self, *lines):
        self.lines, self.defaults = list(lines), []

    def read(self, default=""):
        self.defaults.append(default)
        line = self.lines.pop(0) if self.lines else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line


class Engine:
    """Answers by script: each a function of (prompt ids, params) that yields events."""

    def __init__(self, tokenizer, *scripts, size=2000):
        self.tokenizer, self.scripts = tokenizer, list(scripts)
        self.config, self.stats, self.asked = SimpleNamespace(max_seq_len=size), Stats(), []

    def stream(self, prompts, params, tools=None, prefix=None):
        self.asked.append((prompts[0], params, tools))
        done = Completion(0, prompts[0])
        script = self.scripts.pop(0) if self.scripts else say("well")
        yield from script(self, done, params)


def put(engine, done, text, sampled=True):
    """More ids, and an event with their text."""
    special = engine.tokenizer.id_of(text)
    ids = engine.tokenizer.encode(text) if special is None else [special]
    done.ids += ids
    done.sampled += [sampled] * len(ids)
    done.logprobs += [-1.0] * len(ids)
    done.probs += [[(i, 0.5)] for i in ids]
    return Event(done, text if special is None and sampled else "")


def say(text):
    def script(engine, done, params):
        for letter in text:
            yield put(engine, done, letter)
        done.finish_reason = "stop"
        yield put(engine, done, "<|im_end|>")

    return script


def fail(error, before=""):
    def script(engine, done, params):
        if before:
            yield put(engine, done, before)
        raise error

    return script


@pytest.fixture
def made(chat_letters, tmp_path):
    """made(script, …) -> chat on a scripted engine, its output at chat.out and chat.talk."""

    def make(*scripts, size=2000, open_tools=None, **more):
        out, talk = io.StringIO(), io.StringIO()
        chat = Chat(
            Engine(chat_letters, *scripts, size=size),
            ChatVoice(chat_format(chat_letters)),
            Show(out, talk, colour=False),
            SamplingParams(seed=7, max_tokens=100),
            Tools(open=open_tools or (lambda names: SimpleNamespace(names=names, format=None))),
            transcript=Transcript(tmp_path, "model"),
            about={"id": "m"},
            **more,
        )
        chat.out, chat.talk = out, talk
        return chat

    return make


def said(chat):
    return [turn.text for turn in chat.conversation.path()]


def test_a_talk_is_shown_and_kept_after_each_turn(made, tmp_path):
    chat = made(say("hello"), say(" fine"))
    chat.run(Lines("hi", "", "how are\nyou?"))
    assert chat.out.getvalue() == "hello\nfine\n"
    assert chat.talk.getvalue().count("tokens") == 2
    [file] = tmp_path.glob("*.jsonl")
    row = json.loads(file.read_text())
    assert check_messages(row["messages"]) is None
    assert [m["content"] for m in row["messages"]] == ["hi", "hello", "how are\nyou?", " fine"]
    assert row["chat"]["model"] == {"id": "m"} and row["chat"]["settings"]["seed"] == 7


def test_retry_takes_the_next_seed_and_a_seed_that_is_named(made):
    chat = made()
    chat.run(Lines("hi", "/retry", "/retry", "/retry 99", "more", "/seed 5", "/retry"))
    assert [params.seed for _, params, _ in chat.engine.asked] == [7, 8, 9, 99, 7, 6]
    assert len(chat.conversation.leaves()) == 5


def test_undo_edit_branch(made):
    chat = made(say("1"), say("2"), say("3"))
    chat.run(Lines("one", "two", "/undo", "/edit uno", "/branch", "/branch 1"))
    assert said(chat) == ["one", "1", "two", "2"]
    assert "uno" in chat.talk.getvalue() and "here" in chat.talk.getvalue()
    chat.run(Lines("/branch 2"))
    assert said(chat) == ["uno", "3"]


def test_edit_without_an_editor_puts_the_message_into_the_line(made, monkeypatch):
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    chat, lines = made(), Lines("one", "/edit")
    chat.run(lines)
    assert lines.defaults[-1] == "one" and said(chat) == []


def test_edit_by_an_editor(made, monkeypatch, tmp_path):
    script = tmp_path / "editor"
    script.write_text('#!/bin/sh\nprintf "$2 again" > "$3"\n')
    script.chmod(0o700)
    monkeypatch.setenv("VISUAL", f"{script} -x 'two words'")
    chat = made()
    chat.run(Lines("one", "/edit"))
    assert said(chat) == ["two words again", "well"]
    monkeypatch.setenv("VISUAL", "/no/such/editor")
    chat.run(Lines("/edit"))
    assert "/no/such/editor" in chat.talk.getvalue() and said(chat)[0] == "two words again"


def test_numbers_are_checked_like_flags(made):
    chat = made()
    chat.run(Lines("/temp 0.25", "/temp nan", "/top_p 0", "/max_tokens 0", "/top_k x", "/temp"))
    talk = chat.talk.getvalue()
    assert chat.params.temperature == 0.25 and talk.count("temperature 0.25") == 2
    for refusal in ("temperature must be", "top_p must be", "max_tokens must be", "top_k must be"):
        assert refusal in talk


def test_the_oldest_exchanges_leave_the_prompt_with_a_notice(made):
    chat = made(size=200)
    chat.run(Lines("/system be brief", "x" * 60, "y" * 60, "z" * 60))
    sent = chat.engine.tokenizer.decode(chat.engine.asked[-1][0])
    assert "be brief" in sent and "z" * 60 in sent and "x" * 60 not in sent
    assert "of 3 exchanges are not sent" in chat.talk.getvalue()
    assert len(said(chat)) == 6  # nothing is forgotten


def test_a_message_too_long_is_refused_and_given_back(made):
    chat, lines = made(size=200), Lines("hi", "x" * 300)
    chat.run(lines)
    assert "shorten it by" in chat.talk.getvalue() and lines.defaults[-1] == "x" * 300
    assert said(chat) == ["hi", "well"]
    chat.run(Lines("/system " + "s" * 150))
    assert "leaves too little" in chat.talk.getvalue() and not chat.conversation.system


def test_ctrl_c_keeps_what_was_said_and_takes_back_what_was_not_answered(made):
    chat, lines = made(fail(KeyboardInterrupt(), "so f")), Lines("hi")
    chat.run(lines)
    assert said(chat) == ["hi", "so f"] and "stopped]" in chat.talk.getvalue()
    chat, lines = made(fail(KeyboardInterrupt())), Lines("hi")
    chat.run(lines)
    assert said(chat) == [] and lines.defaults[-1] == "hi"
    chat = made(say("1"), fail(KeyboardInterrupt()))
    chat.run(Lines("hi", "/retry"))
    assert said(chat) == ["hi", "1"]


def test_a_second_ctrl_c_cannot_lose_the_answer(made):
    def script(engine, done, params):
        yield put(engine, done, "so f")
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    chat = made(script)
    chat.run(Lines("hi"))
    assert said(chat) == ["hi", "so f"]


def test_ctrl_c_at_the_prompt(made):
    chat, lines = made(), Lines(KeyboardInterrupt(), "hi", KeyboardInterrupt(), KeyboardInterrupt())
    lines.lines += ["never read"]
    chat.run(lines)
    assert lines.lines == ["never read"] and said(chat) == ["hi", "well"]
    assert chat.talk.getvalue().count("Ctrl-C again") == 2


def test_errors_are_said_and_the_talk_goes_on(made):
    chat = made(fail(Refused("no way")), fail(MemoryError()), say("yes"))
    chat.run(Lines("a", "b", "c", "/load nothing.jsonl", "/load", "/nonsense", "/branch 9"))
    talk = chat.talk.getvalue()
    assert "no way" in talk and "out of memory" in talk and "no such file" in talk
    assert said(chat) == ["c", "yes"]


@pytest.mark.parametrize("error", [Diverged("nan"), Interrupted("HUP")])
def test_what_cannot_be_mended_goes_up_with_the_answer_kept(made, tmp_path, error):
    chat = made(fail(error, "half"))
    with pytest.raises(type(error)):
        chat.run(Lines("hi"))
    chat.save()
    [file] = tmp_path.glob("*.jsonl")
    assert json.loads(file.read_text())["messages"][-1]["content"] == "half"


def test_a_full_disk_is_said_once(made, monkeypatch):
    chat = made()

    def full(row):
        raise OSError(28, "No space left on device", "talk.jsonl")

    monkeypatch.setattr(chat.transcript, "write", full)
    chat.run(Lines("hi", "ho"))
    assert chat.talk.getvalue().count("not kept any more: talk.jsonl: no space") == 1


def test_save_and_load(made, tmp_path):
    chat, path = made(say("1")), tmp_path / "talk"
    chat.run(Lines(f"/save {path}", "one", f"/save {path}", "/save"))
    assert "nothing was said" in chat.talk.getvalue()
    other = made(say("2"))
    other.run(Lines(f"/load {path}", "/probs", "two", f"/save {path}"))  # its own file now
    assert said(other) == ["one", "1", "two", "2"] and "was loaded" in other.talk.getvalue()
    third = made()
    third.run(
        Lines("x", f"/save {path}", f"/save -f {path}", "/save /no/such/x", f"/save {tmp_path}")
    )
    talk = third.talk.getvalue()
    assert "exists already" in talk and "no such folder" in talk
    assert json.loads(path.read_text())["messages"][0]["content"] == "x"
    path.write_text('{"messages":[{"role":"user","content":"a"}]}\n{"messages":[]}\n')
    third.run(Lines(f"/load {path} 2", f"/load {path} 3", f"/load {path}"))
    assert "number 2 of 2" in third.talk.getvalue() and "holds 2" in third.talk.getvalue()
    assert "has no answer" in third.talk.getvalue()


def test_tools_are_shown_and_kept_as_messages(made):
    record = CallRecord("python", {"code": "6*7"}, "42\x1b[2J", 0.25)

    def script(engine, done, params):
        yield put(engine, done, "let me see")
        for text in ("<|python|>", "6*7"):
            put(engine, done, text)
        put(engine, done, "<|im_end|>")
        yield Event(done, "", asked=ToolCall("python", {"code": "6*7"}))
        done.calls.append(record)
        put(engine, done, "result", sampled=False)
        yield Event(done, "", call=record)
        yield from say("42")(engine, done, params)

    chat = made(script)
    chat.run(Lines("/tools python", "what is 6*7?", "/tools off", "/probs"))
    assert [m["role"] for m in chat.conversation.messages()] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    talk = chat.talk.getvalue()
    assert "[python] 6*7" in talk and "[result, 0.25 s] 42\\x1b[2J" in talk
    assert "tools: python" in talk and '"4"' in talk
    assert chat.engine.asked[0][2].names == ["python"]


def test_a_tool_that_is_off_or_cannot_be_had(made):
    def refuse(names):
        raise Refused("no isolation on this machine")

    def script(engine, done, params):
        for text in ("<|search|>", "x"):
            yield put(engine, done, text)
        done.finish_reason = "stop"
        yield put(engine, done, "<|im_end|>")

    chat = made(script, open_tools=refuse)
    chat.run(Lines("/tools python", "hi", "so?"))
    talk = chat.talk.getvalue()
    assert "no isolation" in talk and "it called search, which is not in use" in talk
    assert check_messages(chat.conversation.messages()) is None


@pytest.mark.parametrize(
    ("reason", "result"),
    [
        ("stop", "not in use"),
        ("calls", "had no call left"),
        ("length", "reached max_tokens"),
        (None, "ended before"),
    ],
)
def test_a_call_that_was_not_run_is_kept_with_the_true_reason(made, reason, result):
    def script(engine, done, params):
        for text in ("<|python|>", "1+1"):
            put(engine, done, text)
        done.finish_reason = reason
        yield put(engine, done, "<|im_end|>")

    chat = made(script)
    chat.run(Lines("hi"))
    kept = chat.conversation.messages()[-1]
    assert kept["role"] == "tool" and result in kept["content"]
    assert ("which is not in use" in chat.talk.getvalue()) == (reason == "stop")


def test_new_begins_another_file(made, tmp_path):
    chat = made()
    chat.run(Lines("/system kind", "hi", "/new", "ho"))
    assert said(chat) == ["ho", "well"] and chat.conversation.system == "kind"
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_help_names_every_command_and_quit_leaves(made):
    chat, lines = made(), Lines("/help", "/help undo", "/help nope", "/quit", "never")
    chat.run(lines)
    assert chat.talk.getvalue().count("/undo") == 2 and lines.lines == ["never"]


def test_going_round_in_circles_ends_an_answer(made):
    assert repeats("abc" * 100, 10) and not repeats("abc" * 100, 0)
    assert not repeats("-" * 80, 8) and not repeats("abc" * 10, 10)
    chat = made(say("round and " * 200), stop_repeats=8)
    chat.run(Lines("hi"))
    assert len(said(chat)[1]) < 400 and "repeated itself" in chat.talk.getvalue()


def test_commands_before_anything_was_said(made):
    chat = made()
    names = ["undo", "retry", "edit", "branch", "probs", "save", "context", "system", "tools"]
    chat.run(Lines(*(f"/{name}" for name in names)))
    assert "Traceback" not in chat.talk.getvalue() and said(chat) == []
    with pytest.raises(Exception, match="nothing to take back"):
        do(chat, Lines(), "undo", "")
