"""The shapes in which conversations come, each known by its columns and read row by row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from llmctl.data.conversations import toolformer, trees
from llmctl.data.conversations.messages import BadRow, Notes, note
from llmctl.data.conversations.rows import Row

Found = Iterator[tuple[list[Any], dict[str, Any]]]  # messages, other columns
CALC = re.compile(r"<<[^<>\n]*>>")  # GSM8K's marks for a calculator: 48/2 = <<48/2=24>>24
WRAPPED = re.compile(
    r"Below is an instruction that describes a task.*?### Instruction:\n(?P<ask>.*?)"
    r"(?:\n\n### Input:\n(?P<input>.*?))?\n\n### Response:\s*",
    re.DOTALL,
)
UNFILLED = re.compile(r"\{\{ ?(name|author)\ ?}\}")


@dataclass(frozen=True)
class Shape:
    """A format: what it is called, how its rows are known, how one is read."""

    name: str
    known: Callable[[dict[str, Any]], bool]
    read: Callable[[dict[str, Any], Notes], Found]
    regroup: Callable[[Iterable[Row]], Iterator[Row]] | None = None  # rows that belong together


def find_shape(row: dict[str, Any]) -> Shape | None:
    """The format a row has; None when it holds no conversation."""
    if _is_ranking(row):
        return None
    return next((shape for shape in SHAPES if shape.known(row)), None)


def refusal(row: dict[str, Any]) -> str:
    """What a row without a conversation is, and which command reads it."""
    has = f"its columns are {', '.join(map(str, list(row)[:12]))}"
    if _is_ranking(row):
        return f"rankings of answers, no conversations ({has}); `rm --data` reads them"
    if {"test_list", "code"} <= set(row) or {"prompt", "answer"} <= set(row):
        return f"problems to be graded, no conversations ({has}); `rl --data` reads them"
    if {"choices", "gold"} & set(row) or "continuation" in row or "aliases" in row:
        return f"questions of a test, no conversations ({has}); `eval --tasks` reads them"
    if {"question", "answer"} <= set(row):
        return f"questions with lists of answers ({has}); `eval --tasks` reads them"
    if "text" in row:
        return f"documents, no conversations ({has}); `tokenize` reads them"
    return (
        f"no conversations that llmctl knows ({has}); wanted messages, conversations, "
        "instruction and output, prompt and completion, question and answer, or OASST trees"
    )


def _is_ranking(row: dict[str, Any]) -> bool:
    if {"rejected", "ranked", "ranks", "responses", "completions", "pairs"} & set(row):
        return True
    return "response 1" in row


def _list(row: dict[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    if not isinstance(value, list) or not value:
        raise BadRow(f"{key} is missing or no list")
    return value


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise BadRow(f"{key} is missing or no text")
    return value


def _others(row: dict[str, Any], *used: str) -> dict[str, Any]:
    """The columns that are not part of the conversation."""
    return {k: v for k, v in row.items() if k not in used}


def _with_system(row: dict[str, Any], messages: list[Any]) -> list[Any]:
    """Messages with what the columns `system` and `tools` say put before them."""
    given = row.get("system")
    text = given if isinstance(given, str) else ""
    if tools := toolformer.described(row.get("tools")):
        text = f"{text}\n\n{tools}" if text else tools
    if not text:
        return messages
    first = messages[0] if isinstance(messages[0], dict) else {}
    if (first.get("role") or first.get("from")) != "system":
        return [{"role": "system", "content": text}, *messages]
    inner = first.get("content", first.get("value"))
    parts = inner if isinstance(inner, list) else [{"type": "text", "text": inner}]
    added = {"type": "text", "text": f"\n\n{text}"}
    return [{"role": "system", "content": [*parts, added]}, *messages[1:]]


def _messages(row: dict[str, Any], notes: Notes) -> Found:
    yield _with_system(row, _list(row, "messages")), _others(row, "messages")


def _sharegpt(row: dict[str, Any], notes: Notes) -> Found:
    turns = _list(row, "conversations")
    speaker = turns[0].get("from", turns[0].get("role")) if isinstance(turns[0], dict) else ""
    if speaker in ("gpt", "chatgpt", "assistant") and len(turns) > 1:
        note(notes, "answers before the first question left out")
        turns = turns[1:]
    yield _with_system(row, turns), _others(row, "conversations")


def _alpaca(row: dict[str, Any], notes: Notes) -> Found:
    ask, more = _text(row, "instruction"), row.get("input") or ""
    key = "output" if "output" in row else "response"
    answer = _text(row, key)
    if not isinstance(more, str):
        raise BadRow("input is no text")
    if found := UNFILLED.search(answer):
        raise BadRow(f"{found[0]} stands where a name should; put it into the file first (sed)")
    extra = _others(row, "instruction", "input", "history", "system", key)
    if toolformer.is_row(ask):
        yield toolformer.converted(ask, more, answer, notes), extra
        return
    past: list[Any] = []
    for pair in row.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow("history is no list of pairs")
        past += _pair(*pair)
    yield _with_system(row, [*past, *_pair(f"{ask}\n\n{more}" if more else ask, answer)]), extra


def _pair(ask: Any, answer: Any) -> list[Any]:
    return [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]


def _gsm8k(row: dict[str, Any], notes: Notes) -> Found:
    """The worked steps without the calculator's marks; "#### 72" becomes a sentence."""
    steps, mark, final = _text(row, "answer").rpartition("####")
    if not mark:
        raise BadRow("no #### before the final answer")
    text = f"{CALC.sub('', steps).strip()}\nThe answer is {final.strip()}."
    yield _pair(_text(row, "question"), text.strip()), _others(row, "question", "answer")


