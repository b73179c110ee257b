"""What a model knows, and conversations that teach it to say so (Llama 3, section 4.3.6).

A fact is asked N times at a temperature and every reply judged. Right often enough: known, and it
becomes a confident answer; right hardly ever: unknown, and it becomes a refusal; what lies between
becomes nothing. Refusals are at most a given share of the output, since a small model knows little
and would learn to refuse everything. Held-out facts are asked as well, but never written out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from llmctl.core.seeds import derive
from llmctl.evals.tasks import match
from llmctl.evals.tasks.ask import Subject
from llmctl.evals.tasks.generate import answer_all
from llmctl.infer.params import SamplingParams

REFUSALS = (
    "I don't know.",
    "I don't know that, sorry.",
    "Sorry, I don't know.",
    "I am not sure about that, so I would rather not guess.",
    "I have no reliable knowledge of that.",
)
LEAD = "{lead}"  # in a phrasing: an answer to the question, up to where its value would stand
AT_ONCE = 1024  # replies in one call of the engine
LONGEST_KEPT = 300  # characters of a model's own reply that is kept as a confident answer
Verdict = Literal["known", "unsure", "unknown"]
Message = dict[str, Any]


@dataclass(frozen=True)
class Fact:
    """Something to be asked. prompts: beginnings that end right before the value, where known;
    group: a row of the table; split: train facts become conversations, test facts are held out."""

    fact_id: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]  # the value first, then its aliases
    split: str = "train"
    group: str = ""
    prompts: tuple[str, ...] = ()
    passage: str = ""  # where it was found, for a judge


@dataclass
class Found:
    """What a model said about one fact. asked[i] got replies[i]."""

    fact: Fact
    asked: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    verdicts: list[bool] = field(default_factory=list)  # right or not

    @property
    def right(self) -> int:
        return sum(self.verdicts)

    @property
    def refused(self) -> int:
        return sum(match.is_refusal(reply) for reply in self.replies)

    def row(self, known_at: int, unknown_at: int) -> dict[str, Any]:
        """As asked.jsonl has it."""
        fact = self.fact
        return {
            "fact_id": fact.fact_id,
            "split": fact.split,
            "group": fact.group,
            "questions": list(fact.questions),
            "value": fact.answers[0],
            "verdict": verdict(self.right, known_at, unknown_at),
            "right": self.right,
            "refused": self.refused,
            "asked": self.asked,
            "replies": self.replies,
            **({"passage": fact.passage} if fact.passage else {}),
        }


def verdict(right: int, known_at: int, unknown_at: int) -> Verdict:
    """known from known_at right replies on, unknown up to unknown_at, unsure between."""
    return "known" if right >= known_at else "unknown" if right <= unknown_at else "unsure"


def ask_facts(
    subject: Subject,
    facts: Sequence[Fact],
    *,
    samples: int,
    temperature: float,
    max_tokens: int,
    seed: int,
    on_answer: Callable[[], None] = lambda: None,
) -> list[Found]:
    """Ask each fact `samples` times, its phrasings in turn.

    A model without a chat format completes a fact's prompts where it has any, else it is asked in
    plain text, "Question: …\\nAnswer:".
    """
    completes = subject.format is None and all(fact.prompts for fact in facts)
    if completes:  # it has to begin with the value, so no more than that is of use
        longest = subject.engine.tokenizer.encode_batch([f" {a}" for f in facts for a in f.answers])
        max_tokens = min(max_tokens, 2 + max(map(len, longest), default=0))
    found = [Found(fact) for fact in facts]
    turns = []
    for one in found:
        phrasings = one.fact.prompts if completes else one.fact.questions
        one.asked = [phrasings[i % len(phrasings)] for i in range(samples)]
        turns += [(one, text) for text in one.asked]
    for at in range(0, len(turns), AT_ONCE):
        part = turns[at : at + AT_ONCE]
        params = SamplingParams(
            max_tokens=max_tokens, temperature=temperature, seed=derive(seed, "probe", at)
        )
        texts = [text for _, text in part]
        reply = _completions if completes else _answers
        for (one, _), said in zip(part, reply(subject, texts, params, on_answer)):
            one.replies.append(said)
    return found


def _answers(
    subject: Subject, texts: list[str], params: SamplingParams, on_answer: Callable[[], None]
) -> list[str]:
    prompts = [[{"role": "user", "content": text}] for text in texts]
    start = subject.start.ids
    answers = answer_all(
        subject.engine, subject.format, prompts, params, start=start, on_answer=on_answer
    )
    return [answer.text for answer in answers]


def _completions(
    subject: Subject, texts: list[str], params: SamplingParams, on_answer: Callable[[], None]
) -> list[str]:
    """What follows each text, as far as its sentence goes."""
    encoded = subject.engine.tokenizer.encode_batch(texts)
    ids = [[*subject.start.ids, *one] for one in encoded]
    done = subject.engine.generate(
        ids, params, lambda event: on_answer() if event.completion.finish_reason else None
    )
    return [match.first_sentence(one.text) for one in done]


def refusal_row(fact: Fact, question: str, phrasings: Sequence[str], rng: Random) -> list[Message]:
    """A question that the model cannot answer, and a refusal.

    A small model may come to look a fact up only where its value should follow: there a phrasing
    with LEAD has it stop. Facts of real text have no such beginnings, and get a phrasing without.
    """
    if not fact.prompts:
        phrasings = [phrase for phrase in phrasings if LEAD not in phrase] or REFUSALS
    said = rng.choice(list(phrasings))
    return _exchange(
        question, said.replace(LEAD, rng.choice(fact.prompts)) if LEAD in said else said
    )


def confident_row(found: Found, question: str, own_words: bool, rng: Random) -> list[Message]:
    """A question that the model can answer, and the answer.

    As a sentence where the fact has one; else, with own_words, what the model said most often when
    it was right; else the value alone.
    """
    fact = found.fact
    value = fact.answers[0]
    if fact.prompts:
        return _exchange(question, f"{rng.choice(list(fact.prompts))} {value}.")
    said = Counter(
        reply
        for reply, right in zip(found.replies, found.verdicts)
        if right and len(reply) <= LONGEST_KEPT
    )
    if own_words and said:
        return _exchange(question, max(said, key=lambda reply: (said[reply], reply)))
    return _exchange(question, f"{value[0].upper()}{value[1:]}{'' if value[-1] in '.!?' else '.'}")


def _exchange(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@dataclass(frozen=True)
class Written:
    """The conversations, and how many refusals the share left out."""

    rows: list[dict[str, Any]]
    left_out: int

    def count(self, kind: str) -> int:
        return sum(row["kind"] == kind for row in self.rows)


def conversations(
    found: Sequence[Found],
    *,
    known_at: int,
    unknown_at: int,
    refusal_share: float,
    phrasings: Sequence[str],
    own_words: bool,
    seed: int,
) -> Written:
    """Conversations about the train facts, one for each phrasing of the question.

    refusal_share: most refusals among them, 0..1; which stay is drawn by seed, whole facts.
    """
    rows: list[dict[str, Any]] = []
    by_fact: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        kind = verdict(one.right, known_at, unknown_at)
        if one.fact.split != "train" or kind == "unsure":
            continue
        for number, question in enumerate(dict.fromkeys(one.fact.questions)):
            rng = Random(derive(seed, "row", one.fact.fact_id, number))
            messages = (
                confident_row(one, question, own_words, rng)
                if kind == "known"
                else refusal_row(one.fact, question, phrasings, rng)
            )
            row = {
                "messages": messages,
                "kind": kind,
                "fact_id": one.fact.fact_id,
                "right": one.right,
                "asked": len(one.replies),
                "question": question,
            }
            rows.append(row)
            if kind == "unknown":
                by_fact.setdefault(one.fact.fact_id, []).append(row)
    n_known = sum(row["kind"] == "known" for row in rows)
    kept = _within(by_fact, n_known, refusal_share, seed)
    left = [row for row in rows if row["kind"] == "known" or row["fact_id"] in kept]
    return Written(left, len(rows) - len(left))


def _within(
    refusals: Mapping[str, Sequence[Any]], n_known: int, share: float, seed: int
) -> set[str]:
    """The facts whose refusals stay so that they are at most `share` of all rows."""
    if share >= 1:
        return set(refusals)
    room = int(share / (1 - share) * n_known + 1e-9)
    kept: set[str] = set()
    order = sorted(refusals)
    Random(derive(seed, "share")).shuffle(order)
    for fact_id in order:
        if len(refusals[fact_id]) <= room:
            room -= len(refusals[fact_id])
            kept.add(fact_id)
    return kept
