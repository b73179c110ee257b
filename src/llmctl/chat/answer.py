"""One answer of a model: how it went, why it ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from llmctl.infer.completion import Completion

REPEATED, LONGEST_PIECE = 200, 200  # characters: of all repetitions at least, of one at most
REASONS = {
    "stopped": "stopped",
    "repeats": "ended: it repeated itself",
    "length": "cut at max_tokens; /max_tokens allows more",
    "context": "cut: the context is full",
    "calls": "ended: it asked for tools too often",
}
UNANSWERED = {  # by finish_reason: what a call that was not run gets for its result
    "stop": "error: this tool is not in use",
    "length": "error: the answer reached max_tokens before this call was run",
    "calls": "error: this answer had no call left",
}


@dataclass
class Answer:
    """One answer as it was drawn."""

    completion: Completion | None = None  # None: stopped before its first token
    seed: int = 0
    stopped: bool = False  # by Ctrl-C
    repeated: bool = False  # ended because it went round in circles
    first: float = 0.0  # seconds to the first token
    rate: float = 0.0  # tokens a second after it
    reused: int = 0  # tokens of its prompt that were not computed again


def status_line(answer: Answer, completion: Completion, max_seq_len: int) -> str:
    """The line under an answer: tokens, speed, context, and why it ended if not by itself."""
    drawn = sum(completion.sampled)
    speed = f", {answer.rate:,.1f} tokens/s" if drawn > 1 and answer.rate else ""
    first = f"{answer.first:.2f} s" if answer.first < 1 else f"{answer.first:.1f} s"
    used = min(max_seq_len, len(completion.prompt_ids) + len(completion.ids))
    reused = f" ({answer.reused:,} reused)" if answer.reused else ""
    parts = [
        f"{drawn:,} token{'s' * (drawn != 1)}{speed}, first after {first}",
        f"context {used:,} of {max_seq_len:,}{reused}, {max_seq_len - used:,} left",
    ]
    why = ending(answer, completion)
    return f"[{'; '.join([*parts, *([REASONS[why]] if why in REASONS else [])])}]"


def ending(answer: Answer, completion: Completion) -> str:
    """Why an answer ended, in a word."""
    if answer.repeated:
        return "repeats"
    return "stopped" if answer.stopped else completion.finish_reason or "stopped"


def unanswered(answer: Answer, completion: Completion) -> str:
    """What is kept as the result of a call that got none; the model reads it in its next prompt."""
    if answer.stopped:
        return "error: stopped by the user"
    cut = "error: the answer ended before this call was run"
    return UNANSWERED.get(completion.finish_reason or "", cut)


def repeats(text: str, times: int) -> bool:
    """Whether a text ends with the same piece so many times; 0: never. What is shorter than
    REPEATED characters in all, such as a rule of dashes, does not count."""
    if times < 2:
        return False
    sizes = range(-(-REPEATED // times), min(len(text) // times, LONGEST_PIECE) + 1)
    return any(text.endswith(text[-size:] * times) for size in sizes)


@contextlib.contextmanager
def ctrl_c_once() -> Iterator[None]:
    """Inside, the first Ctrl-C raises KeyboardInterrupt and further ones do nothing, so that what
    was said can be kept in peace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if not pressed:
            pressed = True
            raise KeyboardInterrupt

    previous: Any = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
