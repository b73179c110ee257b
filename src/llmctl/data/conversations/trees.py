"""OASST's trees of messages: every branch of questions, the best answer to each.

A question often has several answers, ranked by people (0 is best). Learning from all of them would
teach the worst beside the best, so only the best goes on; its follow-up questions all do, each in
a conversation of its own. Messages that were deleted or failed review are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from llmctl.data.conversations.messages import BadRow, Notes
from llmctl.data.conversations.rows import Row

DEPTH = 200  # messages of a path


def is_tree(row: dict[str, Any]) -> bool:
    """Whether a row is a whole tree."""
    prompt = row.get("prompt")
    return isinstance(prompt, dict) and "text" in prompt and "replies" in prompt


def is_message(row: dict[str, Any]) -> bool:
    """Whether a row is one message of a tree."""
    return isinstance(row.get("message_id"), str) and {"text", "role"} <= set(row)


def regroup(rows: Iterable[Row]) -> Iterator[Row]:
    """Trees from rows that are messages; a reply to what is not there is no row to use."""
    nodes: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}
    roots: list[tuple[dict[str, Any], str]] = []
    for row in rows:
        if row.value is None or not is_message(row.value):
            yield Row(None, row.where, row.why or "no message of a tree")
            continue
        nodes[row.value["message_id"]] = {**row.value, "replies": []}
        places[row.value["message_id"]] = row.where
        if not row.value.get("parent_id"):
            roots.append((nodes[row.value["message_id"]], row.where))
    for name, node in nodes.items():
        parent = nodes.get(str(node.get("parent_id")))
        if parent is not None:
            parent["replies"].append(node)
        elif node.get("parent_id"):
            yield Row(None, places[name], "a reply whose question is missing")
    for node, where in roots:
        yield Row({"prompt": node}, where)


def read(row: dict[str, Any], notes: Notes) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """The paths of a tree that end in an answer, with the tree's id and language."""
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise BadRow("no tree of messages")
    extra = {"tree": row.get("message_tree_id") or root.get("message_id"), "lang": root.get("lang")}
    for path in paths(root):
        turns = [{"role": m.get("role"), "content": m.get("text")} for m in path]
        yield turns, {**extra, "rank": path[-1].get("rank")}


def paths(root: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Paths from the first question to a last answer, the best answer at each question."""
    waiting: list[list[dict[str, Any]]] = [[root]] if usable(root) else []
    while waiting:
        path = waiting.pop()
        replies = path[-1].get("replies") or []
        replies = [r for r in replies if isinstance(r, dict) and usable(r)]
        answers = [r for r in replies if r.get("role") == "assistant"]
        questions = [r for r in replies if r.get("role") != "assistant"]
        if path[-1].get("role") == "assistant":
            going_on = [q for q in questions if _answered(q)]
            if len(path) < DEPTH and going_on:
                waiting += [[*path, q] for q in reversed(going_on)]
            else:
                yield path
        elif answers:
            waiting.append([*path, min(answers, key=_rank)])


def usable(message: dict[str, Any]) -> bool:
    """Whether people let a message stand."""
    return not message.get("deleted") and message.get("review_result") is not False


def _answered(question: dict[str, Any]) -> bool:
    replies = question.get("replies") or []
    return any(isinstance(r, dict) and r.get("role") == "assistant" and usable(r) for r in replies)


def _rank(message: dict[str, Any]) -> float:
    """0 is best; an answer nobody ranked comes last."""
    rank = message.get("rank")
    return rank if isinstance(rank, int | float) else float("inf")
