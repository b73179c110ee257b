"""Facts of real text: a model reads a passage and writes a question with a short answer.

What it writes is checked, since it is used to teach: JSON, one question that stands alone, and an
answer that stands in the passage and not in the question.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.errors import BadInput
from llmctl.core.seeds import derive
from llmctl.data.documents import find_sources, plan_units
from llmctl.data.rows import read_unit
from llmctl.evals.probe import Fact
from llmctl.evals.respondents import Message, Respondent
from llmctl.evals.tasks import match
from llmctl.reward.verifiers import normalised

WORDS = (25, 120)  # of a passage
LONGEST_TEXT = 1 << 20  # characters of a document that are looked at
QUESTION, ANSWER = (8, 300), (1, 80)  # characters, least and most
MAX_WORDS = 10  # of an answer
REPLY_TOKENS = 200
_LEANS = re.compile(r"\b(?:passage|text|paragraph|excerpt|article|author|above|mentioned)\b", re.I)
ASK = """Read the passage. Write one question about a fact that it states, and the answer.

The question must make sense to somebody who has not seen the passage, so it names what or whom it \
is about. The answer is a few words copied exactly from the passage. Reply with JSON only:
{{"question": "...", "answer": "..."}}

Passage:
{passage}"""
EXAMPLE = (  # shown to the asker first: a small model needs to see the form
    "Maria Holm opened the first lighthouse of the island in 1874. It stood on the northern cliff "
    "and burned oil until a storm took its roof.",
    {"question": "When did Maria Holm open the first lighthouse of the island?", "answer": "1874"},
)


@dataclass(frozen=True)
class Passage:
    """A stretch of a document. key decides whether it is drawn."""

    key: str
    text: str


def draw_passages(documents: Path, n: int, seed: int) -> list[Passage]:
    """n passages of the documents, at most one of each, drawn by seed whatever their order.

    documents: an artifact, or parquet, JSONL or text files. BadInput (65) without any passage.
    """
    units = plan_units(find_sources([documents]), "text")
    texts = (
        text
        for unit in units
        for rows in read_unit(unit, "text")
        for text in rows.texts.to_pylist()
    )
    best = (min(found, key=lambda p: p.key) for t in texts if (found := list(_cut(t, seed))))
    unique = {p.key: p for p in heapq.nsmallest(2 * n, best, key=lambda p: p.key)}
    drawn = sorted(unique.values(), key=lambda p: p.key)[:n]
    if not drawn:
        raise BadInput(f"{documents}: no paragraph of {WORDS[0]} words or more to ask about")
    return drawn


def _cut(text: str, seed: int) -> Iterator[Passage]:
    """The passages of a text: paragraphs, joined while short, cut at sentences where long."""
    held: list[str] = []
    for sentence in _sentences(text[:LONGEST_TEXT]):
        words = sentence.split()
        if held and len(held) + len(words) > WORDS[1]:
            yield from _passage(held, seed)
            held = []
        held += words
        if sentence.endswith("\n") and len(held) >= WORDS[0]:
            yield from _passage(held, seed)
            held = []
    yield from _passage(held, seed)


def _sentences(text: str) -> Iterator[str]:
    """Sentences; the last one of a paragraph ends in a newline."""
    for paragraph in text.split("\n"):
        if pieces := [p for p in re.split(r"(?<=[.!?])\s+", paragraph.strip()) if p]:
            yield from pieces[:-1]
            yield f"{pieces[-1]}\n"


def _passage(words: Sequence[str], seed: int) -> Iterator[Passage]:
    if WORDS[0] <= len(words) <= WORDS[1]:
        text = " ".join(words)
        yield Passage(hashlib.sha256(f"{seed} {text}".encode()).hexdigest(), text)


def write_questions(
    asker: Respondent,
    passages: Sequence[Passage],
    *,
    held_out: float,
    seed: int,
    on_reply: Callable[[], None] = lambda: None,
) -> tuple[list[Fact], Counter[str]]:
    """A fact of each passage whose question passes the checks, and why others did not.

    held_out: the share that is measured and never trained on.
    """
    prompts = [ask_messages(passage.text) for passage in passages]
    replies = asker.reply(prompts, max_tokens=REPLY_TOKENS, seed=seed, on_reply=on_reply)
    facts: list[Fact] = []
    refused: Counter[str] = Counter()
    seen: set[str] = set()
    for passage, reply in zip(passages, replies):
        try:
            question, answer = checked(reply, passage.text)
        except ValueError as error:
            refused[str(error)] += 1
            continue
        if (same := normalised(question)) in seen:
            refused["the same question twice"] += 1
            continue
        seen.add(same)
        test = derive(seed, "held out", passage.key) % 10_000 < 10_000 * held_out
        fact_id = f"p-{passage.key[:12]}"
        split = "test" if test else "train"
        facts.append(Fact(fact_id, (question,), (answer,), split, passage=passage.text))
    return facts, refused


def ask_messages(passage: str) -> list[Message]:
    """The conversation that asks for a question about a passage, after an example."""
    text, answer = EXAMPLE
    return [
        {"role": "user", "content": ASK.format(passage=text)},
        {"role": "assistant", "content": json.dumps(answer)},
        {"role": "user", "content": ASK.format(passage=passage)},
    ]


def checked(reply: str, passage: str) -> tuple[str, str]:
    """(question, answer) in a reply. ValueError says what is wrong with it."""
    begin = reply.find("{")
    if begin < 0:
        raise ValueError("no JSON")
    try:
        found, _ = json.JSONDecoder().raw_decode(reply[begin : begin + 10_000])
    except (ValueError, RecursionError):
        raise ValueError("broken JSON") from None
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    question, answer = found.get("question"), found.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise ValueError("question or answer is no text")
    question, answer = " ".join(question.split()), " ".join(answer.split()).rstrip(".")
    if not QUESTION[0] <= len(question) <= QUESTION[1] or not question.endswith("?"):
        raise ValueError("no question of a sensible length that ends in ?")
    if not ANSWER[0] <= len(answer) <= ANSWER[1] or len(answer.split()) > MAX_WORDS:
        raise ValueError("the answer is empty or too long")
    if _LEANS.search(question):
        raise ValueError("the question leans on the passage")
    if not match.contains(passage, [answer]):
        raise ValueError("the answer does not stand in the passage")
    if match.contains(question, [answer]):
        raise ValueError("the answer stands in the question")
    return question, answer
