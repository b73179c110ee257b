"""What is trained on can be seen, painted or between marks, and nothing in it steers a terminal."""

import pytest

from llmctl.view.mask import CLOSE, OPEN, RESET, TRAINED, show_mask, stretches
from train import chats

CHAT = [
    {"role": "user", "content": "a mill"},
    {"role": "assistant", "content": "rain\x1b[2J"},
    {"role": "user", "content": "bread"},
    {"role": "assistant", "content": "tales"},
]


@pytest.mark.parametrize(
    ("mask", "runs"),
    [
        ([], []),
        ([True], [(0, 1, True)]),
        ([False, False, True, False], [(0, 2, False), (2, 3, True), (3, 4, False)]),
    ],
)
def test_stretches(mask, runs):
    assert list(stretches(mask)) == runs


def test_marks_stand_around_what_is_trained_on_and_each_message_on_its_line():
    format = chats.our_format()
    rendered = format.render(CHAT)
    lines = show_mask(format.tokenizer, rendered.ids, rendered.mask, colour=False).split("\n")
    assert lines[0] == "<|im_start|>user<|im_sep|>a mill<|im_end|>"
    assert lines[1] == f"<|im_start|>assistant<|im_sep|>{OPEN}rain\\x1b[2J<|im_end|>{CLOSE}"
    assert lines[3] == f"<|im_start|>assistant<|im_sep|>{OPEN}tales<|im_end|>{CLOSE}"


def test_paint_ends_with_the_line_and_covers_the_same():
    format = chats.our_format()
    rendered = format.render(CHAT)
    text = show_mask(format.tokenizer, rendered.ids, rendered.mask, colour=True)
    assert f"{TRAINED}tales<|im_end|>{RESET}" in text
    assert all(
        line.count(RESET) == line.count("\x1b[") - line.count(RESET) for line in text.split("\n")
    )
