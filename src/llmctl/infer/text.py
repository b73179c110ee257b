"""The text of one answer as its ids come: whole characters, stop strings, safe printing."""

from __future__ import annotations

from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.stream import StreamDecoder


class TextStream:
    """Turns ids into text, and holds back what may become a stop string.

    A stop string may be spread over several tokens, or begin in the middle of one; the text ends
    where the earliest begins.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = ()) -> None:
        self.decoder = StreamDecoder(tokenizer)
        self.stop = stop
        self.text = ""  # everything decoded, cut at the stop string
        self.shown = 0  # characters of it already given out
        self.stopped = False
        self._new_line = False

    def push(self, id: int) -> None:
        """Take one more id; sets `stopped` when a stop string is complete."""
        self._take(self.decoder.push(id))

    def finish(self) -> None:
        """No more ids come: a character cut off becomes U+FFFD."""
        if not self.stopped:
            self._take(self.decoder.flush())

    def next_turn(self) -> None:
        """What comes belongs to another turn: it begins on a line of its own."""
        self.finish()
        self._new_line = bool(self.text) and not self.text.endswith("\n")

    def _take(self, piece: str) -> None:
        if not piece:
            return
        if self._new_line:
            piece, self._new_line = "\n" + piece, False
        longest = max((len(stop) for stop in self.stop), default=0)
        begin = max(0, len(self.text) - longest + 1)
        self.text += piece
        found = [at for stop in self.stop if (at := self.text.find(stop, begin)) >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True

    def new_text(self, *, final: bool = False) -> str:
        """What can be shown beyond what was given out before."""
        end = len(self.text)
        if not (final or self.stopped):
            end -= self._held()
        piece, self.shown = self.text[self.shown : end], max(end, self.shown)
        return piece

    def _held(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        for size in range(min(max(map(len, self.stop), default=0), len(self.text) + 1) - 1, 0, -1):
            if any(stop.startswith(self.text[-size:]) for stop in self.stop):
                return size
        return 0
