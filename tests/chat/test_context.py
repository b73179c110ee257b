"""Overflow: the oldest exchanges go, the system prompt and the last message stay whole."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmctl.chat.context import TooLong, fit, room_for_answer

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


def render(messages):
    """One id a character, and two a message."""
    ids = []
    for message in messages:
        ids += [0, *map(ord, message["content"]), 1]
    return ids


def talk(sizes, system=0):
    head = [{"role": "system", "content": "s" * system}] if system else []
    roles = ["user", "assistant"]
    said = [{"role": roles[i % 2], "content": "x" * n} for i, n in enumerate(sizes)]
    return head + said


def test_what_fits_is_sent_whole():
    messages = talk([5, 5, 5], system=5)
    found = fit(messages, render, 100, 50)
    assert found.ids == render(messages) and (found.dropped, found.exchanges) == (0, 2)


def test_the_oldest_exchanges_go_first():
    messages = talk([20, 20, 20, 20, 10], system=8)  # three exchanges
    found = fit(messages, render, 100, 1000)  # 25 for the answer: 75 for the prompt
    assert found.dropped == 1 and found.ids == render([messages[0], *messages[3:]])


def test_a_message_too_long_is_refused_with_its_numbers():
    with pytest.raises(TooLong, match="112 tokens, 10 of them the system .*75; shorten it by 37"):
        fit(talk([5, 5, 100], system=8), render, 100, 1000)
    with pytest.raises(TooLong, match="102 tokens, while"):
        fit(talk([100]), render, 100, 1000)


@CALM
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=15).filter(lambda x: len(x) % 2 == 1),
    st.integers(0, 20),
    st.integers(4, 200),
    st.integers(1, 300),
)
def test_as_much_as_fits_and_never_less(sizes, system, size, max_tokens):
    messages = talk(sizes, system)
    limit = size - room_for_answer(size, max_tokens)
    head = messages[: bool(system)]
    suffixes = [messages[len(head) + i :] for i in range(0, len(sizes), 2)]
    fitting = [s for s in suffixes if len(render([*head, *s])) <= limit]
    try:
        found = fit(messages, render, size, max_tokens)
    except TooLong:
        assert not fitting
        return
    assert found.ids == render([*head, *fitting[0]])
    assert found.dropped == len(suffixes) - len(fitting)
