"""K responses in an order: our own rows, OASST's rankings and its trees."""

from __future__ import annotations

from typing import Any

from llmctl.data.conversations import trees
from llmctl.data.preferences.pairs import Row, ask, split_of, text_of
from llmctl.data.preferences.ranking import (
    Message,
    Ranking,
    Unusable,
    as_response,
    messages_of,
)

DEEPEST = 200  # messages of a tree from root to leaf


def own(row: Row, where: str) -> list[Ranking]:
    """prompt (messages or a text), responses, ranks (1 = best, ties allowed), split."""
    prompt, responses, ranks = row["prompt"], row["responses"], row["ranks"]
    said = ask(prompt) if isinstance(prompt, str) else messages_of(prompt, "prompt")
    if not isinstance(responses, list) or not isinstance(ranks, list):
        raise Unusable("responses and ranks are no lists")
    if len(responses) != len(ranks) or len(ranks) < 2:
        raise Unusable(f"{len(responses)} responses with {len(ranks)} ranks")
    if any(type(r) is not int for r in ranks):
        raise Unusable("a rank that is no whole number")
    each = [
        r if isinstance(r, str) else as_response(messages_of(r, "a response")) for r in responses
    ]
    return [Ranking(said, each, ranks, where, split_of(row))]


def oasst_rankings(row: Row, where: str) -> list[Ranking]:
    """messages, then `ranked`: replies, best first; `tree` names the conversation tree."""
    replies = [text_of(r, "a reply") for r in row["ranked"]]
    if len(replies) < 2:
        raise Unusable("fewer than two replies")
    prompt = messages_of(row["messages"], "messages")
    group = f"tree {row['tree']}" if row.get("tree") else ""
    ranks = list(range(1, len(replies) + 1))
    return [Ranking(prompt, list(replies), ranks, where, split_of(row), group)]


def oasst_tree(row: Row, where: str) -> list[Ranking]:
    """An OASST tree: the assistant's replies to each message that people have ranked.

    rank 0 is best; replies without a rank, deleted or failed in review, are left out.
    """
    found: list[Ranking] = []
    group = f"tree {row['message_tree_id']}"
    todo: list[tuple[list[Message], Any]] = [([], row["prompt"])]
    while todo:
        before, node = todo.pop()
        if not isinstance(node, dict) or node.get("role") not in ("prompter", "assistant"):
            raise Unusable("a message that is neither prompter's nor assistant's")
        if len(before) >= DEEPEST:
            raise Unusable(f"a tree deeper than {DEEPEST} messages")
        role = "user" if node["role"] == "prompter" else "assistant"
        said = [*before, {"role": role, "content": text_of(node.get("text"), "a message")}]
        replies = [r for r in node.get("replies") or [] if trees.usable(r or {})]
        todo += [(said, reply) for reply in reversed(replies)]
        ranked = [r for r in replies if role == "user" and type(r.get("rank")) is int]
        if len(ranked) > 1:
            texts: list[Any] = [text_of(r.get("text"), "a reply") for r in ranked]
            ranks = [r["rank"] + 1 for r in ranked]
            found.append(Ranking(said, texts, ranks, where, group=group))
    return found
