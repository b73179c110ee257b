"""Whether replies to a fact's questions are right: by its aliases, or by a model that judges."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from llmctl.core import console
from llmctl.evals.facts import is_right as begins_right
from llmctl.evals.probe import Found
from llmctl.evals.respondents import Message, Respondent
from llmctl.evals.tasks import match

LONGEST = 1000  # characters of a reply that a judge sees
REPLY_TOKENS = 8
JUDGE = """Does the reply give the right answer? The reply may say more, or say it in other words.

Question: {question}
Right answer: {answer}
Reply: {reply}

Answer with one word, yes or no."""


def judge_by_match(found: Sequence[Found]) -> None:
    """A reply is right when it holds the value or an alias as whole words, and is no refusal.

    A completion has to begin with it.
    """
    for one in found:
        answers = one.fact.answers
        one.verdicts = [
            begins_right(reply, answers)
            if asked in one.fact.prompts
            else match.is_right(reply, answers)
            for asked, reply in zip(one.asked, one.replies)
        ]


def judge_by_model(
    found: Sequence[Found],
    judge: Respondent,
    *,
    seed: int,
    on_reply: Callable[[], None] = lambda: None,
) -> int:
    """Refusals and empty replies are wrong; a model judges the others, each pair once.

    Returns how many verdicts were neither yes nor no; these count as wrong.
    """
    prompts: dict[tuple[str, str], list[Message]] = {}
    for one in found:
        for asked, reply in zip(one.asked, one.replies):
            if not reply or match.is_refusal(reply):
                continue
            text = JUDGE.format(
                question=asked, answer=one.fact.answers[0], reply=" ".join(reply.split())[:LONGEST]
            )
            prompts[asked, reply] = [{"role": "user", "content": text}]
    said = judge.reply(
        list(prompts.values()), max_tokens=REPLY_TOKENS, seed=seed, on_reply=on_reply
    )
    yes: dict[tuple[str, str], bool] = {}
    unclear = 0
    for key, word in zip(prompts, said):
        first = re.match(r"\W*(yes|no)\b", word, re.IGNORECASE)
        unclear += first is None
        yes[key] = first is not None and first[1].lower() == "yes"
    for one in found:
        one.verdicts = [yes.get(pair, False) for pair in zip(one.asked, one.replies)]
    if unclear:
        console.warn(f"{unclear:,} of {len(said):,} verdicts are neither yes nor no: counted wrong")
    return unclear
