"""Which files the talk may write again without being told so."""

import json

import pytest
import test_session
from test_session import Lines, said

made = test_session.made  # the fixture


def row(text, **more):
    said = [{"role": "user", "content": text}, {"role": "assistant", "content": "b"}]
    return {"messages": said, **more}


def lines_of(rows):
    return "".join(json.dumps(x) + "\n" for x in rows)


@pytest.mark.parametrize(
    "rows",
    [
        [row("a"), row("c", source="x")],
        [row("a")],  # one row of a data set is no file of ours either
        [row("a", chat={"version": 1}, source="x")],
        [row("a", chat={"topic": "birds"})],
        [row("a", chat={"version": 1}), row("c", chat={"version": 1})],
    ],
)
def test_a_data_set_that_was_loaded_is_not_saved_over(made, tmp_path, rows):
    path = tmp_path / "sft"
    path.write_text(lines_of(rows))
    chat = made()
    chat.run(Lines(f"/load {path} {len(rows)}", "more", "/save", f"/save {path}"))
    assert said(chat)[-2:] == ["more", "well"] and "exists already" in chat.talk.getvalue()
    assert path.read_text() == lines_of(rows)


def test_a_conversation_that_was_saved_is_saved_again(made, tmp_path):
    path = tmp_path / "talk"
    made().run(Lines("hi", f"/save {path}"))
    chat = made()
    chat.run(Lines(f"/load {path}", "more", "/save"))
    assert [m["content"] for m in json.loads(path.read_text())["messages"]] == [
        "hi",
        "well",
        "more",
        "well",
    ]
