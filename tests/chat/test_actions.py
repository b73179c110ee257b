"""What commands do with odd input: numbers, system prompts, tools, branches without an answer."""

import json
import re
from types import SimpleNamespace

import pytest
import test_session
from test_session import Lines, said

from llmctl.tokenizer.chat import chat_format

made = test_session.made  # the fixture


def user(content):
    return {"role": "user", "content": content}


def answer(content):
    return {"role": "assistant", "content": content}


def told(tokenizer):
    """Opens a box whose format tells the model of its tools."""
    return lambda names: SimpleNamespace(format=chat_format(tokenizer).with_tools(names))


@pytest.mark.parametrize("number", ["²", "9" * 5000, "٣", "-1", "1.0"])
def test_no_number_that_is_typed_ends_the_talk(made, tmp_path, number):
    chat = made()
    path = tmp_path / "talk"
    chat.run(Lines("hi", f"/save {path}", f"/retry {number}", f"/branch {number}"))
    chat.run(Lines(f"/load {path} {number}"))
    talk = chat.talk.getvalue()
    assert "/retry takes a seed" in talk and "/branch takes a number" in talk
    assert re.search("no such file|too long", talk) and said(chat) == ["hi", "well"]


@pytest.mark.parametrize("name", ["~nobody.here/x", "a\0b"])
def test_no_path_that_is_typed_ends_the_talk(made, name):
    chat = made()
    chat.run(Lines("hi", f"/load {name}", f"/save {name}"))
    assert len(re.findall("no such user|holds a NUL", chat.talk.getvalue())) == 2


def test_the_largest_seed_is_taken_and_the_next_refused(made):
    chat = made()
    chat.run(Lines("hi", f"/retry {2**64 - 1}", f"/retry {2**64}"))
    assert [params.seed for _, params, _ in chat.engine.asked] == [7, 2**64 - 1]


def test_a_comma_is_no_decimal_point(made):
    chat = made()
    chat.run(Lines("/temp 0.5", "/temp 0,7", "/temp 0_7", "/top_k 40", "/top_k 1,5"))
    assert chat.params.temperature == 0.5 and chat.params.top_k == 40
    assert chat.talk.getvalue().count("such as 0.7; got") == 2
    chat.run(Lines("/max_tokens 16,384"))
    assert chat.params.max_tokens == 16384
    assert chat.talk.getvalue().endswith("max_tokens 16384\n")


def test_a_system_prompt_that_is_refused_is_not_kept(made):
    chat = made(size=200)
    chat.run(Lines("/system be kind", "/system " + "s" * 150))
    assert chat.conversation.system == "be kind"

    def refuse(messages, told=None):
        raise test_session.Refused("no place for a system prompt")

    chat.voice.ids = refuse
    chat.run(Lines("/system be brief"))
    assert "no place" in chat.talk.getvalue() and chat.conversation.system == "be kind"
    chat.run(Lines("/system -"))
    assert not chat.conversation.system


def test_context_counts_what_is_sent_tools_too(made, chat_letters):
    chat = made(open_tools=told(chat_letters))
    chat.run(Lines("/tools python search", "hi"))
    [(sent, _, _)] = chat.engine.asked
    chat.conversation.undo()
    chat.conversation.say("hi")
    chat.run(Lines("/context"))
    [counted] = re.findall(r"context (\d+) of 2,000 tokens, [\d,]+ left\n", chat.talk.getvalue())
    assert int(counted) == len(sent)


def test_tools_take_their_part_of_the_room_for_a_system_prompt(made, chat_letters):
    fits = "/system " + "s" * 60
    chat = made(size=200, open_tools=told(chat_letters))
    chat.run(Lines(fits))
    assert chat.conversation.system and "too little" not in chat.talk.getvalue()
    chat.run(Lines("/system -", "/tools " + "python search " * 4, fits))
    assert not chat.conversation.system and "tools python" in chat.talk.getvalue()


def test_a_branch_without_an_answer_can_be_gone_to(made, tmp_path):
    path = tmp_path / "talk"
    path.write_text(json.dumps({"messages": [user("a"), answer("b"), user("never answered")]}))
    chat, lines = made(), Lines(f"/load {path}", "/branch", "/branch 1", "so")
    chat.run(lines)
    assert said(chat) == ["a", "b", "so", "well"] and "never answered" in lines.defaults
    listed = chat.talk.getvalue().split("its answer")[1]
    assert re.match(r"\s+1\s+3\s+never answered\s+-", listed.replace("─", ""))
    chat = made()
    path.write_text(json.dumps({"messages": [user("first")]}))
    lines = Lines(f"/load {path}", "/branch 1", "so")
    lines.can_prefill = False
    chat.run(lines)
    assert said(chat) == ["so", "well"] and "no answer: first" in chat.talk.getvalue()
