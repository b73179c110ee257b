"""Two sides, one of them preferred: TRL's chosen and rejected, HH-RLHF, LLaMA-Factory, Auto-J,
PandaLM. Each reader takes one row and returns rankings, or raises Unusable with the reason."""

from __future__ import annotations

import math
import re
from typing import Any

from llmctl.data.preferences.ranking import (
    Message,
    Ranking,
    Uninformative,
    Unusable,
    after_common_prompt,
    as_response,
    majority,
    message_of,
    messages_of,
)

Row = dict[str, Any]
HELD_OUT = ("test", "val", "valid", "validation", "eval", "dev")
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}


def split_of(row: Row) -> str:
    """'train', 'test' or '' by the row's own split column."""
    word = row.get("split")
    if not isinstance(word, str) or not word:
        return ""
    return "test" if word.lower().split("_")[0] in HELD_OUT else "train"


def text_of(value: Any, what: str) -> str:
    """A string, or Unusable: PandaLM, for one, holds outputs that are JSON true."""
    if not isinstance(value, str):
        raise Unusable(f"{what} that is no text")
    return value


def ask(text: str, more: str = "") -> list[Message]:
    """One user message: an instruction and, under it, what it is about."""
    return [{"role": "user", "content": f"{text}\n\n{more}" if more.strip() else text}]


def pair(prompt: list[Message], better: Any, worse: Any, row: Row, where: str) -> list[Ranking]:
    """The ranking of two sides."""
    margin = _margin(row.get("margin"))
    return [Ranking(prompt, [better, worse], [1, 2], where, split_of(row), margin=margin)]


def _margin(value: Any) -> float:
    if value is None:
        return 0.0
    try:
        if isinstance(value, bool) or not math.isfinite(value):
            raise TypeError
        return float(value)
    except (TypeError, OverflowError):  # no number, or one beyond what a float holds
        raise Unusable("a margin that is no finite number") from None


def hh(row: Row, where: str) -> list[Ranking]:
    """HH-RLHF: both sides are whole dialogues as text; the turns they share are the prompt."""
    sides = [_dialogue(text_of(row[key], key)) for key in ("chosen", "rejected")]
    prompt, (better, worse) = after_common_prompt(sides)
    if not prompt:
        raise Unusable("no common prompt")
    return pair(prompt, better, worse, row, where)


def _dialogue(text: str) -> list[Message]:
    head, *parts = _HH_TURN.split(text)
    if head.strip() or not parts:
        raise Unusable("no dialogue of Human: and Assistant:")
    said = zip(parts[::2], parts[1::2])
    return [{"role": _HH_ROLES[who], "content": what.strip()} for who, what in said]


def is_hh(row: Row) -> bool:
    """Whether both sides are texts in HH-RLHF's form."""
    sides = row.get("chosen"), row.get("rejected")
    return all(isinstance(s, str) and _HH_TURN.match(s) for s in sides)


def trl(row: Row, where: str) -> list[Ranking]:
    """TRL: `prompt` or none, chosen and rejected, each a text or messages.

    Messages without `prompt`, or that repeat it, have the prompt that both sides begin with; a side
    that does not repeat it gets it before it. Texts without `prompt` have none.
    """
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    said = _prompt(prompt)
    if isinstance(chosen, str) and isinstance(rejected, str):
        return pair(said, chosen, rejected, row, where)
    sides = [messages_of(chosen, "chosen"), messages_of(rejected, "rejected")]
    if said and not any(_begins_with_question(side) for side in sides):
        return pair(said, as_response(sides[0]), as_response(sides[1]), row, where)
    whole = [side if _repeats(side, said) else [*said, *side] for side in sides]
    common, (better, worse) = after_common_prompt(whole)
    return pair(common, better, worse, row, where)


def _prompt(prompt: Any) -> list[Message]:
    if prompt is None or prompt == "" or prompt == []:
        return []
    return ask(prompt) if isinstance(prompt, str) else messages_of(prompt, "prompt")


def _begins_with_question(side: list[Message]) -> bool:
    return len(side) > 1 and side[0]["role"] in ("system", "user")


def _repeats(side: list[Message], said: list[Message]) -> bool:
    """Whether a side holds the prompt: other messages may stand around its own."""
    here = [(m["role"], m["content"].strip()) for m in side[:-1]]
    every = all((m["role"], m["content"].strip()) in here for m in said)
    return every and (not said or _begins_with_question(side))


def llama_factory(row: Row, where: str) -> list[Ranking]:
    """LLaMA-Factory: `conversations` up to the answer, then one message on each side."""
    prompt = messages_of(row["conversations"], "conversations")
    better, worse = (as_response([message_of(row[k], k)]) for k in ("chosen", "rejected"))
    return pair(prompt, better, worse, row, where)


def auto_j(row: Row, where: str) -> list[Ranking]:
    """Auto-J: label 0 prefers response 1, 1 response 2, 2 is a tie."""
    sides = [text_of(row[key], key) for key in ("response 1", "response 2")]
    label = row["label"]
    if label not in (0, 1, 2) or isinstance(label, bool):
        raise Unusable(f"label {str(label)[:20]} (0, 1 or 2 is wanted)")
    if label == 2:
        raise Uninformative("tied")
    return pair(ask(text_of(row["prompt"], "prompt")), sides[label], sides[1 - label], row, where)


def panda_lm(row: Row, where: str) -> list[Ranking]:
    """PandaLM grouped by prompt: `outputs` by model, and pairs with three votes each.

    Vote 1 is for a, 2 for b, 0 a tie; the majority counts. One ranking holds all pairs of a prompt,
    so that each output is scored once; it need not be an order. Outputs that are no text go.
    """
    names = [n for n, text in row["outputs"].items() if isinstance(text, str)]
    left_out = ["an output that is no text"] * (len(row["outputs"]) - len(names))
    known = []
    for entry in row["pairs"]:
        vote = majority(_votes(entry["votes"]))
        if not vote:
            left_out.append("tied")
        elif entry["a"] in names and entry["b"] in names:
            sides = names.index(entry["a"]), names.index(entry["b"])
            known.append(sides if vote == 1 else sides[::-1])
    if not known:
        raise Uninformative("tied")
    lost = [sum(worse == i for _, worse in known) for i in range(len(names))]
    prompt = ask(text_of(row["instruction"], "instruction"), str(row.get("input") or ""))
    return [
        Ranking(
            prompt,
            [row["outputs"][name] for name in names],
            [1 + n for n in lost],
            where,
            split_of(row),
            known_pairs=tuple(known),
            left_out=tuple(left_out),
        )
    ]


def panda_lm_rows(row: Row, where: str) -> list[Ranking]:
    """PandaLM's own test file: one pair a row, one column an annotator."""
    sides = [text_of(row[key], key) for key in ("response1", "response2")]
    vote = majority(_votes([row[key] for key in sorted(row) if key.startswith("annotator")]))
    if not vote:
        raise Uninformative("tied")
    prompt = ask(text_of(row["instruction"], "instruction"), str(row.get("input") or ""))
    return pair(prompt, sides[vote - 1], sides[2 - vote], row, where)


def _votes(votes: Any) -> list[int]:
    if not isinstance(votes, list) or not votes:
        raise Unusable("no votes")
    if any(isinstance(v, bool) or v not in (0, 1, 2) for v in votes):
        raise Unusable("a vote that is not 0, 1 or 2")
    return votes
