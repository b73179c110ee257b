"""What a conversation that has grown too long for the model does.

The model sees its system prompt, whole, and as many of the latest turns as leave room for an
answer; the oldest exchanges are left out, and that is said. A message that does not fit beside the
system prompt is refused with the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.core.errors import BadInput

Message = dict[str, Any]
SHARE = 4  # an answer gets at least a quarter of the context, or max_tokens where that is less


@dataclass(frozen=True)
class Fit:
    """What is sent: ids of the prompt; exchanges left out at the front, of how many."""

    ids: list[int]
    dropped: int
    exchanges: int


class TooLong(BadInput):
    """The last message does not fit."""


def room_for_answer(max_seq_len: int, max_tokens: int) -> int:
    """Tokens kept free for an answer."""
    return max(1, min(max_tokens, max_seq_len // SHARE))


def fit(
    messages: Sequence[Message],
    render: Callable[[Sequence[Message]], list[int]],
    max_seq_len: int,
    max_tokens: int,
) -> Fit:
    """The prompt of a conversation, its oldest exchanges left out as far as it must be.

    render: messages -> ids of the prompt. An exchange begins with a message of the user; the last
    one is never left out. TooLong (65) says by how much it does not fit.
    """
    head = list(messages[:1]) if messages and messages[0]["role"] == "system" else []
    rest = list(messages[len(head) :])
    starts = [i for i, message in enumerate(rest) if message["role"] == "user"]
    limit = max_seq_len - room_for_answer(max_seq_len, max_tokens)
    low, high = 0, len(starts) - 1  # exchanges left out: the fewest that suffice
    ids = render([*head, *rest])
    if len(ids) <= limit or high < 0:
        _refuse_beyond(ids, limit, head, rest, render, max_seq_len)
        return Fit(ids, 0, len(starts))
    kept = render([*head, *rest[starts[-1] :]])
    _refuse_beyond(kept, limit, head, rest[starts[-1] :], render, max_seq_len)
    while low + 1 < high:
        middle = (low + high) // 2
        ids = render([*head, *rest[starts[middle] :]])
        if len(ids) <= limit:
            high, kept = middle, ids
        else:
            low = middle
    return Fit(kept, high, len(starts))


def _refuse_beyond(
    ids: list[int],
    limit: int,
    head: list[Message],
    rest: list[Message],
    render: Callable[[Sequence[Message]], list[int]],
    max_seq_len: int,
) -> None:
    if len(ids) <= limit:
        return
    beside = ""
    if head:
        beside = f", {len(ids) - len(render(rest)):,} of them the system prompt's"
    raise TooLong(
        f"the message is too long: {len(ids):,} tokens{beside}, while the context of "
        f"{max_seq_len:,} less {max_seq_len - limit:,} for an answer holds {limit:,}; "
        f"shorten it by {len(ids) - limit:,}"
    )
