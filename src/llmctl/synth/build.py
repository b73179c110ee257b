"""Builds a whole web: shards in parallel, the truth in one file, then what is asked about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmctl.core.files import remove_temporaries
from llmctl.core.hardware import cpu_count
from llmctl.core.workers import ordered_map
from llmctl.synth.chat import conversation_rows
from llmctl.synth.facts import Fact
from llmctl.synth.plan import Plan, cast_of
from llmctl.synth.preferences import preference_rows
from llmctl.synth.problems import problem_rows
from llmctl.synth.quizzes import quiz_rows
from llmctl.synth.school import school_rows
from llmctl.synth.shard import warc_name, write_shard
from llmctl.synth.truth import (
    CONVERSATIONS,
    FACTS,
    PREFERENCES,
    PROBLEMS,
    QUIZZES,
    TEXTBOOK,
    count,
    merge,
    write_parquet,
)


def _missing(plan: Plan, folder: Path) -> list[int]:
    parts = folder / "parts"
    return [i for i in range(plan.n_shards) if not _part(parts, i).exists()]


def _part(parts: Path, index: int) -> Path:
    return parts / f"truth-{index:05d}.parquet"


def _shard(task: tuple[Plan, int, Path], careful: bool) -> int:
    plan, index, folder = task
    return write_shard(plan, index, folder / "warc", _part(folder / "parts", index))


def _shard_name(task: tuple[Plan, int, Path]) -> str:
    return str(task[2] / "warc" / warc_name(task[1]))


def _no_start() -> None:
    """A shard's worker makes what it needs from the plan."""


def build_web(
    plan: Plan, folder: Path, workers: int = 1, advance: Callable[[int], None] = lambda pages: None
) -> dict[str, Any]:
    """Fill a folder with a web; what an interrupted run finished there is kept.

    workers: processes, 0 = one a core. advance: told the pages of each shard when it is done.
    Returns the figures of the manifest. The same plan gives the same bytes in every case.
    """
    truth = folder / "truth.parquet"
    remove_temporaries(folder)
    if not truth.exists():
        (folder / "warc").mkdir(parents=True, exist_ok=True)
        (folder / "parts").mkdir(exist_ok=True)
        todo = _missing(plan, folder)
        advance(plan.n_pages - sum(_pages(plan, index) for index in todo))
        tasks = [(plan, index, folder) for index in todo]
        workers = workers or cpu_count()
        for pages in ordered_map(_shard, tasks, workers, _no_start, (), name=_shard_name):
            advance(pages)
        merge([_part(folder / "parts", i) for i in range(plan.n_shards)], truth)
    for part in sorted((folder / "parts").glob("*")):
        part.unlink()
    if (folder / "parts").exists():
        (folder / "parts").rmdir()
    facts = [fact for subject in cast_of(plan)[1] for fact in subject.facts]
    write_facts(plan, folder / "facts.parquet")
    material = write_material(plan, folder)
    exposures: dict[str, int] = {}
    for fact in facts:
        exposures[str(fact.exposure)] = exposures.get(str(fact.exposure), 0) + 1
    figures = count(truth)
    warc_bytes = sum((folder / "warc" / warc_name(i)).stat().st_size for i in range(plan.n_shards))
    return {
        **figures,
        **material,
        "warc_bytes": warc_bytes,
        "shards": plan.n_shards,
        "facts": exposures,
    }


def _pages(plan: Plan, index: int) -> int:
    return plan.first_page(index + 1) - plan.first_page(index)


def write_facts(plan: Plan, path: Path) -> None:
    """facts.parquet: every measured fact with its prompts."""

    def row(kind: str, fact: Fact) -> dict[str, Any]:
        return {
            "fact_id": fact.fact_id,
            "subject": fact.subject,
            "kind": kind,
            "relation": fact.relation,
            "value": fact.value,
            "exposure": fact.exposure,
            "prompts": fact.prompts(),
            "questions": fact.questions(),
            "aliases": [fact.value, f"the {fact.value}", f"a {fact.value}"],
        }

    subjects = cast_of(plan)[1]
    rows = [row(subject.kind, fact) for subject in subjects for fact in subject.facts]
    write_parquet(path, FACTS, [rows])


def write_material(plan: Plan, folder: Path) -> dict[str, int]:
    """What later stages learn from and are asked: conversations, rankings, problems, quizzes."""
    world, subjects, _ = cast_of(plan)
    scale = max(0.1, min(20.0, plan.n_pages / 6000))
    rankings = round(1500 * scale)
    jobs = {
        "conversations": (CONVERSATIONS, conversation_rows(world, subjects, plan.seed, scale)),
        "textbook": (TEXTBOOK, school_rows(world, plan.seed, plan.textbook_mb)),
        "preferences": (PREFERENCES, preference_rows(world, subjects, plan.seed, rankings)),
        "problems": (PROBLEMS, problem_rows(plan.seed, round(3000 * scale))),
        "quizzes": (QUIZZES, quiz_rows(world, subjects, plan.seed, round(600 * scale))),
    }
    return {
        name: write_parquet(folder / f"{name}.parquet", schema, rows)
        for name, (schema, rows) in jobs.items()
    }
