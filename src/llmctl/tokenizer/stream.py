"""Ids to text one at a time, as a model writes them."""

from __future__ import annotations

import codecs

from llmctl.tokenizer.bpe import Tokenizer


class StreamDecoder:
    """Text of a growing list of ids, whole characters only.

    A character of several bytes may be spread over several tokens; it is given out when its last
    byte has come. Everything given out, flush included, is what `Tokenizer.decode` gives at once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._table = tokenizer.token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = not tokenizer.byte_level  # SentencePiece writes a space before the text

    def push(self, id: int) -> str:
        """The characters that are complete with this id; often none or one word."""
        return self._given(self._utf8.decode(self._table[id]))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character cut off."""
        return self._given(self._utf8.decode(b"", final=True))

    def _given(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text
