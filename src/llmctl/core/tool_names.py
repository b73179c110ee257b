"""The tools a model may call, by name: what --tools takes."""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.core.errors import UsageError, did_you_mean

NAMES = ("python", "search")


def tool_names(words: Sequence[str]) -> tuple[str, ...]:
    """The tools asked for, each once; a word may hold several with commas between.

    UsageError (2) for one that there is not.
    """
    names = [name.strip() for word in words for name in word.split(",")]
    found = tuple(dict.fromkeys(name for name in names if name))
    for name in found:
        if name not in NAMES:
            raise UsageError(f"no tool {name!r}{did_you_mean(name, list(NAMES))}")
    return found
