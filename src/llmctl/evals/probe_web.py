"""The facts of a synthetic web, as a probe asks them."""

from __future__ import annotations

from pathlib import Path

from llmctl.core.errors import BadInput, NoInput
from llmctl.evals.facts import read_facts
from llmctl.evals.probe import Fact

TIMES = {0: "never stated", 1: "stated once"}


def splits(web: Path) -> dict[str, str]:
    """Split of each fact, as the web's quizzes have it: every second subject is held out."""
    import pyarrow.parquet as pq

    path = web / "quizzes.parquet"
    if not path.is_file():
        raise NoInput(f"{path}: no such file; name a folder written by llmctl synth with --web")
    table = pq.read_table(path, columns=["fact_id", "split"]).to_pylist()
    return {row["fact_id"]: row["split"] for row in table if row["fact_id"]}


def web_facts(web: Path) -> list[Fact]:
    """Every fact of the web. BadInput (65) when a fact has no question or no split."""
    if not (web / "facts.parquet").is_file():
        raise NoInput(f"{web}: no facts.parquet; name a folder written by llmctl synth with --web")
    of_fact = splits(web)
    facts = []
    for row in read_facts(web):
        if not row["questions"] or row["fact_id"] not in of_fact:
            raise BadInput(f"{web}: fact {row['fact_id']} has no question or split; make it again")
        exposure = row["exposure"]
        facts.append(
            Fact(
                row["fact_id"],
                tuple(row["questions"]),
                tuple(dict.fromkeys((row["value"], *(row["aliases"] or [])))),
                of_fact[row["fact_id"]],
                TIMES.get(exposure, f"stated {exposure} times"),
                tuple(row["prompts"]),
            )
        )
    return facts
