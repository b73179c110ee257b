"""llmctl eval: what a base model has learned of its world. Reads a model, writes a report.

Held-out bits per byte on the validation split it never trained on, and facts of the synthetic web
completed right, by how many kept training pages stated them. What it was made from is found by its
lineage; a web of others has no known facts, so only bits per byte are measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.core.config import setting
from llmctl.core.errors import NoInput, UsageError
from llmctl.core.stage import Stage


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Measure a base model on the tokens, documents and web that it was made from."""

    tokens: str = setting("", "tokens artifact; empty: the one the model was trained on")
    documents: str = setting("", "documents artifact; empty: the one the tokens were made from")
    web: str = setting("", "web artifact with the facts; empty: found by lineage")
    facts_per_class: int = setting(0, "facts asked in each exposure class; 0: all of them")
    batch: int = setting(64, "prompts answered at once", payload=False)
    max_tokens: int = setting(12, "longest completion of a fact", unit="tokens")

    def __post_init__(self) -> None:
        for name in ("facts_per_class", "batch", "max_tokens"):
            least = 0 if name == "facts_per_class" else 1
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, got {getattr(self, name)}")


def run(config: EvalConfig, inputs: list[Any], draft: Any) -> dict[str, Any]:
    """Measure, print the tables, keep them as report.json, report.txt and answers.jsonl."""
    from llmctl.core import console
    from llmctl.core.files import atomic_write, write_json
    from llmctl.evals import world

    [model] = inputs
    sources = world.find_sources(model, config.tokens, config.documents, config.web)
    subject = world.open_subject(model.path, sources.tokens)
    stats: dict[str, Any] = {"bits_per_byte": round(subject.bits_per_byte(), 4)}
    console.info(f"held-out bits per byte: {stats['bits_per_byte']:.4f}")
    tables = [f"held-out bits per byte: {stats['bits_per_byte']:.4f}"]
    if sources.web is None or sources.documents is None:
        console.warn("no synthetic web in the model's lineage, so no facts to ask about")
    else:
        facts = world.ask_facts(
            subject, sources, config.facts_per_class, config.batch, config.max_tokens
        )
        stats["facts"] = facts.stats()
        tables.append(facts.table())
        console.info(facts.table())
        with atomic_write(draft.path / "answers.jsonl") as file:
            file.write(facts.answers_jsonl())
    with atomic_write(draft.path / "report.txt") as file:
        file.write(("\n\n".join(tables) + "\n").encode())
    write_json(Path(draft.path) / "report.json", stats)
    return stats


def dry_run(config: EvalConfig, inputs: list[Any]) -> None:
    """Say which artifacts would be read."""
    from llmctl.core import console
    from llmctl.evals import world

    if not inputs:
        raise NoInput("eval --dry-run needs a model; train one first or name it")
    sources = world.find_sources(inputs[0], config.tokens, config.documents, config.web)
    rows = [(name, str(path)) for name, path in vars(sources).items()]
    console.table("would read", ["what", "where"], rows, left=2)


STAGE = Stage(
    name="eval",
    version=1,
    summary="model -> report",
    config=EvalConfig,
    run=run,
    dry_run=dry_run,
    reads=("model",),
    writes="report",
    upstream="pretrain",
    path_settings=("tokens", "documents", "web"),
)
