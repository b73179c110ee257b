"""Tokens made visible: painted on a terminal as tiktokenizer does, a plain list elsewhere."""

from __future__ import annotations

from llmctl.core.console import printable
from llmctl.tokenizer.bpe import Tokenizer

# light backgrounds of the 256-colour table, neighbours easy to tell apart; black on them
PAINTS = (153, 193, 223, 218, 158, 189, 229, 216)
RESET = "\x1b[0m"


def visible(token: bytes) -> str:
    """A token's text on one line: spaces as they are, line ends and tabs and broken UTF-8 named."""
    text = token.decode("utf-8", "backslashreplace")
    for letter, name in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(letter, name)
    return printable(text)


def plain(tokenizer: Tokenizer, text: str) -> str:
    """One token a line: id, tab, the token in quotes."""
    ids = tokenizer.encode(text)
    table = tokenizer.token_bytes
    return "\n".join(f"{i}\t'{visible(table[i])}'" for i in ids)


def painted(tokenizer: Tokenizer, text: str) -> str:
    """The text with each token on a ground of its own, then the ids in the same colours."""
    ids = tokenizer.encode(text)
    table = tokenizer.token_bytes
    words, numbers = [], []
    for k, i in enumerate(ids):
        start = f"\x1b[30;48;5;{PAINTS[k % len(PAINTS)]}m"
        shown = visible(table[i])
        ends = shown.endswith("\\n")  # the line goes on below, as in the text
        words.append(f"{start}{shown}{RESET}" + "\n" * ends)
        numbers.append(f"{start}{i}{RESET}")
    return "".join(words).rstrip("\n") + "\n" + " ".join(numbers)


def summary(tokenizer: Tokenizer, text: str) -> str:
    """'5 tokens, 19 characters, 19 bytes; 3.80 bytes a token'."""
    n, size = len(tokenizer.encode(text)), len(text.encode("utf-8", "replace"))
    return f"{n:,} tokens, {len(text):,} characters, {size:,} bytes; {size / max(1, n):.2f} a token"
