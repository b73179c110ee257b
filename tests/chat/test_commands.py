"""What a typed line means."""

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmctl.chat.actions import ACTIONS
from llmctl.chat.commands import ALIASES, COMMANDS, Do, Say, Unknown, parse
from llmctl.chat.terminal import PlainReader

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("hello", Say("hello")),
        ("  two\nlines", Say("  two\nlines")),
        ("", None),
        (" \n ", None),
        ("/undo", Do("undo", "")),
        (" /temp 0.5 ", Do("temp", "0.5")),
        ("/system be\nbrief", Do("system", "be\nbrief")),
        ("/Temperature 1", Do("temp", "1")),
        ("/exit", Do("quit", "")),
        ("//undo", Say("/undo")),
        ("/etc/hosts is a file", Say("/etc/hosts is a file")),
        ("/ alone", Say("/ alone")),
        ("1/2", Say("1/2")),
    ],
)
def test_lines(line, meant):
    assert parse(line) == meant


def test_near_misses_are_suggested():
    assert parse("/undoo") == Unknown("/undoo", "did you mean /undo?")
    assert parse("/xyzzy") == Unknown("/xyzzy", "/help lists them")
    assert parse("/x") == Unknown("/x", "/help lists them")


def test_the_end_of_input_ends_a_message_of_several_lines():
    reader = PlainReader(io.StringIO('hi\n"""one\ntwo'), io.StringIO())
    assert [reader.read(), reader.read()] == ["hi", "one\ntwo"]
    with pytest.raises(EOFError):
        reader.read()


def test_every_command_is_done_and_every_alias_leads_to_one():
    assert set(ACTIONS) == set(COMMANDS) and set(ALIASES.values()) <= set(COMMANDS)
    assert not set(ALIASES) & set(COMMANDS)


@CALM
@given(st.text(max_size=40))
def test_any_line_means_something(line):
    meant = parse(line)
    assert (meant is None) == (not line.strip())