def _questions(row: dict[str, Any], notes: Notes) -> Found:
    yield _pair(_text(row, "question"), _text(row, "answer")), _others(row, "question", "answer")


def _completion(row: dict[str, Any], notes: Notes) -> Found:
    key = "completion" if "completion" in row else "response"
    ask, answer = row.get("prompt"), row.get(key)
    extra = _others(row, "prompt", key, "system")
    if isinstance(ask, list) and isinstance(answer, list):
        yield [*ask, *answer], extra
        return
    ask = _text(row, "prompt")
    if wrapped := WRAPPED.fullmatch(ask):
        note(notes, "wrapping of an instruction taken off")
        ask = "\n\n".join(part for part in (wrapped["ask"], wrapped["input"]) if part)
    yield _with_system(row, _pair(ask, _text(row, key))), extra


def _has(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: all(key in row for key in keys)


def _has_turns(key: str, *inner: str) -> Callable[[dict[str, Any]], bool]:
    def known(row: dict[str, Any]) -> bool:
        turns = row.get(key)
        first = turns[0] if isinstance(turns, list) and turns else None
        return isinstance(first, dict) and all(k in first for k in inner)

    return known


def _is_gsm8k(row: dict[str, Any]) -> bool:
    return isinstance(row.get("question"), str) and "####" in str(row.get("answer"))


def _is_question(row: dict[str, Any]) -> bool:
    texts = isinstance(row.get("question"), str) and isinstance(row.get("answer"), str)
    return texts and "choices" not in row


def _is_alpaca(row: dict[str, Any]) -> bool:
    return "instruction" in row and ("output" in row or "response" in row)


def _is_toolformer(row: dict[str, Any]) -> bool:
    return _is_alpaca(row) and toolformer.is_row(str(row["instruction"]))


SHAPES = (
    Shape("oasst", trees.is_tree, trees.read),
    Shape("oasst", trees.is_message, trees.read, trees.regroup),
    Shape("messages", _has("messages"), _messages),
    Shape("sharegpt", _has_turns("conversations", "from"), _sharegpt),
    Shape("messages", _has("conversations"), _sharegpt),
    Shape("toolformer", _is_toolformer, _alpaca),
    Shape("alpaca", _is_alpaca, _alpaca),
    Shape("gsm8k", _is_gsm8k, _gsm8k),
    Shape("question/answer", _is_question, _questions),
    Shape("prompt/completion", _has("prompt", "completion"), _completion),
    Shape("prompt/response", _has("prompt", "response"), _completion),
)
