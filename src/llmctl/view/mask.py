"""What of a conversation is trained on: painted on a terminal, between marks elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmctl.core.terminal import printable
from llmctl.tokenizer.bpe import Tokenizer

TRAINED, UNTRAINED, RESET = "\x1b[30;48;5;158m", "\x1b[2m", "\x1b[0m"
OPEN, CLOSE = "⟦", "⟧"
LEGEND = f"{OPEN}trained on{CLOSE}  not trained on"


def legend(colour: bool) -> str:
    """What the marks mean."""
    return f"{TRAINED}trained on{RESET} {UNTRAINED}not trained on{RESET}" if colour else LEGEND


def stretches(mask: Sequence[bool]) -> Iterator[tuple[int, int, bool]]:
    """(start, stop, trained) of each run of equal flags."""
    start = 0
    for i in range(1, len(mask) + 1):
        if i == len(mask) or mask[i] != mask[start]:
            yield start, i, mask[start]
            start = i


def show_mask(
    tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[bool], *, colour: bool
) -> str:
    """The text of ids with every trained stretch painted, or between ⟦ and ⟧.

    Each message begins a line where the format has no line end between two of them.
    """
    parts = []
    for start, stop, trained in stretches(mask):
        text = _text(tokenizer, ids[start:stop])
        if not colour:
            parts.append(f"{OPEN}{text}{CLOSE}" if trained else text)
            continue
        paint = TRAINED if trained else UNTRAINED
        parts += "\n".join(f"{paint}{line}{RESET}" if line else "" for line in text.split("\n"))
    return "".join(parts).strip("\n")


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of some ids; a broken character at their edge shows as U+FFFD."""
    start = tokenizer.id_of("<|im_start|>")
    lines: list[list[int]] = [[]]
    for id in ids:
        if id == start:
            lines.append([])
        lines[-1].append(id)
    return "\n".join(printable(tokenizer.decode(line)) for line in lines)
