"""The tree: whatever is done to it, nothing said is lost and the path alternates."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmctl.chat.conversation import Conversation
from llmctl.core.errors import BadInput
from llmctl.tokenizer.chat import check_messages

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.text(max_size=5)),
        st.tuples(st.just("undo"), st.none()),
        st.tuples(st.just("retry"), st.none()),
        st.tuples(st.just("switch"), st.integers(0, 30)),
    ),
    max_size=30,
)


def called(name="python"):
    call = {"type": "function", "function": {"name": name, "arguments": {"code": "1+1"}}}
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": name, "content": "2"},
        {"role": "assistant", "content": "two"},
    ]


def walk(steps) -> Conversation:
    talk = Conversation("be brief")
    for what, value in steps:
        if what == "say":
            talk.say(f"q{value}")
            talk.answer([{"role": "assistant", "content": f"a{len(talk.turns)}"}], {"seed": 1})
        elif what == "undo":
            talk.undo()
        elif what == "retry" and talk.back_to_user():
            talk.answer(called(), {})
        elif what == "switch" and talk.leaves():
            leaves = talk.leaves()
            talk.switch(leaves[value % len(leaves)])
    return talk


@CALM
@given(STEPS)
def test_paths_alternate_and_nothing_is_lost(steps):
    talk = walk(steps)
    path = talk.path()
    assert [turn.is_user for turn in path] == [i % 2 == 0 for i in range(len(path))]
    answers = sum(what in ("say", "retry") for what, _ in steps)
    assert len(talk.turns) <= 2 * answers
    on_paths = {turn.number for leaf in talk.leaves() for turn in talk.path(leaf)}
    assert on_paths == set(range(len(talk.turns)))
    if path:
        assert check_messages(talk.messages()) is None


@CALM
@given(STEPS)
def test_a_file_holds_it_all(steps):
    talk = walk(steps)
    row = json.loads(json.dumps(talk.to_row(model={"id": "x"})))
    again = Conversation.from_row(row, "file")
    assert again.to_row(model={"id": "x"}) == row
    assert row["messages"] == talk.messages()
    plain = Conversation.from_row({"messages": row["messages"]}, "file")  # the tree left out
    assert plain.messages() == talk.messages()


def test_undo_retry_edit_make_branches():
    talk = Conversation()
    talk.say("one")
    talk.answer([{"role": "assistant", "content": "1"}], {})
    talk.say("two")
    talk.answer([{"role": "assistant", "content": "2"}], {})
    assert talk.undo().text == "two" and [t.text for t in talk.path()] == ["one", "1"]
    talk.say("three")
    talk.answer(called(), {})
    talk.back_to_user()
    talk.answer([{"role": "assistant", "content": "3"}], {})
    assert [talk.turns[leaf].text for leaf in talk.leaves()] == ["2", "two", "3"]
    assert talk.undo() and talk.undo() and talk.undo() is None
    with pytest.raises(ValueError):
        talk.answer([{"role": "assistant", "content": "x"}], {})


def user(content="x"):
    return {"role": "user", "content": content}


def answer(content="y"):
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], "not a JSON object"),
        ({}, "no list under the key messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "message 0"),
        ({"messages": [user(3)]}, "no text"),
        ({"messages": [user(), user()]}, "take turns"),
        ({"messages": [answer()]}, "take turns"),
        ({"messages": [user(), {"role": "tool", "content": ""}]}, "take turns"),
        ({"messages": [user(), answer() | {"tool_calls": [{"x": 1}]}]}, "function's name"),
        ({"messages": [user(), answer() | {"tool_calls": 5}]}, "tool call"),
        ({"chat": {"version": 2, "turns": []}}, "version 2"),
        ({"chat": {"version": 1, "turns": []}}, "system prompt"),
        ({"chat": {"version": 1, "system": "", "turns": [3]}}, "turn 0"),
        ({"chat": {"version": 1, "system": "", "turns": [{"parent": 0}]}}, "no earlier turn"),
        (
            {"chat": {"version": 1, "system": "", "at": 4, "turns": [{"messages": [user()]}]}},
            "stands at turn 4",
        ),
    ],
)
def test_what_is_no_conversation_is_refused_by_place(row, said):
    with pytest.raises(BadInput, match=said):
        Conversation.from_row(row, "file")


@CALM
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["chat", "messages", "role", "content", "turns", "parent", "version", "at"]
                ),
                x,
                max_size=5,
            )
        ),
        max_leaves=25,
    )
)
def test_any_json_is_read_or_refused(row):
    try:
        Conversation.from_row(row, "file")
    except BadInput:
        pass


def test_foreign_extras_are_dropped_and_bare_calls_accepted():
    [_, call, result, last] = [user(), *called()]
    row = {"messages": [user() | {"weight": 3}, call | {"content": None}, result, last]}
    talk = Conversation.from_row(row, "file")
    assert talk.messages() == [user(), *called()]
