"""A model beside the world it was trained on: where its data lies, and what it knows of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from llmctl.artifacts.lineage import find_upstream
from llmctl.artifacts.store import Artifact, open_artifact
from llmctl.core import console
from llmctl.core.console import render_table
from llmctl.core.errors import BadInput, NoInput
from llmctl.data.batches import Batch, PackedRows
from llmctl.data.bins import TokenBins
from llmctl.evals.bpb import bits_per_byte
from llmctl.evals.facts import COLUMNS, Row, facts_by_exposure, read_facts
from llmctl.infer.engine import Engine
from llmctl.infer.sampling import SamplingParams
from llmctl.infer.threads import idle_cores
from llmctl.model.hf import load_model
from llmctl.model.loss_head import loss_head
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.bpe import Tokenizer

ROWS = 8  # rows measured at once


@dataclass(frozen=True)
class Sources:
    """What a model was made from. documents and web are None where its lineage has none."""

    tokens: Path
    documents: Path | None
    web: Path | None


def find_sources(model: Artifact, tokens: str, documents: str, web: str) -> Sources:
    """The tokens, documents and web of a model: those named, else those its lineage names."""
    bins = Path(tokens) if tokens else find_upstream(model, "tokens")
    start = open_artifact(bins, ("tokens",), reader="eval", verify=False)
    docs = Path(documents) if documents else _if_any(start, "documents")
    if docs is None:
        return Sources(bins, None, Path(web) if web else None)
    source = open_artifact(docs, ("documents",), reader="eval", verify=False)
    return Sources(bins, docs, Path(web) if web else _if_any(source, "web"))


def _if_any(artifact: Artifact, kind: str) -> Path | None:
    """The upstream folder of a kind; None where the lineage never had one."""
    try:
        return find_upstream(artifact, kind)
    except NoInput as error:
        if "was not made from" in str(error):
            return None
        raise


@dataclass(frozen=True)
class Subject:
    """A model with its tokenizer and the tokens it was made from."""

    model: Transformer
    tokenizer: Tokenizer
    tokens: Artifact

    def bits_per_byte(self) -> float:
        """Held-out bits per byte over the whole validation split, in fp32."""
        val = TokenBins.open(self.tokens.path, "val")
        rows = PackedRows(
            val,
            seq_len=self.model.config.max_seq_len,
            eot_id=val.eot_id,
            vocab_size=self.model.config.vocab_size,
        )
        n_bytes = self.tokens.stats.get("val_bytes", 0)
        if not len(rows) or not n_bytes:
            raise BadInput(
                f"{self.tokens.path}: its validation split is empty; tokenize with a larger "
                "val_fraction"
            )
        found = bits_per_byte(
            partial(_loss, self.model),
            rows,
            n_bytes=n_bytes,
            eot_id=val.eot_id,
            micro_batch=ROWS,
            device=torch.device("cpu"),
        )
        return found.bits_per_byte

    @cached_property
    def engine(self) -> Engine:
        """The engine that serves the model."""
        return Engine(self.model, self.tokenizer)

    def complete(self, prompts: list[str], batch: int, max_tokens: int) -> list[str]:
        """Greedy completions, each prompt as the beginning of a document."""
        params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
        said: list[str] = []
        with console.progress("asking facts", len(prompts), "facts") as bar:
            for at in range(0, len(prompts), batch):
                part = prompts[at : at + batch]
                ids = [[self.tokenizer.eot_id, *self.tokenizer.encode(p)] for p in part]
                said += [self.tokenizer.decode(r.ids) for r in self.engine.generate(ids, params)]
                bar.advance(len(part))
        return said


def _loss(model: Transformer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = model.hidden(batch.ids, segments=batch.segments, bounds=batch.bounds)
    return loss_head(hidden.flatten(0, 1), model.head_weight, batch.targets.flatten())


def open_subject(model: Path, tokens: Path, workers: int = 0) -> Subject:
    """Load a model folder in fp32 beside its tokens. workers: CPU threads, 0 for idle cores."""
    torch.set_num_threads(workers or idle_cores())
    loaded = load_model(model, dtype=torch.float32, device="cpu").eval()
    artifact = open_artifact(tokens, ("tokens",), reader="eval", verify=False)
    return Subject(loaded, Tokenizer.load(model), artifact)


@dataclass(frozen=True)
class FactsReport:
    """The facts table, and every answer behind it."""

    rows: list[Row]
    answers: list[dict[str, Any]]

    def table(self) -> str:
        """The table as text."""
        title = "facts completed right, by kept training pages that state them"
        return render_table(title, COLUMNS, [row.cells() for row in self.rows])

    def stats(self) -> dict[str, Any]:
        """Counts by exposure class, for the manifest."""
        return {r.seen: {"facts": r.facts, "right": r.right} for r in self.rows}

    def answers_jsonl(self) -> bytes:
        """Each fact asked, one JSON object a line."""
        return "".join(json.dumps(a, ensure_ascii=False) + "\n" for a in self.answers).encode()


def ask_facts(
    subject: Subject, sources: Sources, per_class: int, batch: int, max_tokens: int
) -> FactsReport:
    """Complete every fact of the web. per_class: at most so many of each exposure, 0 for all."""
    from llmctl.data.encode import in_validation
    from llmctl.evals.truth import exposures

    assert sources.web is not None and sources.documents is not None
    made = subject.tokens.manifest
    assert made is not None
    config = made["created"]["config"]
    seen = exposures(
        sources.web,
        sources.documents,
        keep=lambda doc_id: not in_validation(doc_id, config["val_fraction"], config["seed"]),
    )
    facts = read_facts(sources.web)
    if per_class:
        counted: dict[int, int] = {}
        chosen = []
        for fact in facts:
            n = counted[fact["exposure"]] = counted.get(fact["exposure"], 0) + 1
            if n <= per_class:
                chosen.append(fact)
        facts = chosen
    rows, answers = facts_by_exposure(
        facts, seen, lambda prompts: subject.complete(prompts, batch, max_tokens)
    )
    return FactsReport(rows, answers)
