"""Whole sessions at a terminal: keys go in, what a person sees comes out."""

import json
import os
import signal
import stat
import time


def test_a_session(terminal, folders, tmp_path):
    """Greeting, an answer, a paste, /undo, /retry, /save, /load, Ctrl-C, Ctrl-D."""
    chat = terminal("chat", folders["chat"], "--max-tokens", 30)
    greeting = chat.wait("Ctrl-D leaves")
    assert "gpt2" in greeting and "16,384 tokens" in greeting and "base model" not in greeting
    chat.type("hello\r")
    chat.wait("30 tokens, ")
    chat.wait("cut at max_tokens")
    chat.type("\x1b[200~first line\nsecond line\x1b[201~")
    chat.send("\r")
    chat.wait("30 tokens, ")
    chat.type("one\x1b\rtwo\r")  # Alt-Enter: a message of two lines
    chat.wait("30 tokens, ")
    chat.resize(20, 30)
    chat.type("/undo\r")
    chat.wait("taken back: one two")
    chat.type("/retry\r")
    chat.wait("another answer, by seed 1338")
    chat.type("/save talk.jsonl\r")
    chat.wait("saved as talk.jsonl")
    chat.type("/load talk.jsonl\r")
    chat.wait("second line")
    chat.type("/hlp\r")
    chat.wait("did you mean /help?")
    chat.type("/max_tokens 15000\r")
    chat.wait("max_tokens 15000")
    chat.type("go on\r")
    chat.wait("go on\n")
    chat.wait("\n", 20)  # the answer has begun: the random model writes newlines, too
    chat.send("\x03")
    stopped = chat.wait("stopped]")
    assert "tokens" in stopped
    chat.type("/context\r")
    chat.wait("left")
    chat.type("\x03")
    chat.wait("Ctrl-C again")
    chat.type("\x04")
    chat.wait("--resume goes on")
    assert chat.end() == 0

    row = json.loads((tmp_path / "talk.jsonl").read_text())
    said = [m["content"] for m in row["messages"] if m["role"] == "user"]
    assert said == ["hello", "first line\nsecond line"]
    assert stat.S_IMODE((tmp_path / "talk.jsonl").stat().st_mode) == 0o600
    kept = sorted((tmp_path / "state/llmctl/chat").glob("*.jsonl"), key=os.path.getmtime)
    last = json.loads(kept[-1].read_text())["messages"]
    assert last[-2]["content"] == "go on" and last[-1]["content"]  # stopped, and kept
    history = [json.loads(x) for x in open(tmp_path / "state/llmctl/chat/history")]
    assert "one\ntwo" in history and stat.S_IMODE(kept[-1].stat().st_mode) == 0o600


def test_hangup_keeps_the_transcript_and_resume_goes_on(terminal, folders, tmp_path):
    chat = terminal("chat", folders["base"], "--max-tokens", 20)
    assert "base model" in chat.wait("Ctrl-D leaves")
    chat.type("hello\r")
    chat.wait("left")
    chat.type("/max_tokens 16000\r")
    chat.wait("max_tokens 16000")
    chat.type("more\r")
    chat.wait("more\n")
    chat.wait("\n", 20)
    os.kill(chat.pid, signal.SIGHUP)
    assert chat.end() == 75
    [kept] = (tmp_path / "state/llmctl/chat").glob("*.jsonl")
    messages = json.loads(kept.read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2

    chat = terminal("chat", folders["base"], "--resume", "--max-tokens", 20)
    chat.wait("[4 turns; the last:]")
    chat.wait("Ctrl-D leaves")
    chat.type("\x03")
    chat.wait("Ctrl-C again")
    chat.type("\x03")
    assert chat.end() == 0
    assert [*(tmp_path / "state/llmctl/chat").glob("*.jsonl")] == [kept]


def test_ctrl_c_ends_a_running_tool_and_the_talk_goes_on(walls, terminal, scripted, tmp_path):
    code = "import time; time.sleep(60)"
    model = scripted("go", "wait ", "<|python|>", code, "<|im_end|>")
    chat = terminal("chat", model, "--tools", "python", "--temperature", 0)
    chat.wait("tools: python")
    chat.type("go\r")
    chat.wait(f"[python] {code}")
    started = time.monotonic()
    chat.send("\x03")
    chat.wait("stopped]")
    assert time.monotonic() - started < 8
    chat.type("/save talk\r")
    chat.wait("saved")
    chat.type("\x04")
    assert chat.end() == 0
    messages = json.loads((tmp_path / "talk").read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "tool"]
    assert messages[2]["content"] == "error: stopped by the user"


def test_end_of_a_pipe_talks_through_the_terminal(terminal, folders):
    chat = terminal("chat", "--max-tokens", 9, piped=f"{folders['chat']}\n")
    chat.wait("Ctrl-D leaves")
    chat.type("hello\r")
    chat.wait("9 tokens")
    chat.type("/quit\r")
    chat.wait("goes on")
    assert chat.end() == 0


def test_ctrl_z_and_back(terminal, folders):
    chat = terminal("chat", folders["chat"], "--max-tokens", 9, job=True)
    chat.type("\x1a")
    chat.wait("in the background")
    chat.type("hello\r")
    chat.wait("9 tokens")
    chat.type("/max_tokens 15000\r")
    chat.type("more\r")
    chat.wait("more\n")
    chat.wait("\n", 20)
    chat.send("\x1a")  # in the middle of an answer
    chat.wait("in the background")
    chat.send("\x03")
    chat.wait("stopped]")
    chat.type("\x04")
    assert chat.end() == 0


def test_a_terminal_without_line_editing(terminal, folders, tmp_path):
    chat = terminal("chat", folders["chat"], "--max-tokens", 9, TERM="dumb")
    chat.wait("Ctrl-D leaves\n> ")
    chat.send("hello\n")
    chat.wait("9 tokens")
    chat.wait("> ")
    chat.send('"""two\n')
    chat.wait("  ")
    chat.send('lines"""\n')
    chat.wait("9 tokens")
    chat.wait("> ")
    chat.send("\x03")
    chat.wait("Ctrl-C again")
    chat.send("\x03")
    assert chat.end() == 0
    [kept] = (tmp_path / "state/llmctl/chat").glob("*.jsonl")
    assert json.loads(kept.read_text())["messages"][2]["content"] == "two\nlines"
