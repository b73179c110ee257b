"""What a model can do in the synthetic world, ability by ability, on held-out items.

    answers          a question gets an answer that ends (format)
    known            facts that many pages state, each asked in two ways
    strangers        people nobody has heard of: right is to say so
    rare             facts that one page states, or a few, from memory
    context          the same facts, with a passage that tells each before the question
    search           the same facts, with the search tool
    steps            word problems, worked
    direct           the same problems, the number at once
    python           the same problems, with the python tool
    problems         harder ones, of three and four steps, worked
    letters          spelling and counting letters, by heart
    letters-python   the same, with the python tool

The subjects asked about never occur in conversations, the words and problems neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from llmctl.artifacts.lineage import find_upstream
from llmctl.artifacts.store import Artifact
from llmctl.core import console
from llmctl.core.console import render_table
from llmctl.core.errors import UsageError, did_you_mean
from llmctl.core.seeds import derive
from llmctl.evals.intervals import wilson
from llmctl.evals.tasks.generate import Answer, answer_all
from llmctl.evals.tasks.match import is_refusal, is_right
from llmctl.evals.tasks.several import names_of
from llmctl.infer.engine import Engine
from llmctl.infer.opening import model_line, open_engine
from llmctl.infer.params import SamplingParams
from llmctl.infer.toolbox import ToolBox
from llmctl.infer.tools import open_tools
from llmctl.reward.numbers import number_of
from llmctl.synth.facts import KNOWN, RARE
from llmctl.synth.tool_chat import DIRECT
from llmctl.tokenizer.chat import ChatFormat, chat_format

PROBLEMS = 300  # word problems asked, of each kind of answer
EASY, HARD = (1, 2, 3), (3, 4)  # steps of a problem


@dataclass(frozen=True)
class Item:
    """One question. answers: what is right; none: only a refusal is."""

    prompt: str
    answers: tuple[str, ...]


Right = Callable[[Item, Answer], bool]


def names_it(item: Item, answer: Answer) -> bool:
    """The reply gives the value asked for."""
    return is_right(answer.text, item.answers)


def says_so(item: Item, answer: Answer) -> bool:
    """The reply admits that it does not know."""
    return is_refusal(answer.text)


def same_number(item: Item, answer: Answer) -> bool:
    """The reply's last number is the answer."""
    return number_of(answer.text) == number_of(item.answers[0])


def same_letters(item: Item, answer: Answer) -> bool:
    """The reply is the letters in order, with or without a full stop, or holds the number."""
    if item.answers[0].isdigit():
        return same_number(item, answer)
    return answer.text.strip(" .") == item.answers[0]


def ends(item: Item, answer: Answer) -> bool:
    """The reply says something and comes to an end by itself."""
    return bool(answer.text) and answer.finish_reason == "stop"


@dataclass(frozen=True)
class Ability:
    """items: which questions; right: when an answer counts; tools: what the model may use."""

    items: str
    right: Right
    tools: tuple[str, ...] = ()
    suffix: str = ""


ABILITIES = {
    "answers": Ability("known", ends),
    "known": Ability("known", names_it),
    "strangers": Ability("strangers", says_so),
    "rare": Ability("rare", names_it),
    "context": Ability("context", names_it),
    "search": Ability("rare", names_it, tools=("search",)),
    "steps": Ability("easy", same_number),
    "direct": Ability("easy", same_number, suffix=DIRECT),
    "python": Ability("easy", same_number, tools=("python",)),
    "problems": Ability("hard", same_number),
    "letters": Ability("letters", same_letters),
    "letters-python": Ability("letters", same_letters, tools=("python",)),
}


@dataclass(frozen=True)
class Measured:
    """How many of an ability's items were right, and every answer. no_room: items left out."""

    name: str
    right: int
    n: int
    answers: list[dict[str, Any]]
    no_room: int = 0

    def as_json(self) -> dict[str, Any]:
        """Counts, rate and 95% interval (Wilson)."""
        low, high = wilson(self.right, self.n)
        rate = self.right / max(1, self.n)
        found = {"right": self.right, "n": self.n, "rate": rate, "low": low, "high": high}
        return found | ({"no_room": self.no_room} if self.no_room else {})


