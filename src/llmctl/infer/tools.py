"""The tools a model may call: `python` in the sandbox, `search` over documents.

Results are plain and short, since small models read them in contexts of a few hundred tokens: what
a program printed, or an error in one line; passages, one a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl import sandbox
from llmctl.artifacts.lineage import find_upstream
from llmctl.artifacts.store import Artifact
from llmctl.core.errors import Mismatch, NoInput, Refused, UsageError
from llmctl.core.tool_names import NAMES, tool_names
from llmctl.infer.search import Index, read_texts
from llmctl.infer.toolbox import Tool, ToolBox
from llmctl.tokenizer.chat import ChatFormat

__all__ = ["NAMES", "PythonTool", "SearchTool", "Tool", "ToolBox", "documents_of", "open_tools"]
RESULT_WORDS = 120  # of a result, at most; the context of a small model holds a few hundred
PASSAGES = 3
PYTHON_LIMITS = sandbox.Limits(cpu_seconds=5, wall_seconds=10.0, output_bytes=16 << 10)
CUT = "… (cut)"


class PythonTool:
    """Runs a program and says what it printed, the value of a last expression included. Refused
    (77) where the kernel offers no isolation."""

    name = "python"

    def __init__(
        self, *, limits: sandbox.Limits = PYTHON_LIMITS, words: int = RESULT_WORDS
    ) -> None:
        if why := sandbox.available():
            raise Refused(
                f"the python tool: no isolation here for code that a model wrote ({why}); "
                "allow user namespaces or Landlock, or leave python out"
            )
        self.limits, self.words = limits, words

    def run(self, arguments: str | dict[str, Any]) -> str:
        """The result of {"code": text}."""
        code = _argument(arguments, "code")
        if code is None:
            return 'error: python takes {"code": text}'
        outcome = sandbox.run_python(code, limits=self.limits, owner=self)
        shown = shortened(outcome.stdout.strip("\n"), self.words)
        if outcome.error is not None:
            shown = f"{shown}\nerror: {outcome.error}" if shown else f"error: {outcome.error}"
        return shown or "(no output)"

    def cancel(self) -> None:
        """End the programs that run for this tool."""
        sandbox.stop_running(self)


class SearchTool:
    """Passages of documents that fit a query best, one a line."""

    name = "search"

    def __init__(
        self, index: Index, *, passages: int = PASSAGES, words: int = RESULT_WORDS
    ) -> None:
        self.index, self.passages, self.words = index, passages, words

    def run(self, arguments: str | dict[str, Any]) -> str:
        """The result of {"query": text}."""
        query = _argument(arguments, "query")
        if query is None:
            return 'error: search takes {"query": text}'
        found = self.index.find(query, self.passages)
        return shortened("\n".join(found), self.words) or "(nothing found)"

    def cancel(self) -> None:
        """A search takes milliseconds."""


def documents_of(model: Artifact, given: str) -> Path | None:
    """What search looks in: documents named, else those the model was made from, if any."""
    if given:
        return Path(given)
    try:
        return find_upstream(model, "documents")
    except NoInput:
        return None


def open_tools(
    names: Sequence[str],
    format: ChatFormat | None,
    *,
    documents: Path | None = None,
    passages: int = PASSAGES,
    words: int = RESULT_WORDS,
) -> ToolBox:
    """The tools asked for ("python", "search"), ready, with a format that tells of them.

    documents: what search looks in, a documents artifact or files with a text column; passages,
    words: the longest result.

    UsageError (2) for an unknown tool or search without documents; Mismatch (78) for a model
    without a chat format; Refused (77) for python where there is no isolation.
    """
    names = tool_names(names)
    if format is None:
        raise Mismatch("tools need a model that was taught to call them: run sft first")
    tools: dict[str, Tool] = {}
    if "python" in names:
        tools["python"] = PythonTool(words=words)
    if "search" in names:
        if documents is None:
            raise UsageError("the search tool has nothing to look in; name it with --documents")
        tools["search"] = SearchTool(Index(read_texts(documents)), passages=passages, words=words)
    return ToolBox(format.with_tools(list(tools)), tools)


def _argument(arguments: str | Mapping[str, Any], key: str) -> str | None:
    """The one argument of a tool, alone or under its key."""
    found = arguments if isinstance(arguments, str) else arguments.get(key)
    return found if isinstance(found, str) else None


def shortened(text: str, words: int) -> str:
    """A text of at most so many words; spaces and lines are kept as they are."""
    end = 0
    for count, word in enumerate(_words(text)):
        if count == words:
            return f"{text[:end]} {CUT}"
        end = word
    return text


def _words(text: str) -> Sequence[int]:
    """Where each word ends."""
    import re

    return [match.end() for match in re.finditer(r"\S+", text)]