class Questions:
    """The held-out items of a web artifact."""

    def __init__(self, web: Path, limit: int = 0, seed: int = 0) -> None:
        self.web, self.limit, self.seed = web, limit, seed

    def of(self, name: str) -> list[Item]:
        """The items of one kind: known, strangers, rare, context, easy, hard, letters. At most
        `limit`, drawn by seed: the same ones for every ability that asks them."""
        items = self._all(name)
        if not self.limit or self.limit >= len(items):
            return items
        drawn = Random(derive(self.seed, name)).sample(range(len(items)), self.limit)
        return [items[n] for n in sorted(drawn)]

    def _all(self, name: str) -> list[Item]:
        return {
            "known": self._known,
            "rare": self._rare,
            "context": lambda: self._quizzes("context"),
            "strangers": lambda: self._quizzes("stranger"),
            "letters": lambda: self._quizzes("letters"),
            "easy": lambda: self._problems(EASY),
            "hard": lambda: self._problems(HARD),
        }[name]()

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        rows = pq.read_table(self.web / "quizzes.parquet").to_pylist()
        return [row for row in rows if row["kind"] == "open" and row["split"] == "test"]

    def _known(self) -> list[Item]:
        held = {row["fact_id"] for row in self._rows if row["exposure"] == KNOWN}
        facts = pq.read_table(self.web / "facts.parquet").to_pylist()
        return [
            Item(question, tuple(fact["aliases"]))
            for fact in facts
            if fact["fact_id"] in held
            for question in fact["questions"]
        ]

    def _rare(self) -> list[Item]:
        rows = [r for r in self._rows if r["topic"] == "fact" and r["exposure"] in RARE]
        return [Item(row["query"], tuple(row["aliases"])) for row in rows]

    def _quizzes(self, topic: str) -> list[Item]:
        rows = [row for row in self._rows if row["topic"] == topic]
        return [Item(row["query"], tuple(row["aliases"])) for row in rows]

    def _problems(self, difficulties: Sequence[int]) -> list[Item]:
        rows = pq.read_table(self.web / "problems.parquet").to_pylist()
        held = [r for r in rows if r["split"] == "test" and r["meta"]["difficulty"] in difficulties]
        return [Item(row["prompt"], (row["answer"],)) for row in held[:PROBLEMS]]


def chosen(words: Sequence[str]) -> list[str]:
    """The abilities named, commas allowed; `all` for all. UsageError (2) for an unknown one."""
    parts = [name.strip() for word in words for name in word.split(",")]
    names = [name for name in dict.fromkeys(parts) if name]
    if "all" in names:
        return list(ABILITIES)
    for name in names:
        if name not in ABILITIES:
            raise UsageError(f"no ability {name!r}{did_you_mean(name, [*ABILITIES, 'all'])}")
    return names


def measure(
    engine: Engine,
    format: ChatFormat | None,
    names: Sequence[str],
    *,
    web: Path,
    documents: Path | None,
    max_tokens: int,
    limit: int = 0,
    seed: int = 0,
) -> list[Measured]:
    """Ask a model what each ability takes, greedily. format None: a base model, asked plainly; it
    can call no tool and has no form of an answer. limit: items of each kind, drawn by seed; 0: all.
    """
    questions = Questions(web, limit, seed)
    boxes: dict[tuple[str, ...], ToolBox] = {}
    found = []
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    asked: dict[tuple[str, tuple[str, ...], str], list[Answer]] = {}
    for name in names:
        ability = ABILITIES[name]
        if format is None and (ability.tools or ability.right is ends):
            continue
        if ability.tools and ability.tools not in boxes:
            boxes[ability.tools] = open_tools(ability.tools, format, documents=documents)
        items = questions.of(ability.items)
        key = (ability.items, ability.tools, ability.suffix)
        if key not in asked:  # two abilities may look at the same answers
            prompts = [[{"role": "user", "content": i.prompt + ability.suffix}] for i in items]
            with console.progress(name, len(items), "questions") as bar:
                asked[key] = answer_all(
                    engine,
                    format,
                    prompts,
                    params,
                    boxes.get(ability.tools),
                    on_answer=lambda: bar.advance(1),
                )
        found.append(_judged(name, ability, items, asked[key]))
    return found


def _judged(
    name: str, ability: Ability, items: Sequence[Item], answers: Sequence[Answer]
) -> Measured:
    rows = []
    for item, answer in zip(items, answers):
        if not answer.asked:
            continue
        row: dict[str, Any] = {
            "ability": name,
            "question": item.prompt + ability.suffix,
            "answer": answer.text,
        }
        row |= {"wanted": item.answers[0], "right": ability.right(item, answer)}
        if answer.calls:
            row["calls"] = [call.as_json() for call in answer.calls]
        rows.append(row)
    right = sum(row["right"] for row in rows)
    return Measured(name, right, len(rows), rows, len(items) - len(rows))


def ask_models(
    models: Sequence[Artifact],
    names: Sequence[str],
    *,
    web: str,
    documents: str,
    max_tokens: int,
    limit: int,
    seed: int,
    dtype: str,
    device: str,
    workers: int,
) -> dict[str, list[Measured]]:
    """Measure each model. web, documents: empty for those that a model was made from."""
    found = {}
    for name, model in zip(names_of(models), models):
        engine = open_engine(model.path, dtype=dtype, device=device, workers=workers)
        console.info(model_line(engine))
        searches = any("search" in ABILITIES[ability].tools for ability in names)
        where = Path(documents) if documents else None
        found[name] = measure(
            engine,
            chat_format(engine.tokenizer),
            names,
            web=Path(web) if web else find_upstream(model, "web"),
            documents=where or (find_upstream(model, "documents") if searches else None),
            max_tokens=max_tokens,
            limit=limit,
            seed=seed,
        )
        for measured in found[name]:
            if measured.no_room:
                said = f"{measured.no_room:,} items not asked: no room for them in the context"
                console.warn(f"{name}, {measured.name}: {said}")
    return found


class Plan(NamedTuple):
    """What would be asked. rows: ability, its tools, and how many items of each model."""

    models: list[str]
    rows: list[tuple[Any, ...]]


def plan(
    models: Sequence[Artifact], names: Sequence[str], *, web: str, limit: int, seed: int
) -> Plan:
    """How many items each ability has. A model without a chat format is asked fewer abilities."""
    webs = [Path(web) if web else find_upstream(model, "web") for model in models]
    questions = {path: Questions(path, limit, seed) for path in webs}
    rows = []
    for name in names:
        ability = ABILITIES[name]
        counts = [len(questions[path].of(ability.items)) for path in webs]
        rows.append((name, ", ".join(ability.tools), *counts))
    return Plan(names_of(models), rows)


def table(found: Mapping[str, Sequence[Measured]]) -> str:
    """Abilities in rows, models in columns: percent right with the 95% interval."""
    order = [name for name in ABILITIES if any(m.name == name for ms in found.values() for m in ms)]
    rows = []
    for name in order:
        cells = [_cell(next((m for m in ms if m.name == name), None)) for ms in found.values()]
        n = max(m.n for ms in found.values() for m in ms if m.name == name)
        rows.append([name, f"{n:,}", *cells])
    return render_table("right, %, with 95% interval", ["ability", "items", *found], rows)


def _cell(measured: Measured | None) -> str:
    if measured is None:
        return "-"
    part = measured.as_json()
    return f"{100 * part['rate']:.1f} ({100 * part['low']:.1f}–{100 * part['high']:.1f})"


def answers_jsonl(model: str, found: Sequence[Measured]) -> bytes:
    """Every answer of a model, one JSON object a line."""
    rows = [{"model": model, **row} for measured in found for row in measured.answers]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
