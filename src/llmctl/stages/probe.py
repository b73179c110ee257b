"""llmctl probe: what a model knows -> conversations that teach it to say what it does not know.

Reads a model, and facts: of a synthetic web (--web, or the one in the model's lineage), or of real
text (--documents with --asker: a model that writes questions from passages). Every fact is asked N
times and the replies are judged; what the model knows becomes confident answers, what it does not
know refusals, at most a given share of them. A base model, without a chat format, completes the
pages' own phrasings of a fact, or where there are none answers "Question: …\\nAnswer:".

Writes conversations: conversations.parquet (messages, kind known or unknown, fact_id, right of
asked, question), made for `llmctl sft --data`; asked.jsonl: every fact with every reply, held-out
facts too, which are measured and never written out; report.txt. Procedure: Llama 3
(arXiv:2407.21783), section 4.3.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.core.config import setting
from llmctl.core.errors import BadInput, Mismatch, NoInput, UsageError
from llmctl.core.stage import Stage

if TYPE_CHECKING:
    from llmctl.evals.probe import Fact, Found, Written

MATCH = "match"


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Find out what a model knows, and write conversations about it."""

    web: str = setting("", "web artifact with the facts; empty: found by lineage")
    documents: str = setting("", "real text to ask about instead; needs --asker")
    asker: str = setting(
        "",
        "who writes questions about the documents: a tuned model folder, or the base address "
        "of an OpenAI-compatible endpoint (key: OPENAI_API_KEY)",
    )
    asker_model: str = setting("", "the asker's name at an address; empty: the first it offers")
    judge: str = setting(MATCH, "who judges replies: match (by alias), a model folder, an address")
    judge_model: str = setting("", "the judge's name at an address; empty: the first it offers")
    limit: int = setting(0, "facts or passages asked about, drawn by seed; 0: all, or 500 passages")
    held_out: float = setting(
        0.2, "of real text: measured, not written out", unit="fraction of the questions"
    )
    samples: int = setting(5, "times that each fact is asked, its phrasings in turn")
    temperature: float = setting(0.6, "of the replies: a fact that is known survives sampling")
    max_tokens: int = setting(48, "longest reply", unit="tokens")
    known_threshold: int = setting(3, "right replies from which on a fact is known")
    unknown_at_most: int = setting(1, "right replies up to which it is unknown; between: left out")
    refusal_share: float = setting(
        0.5,
        "most refusals in the output: a small model knows little and would refuse everything",
        unit="fraction of the rows",
    )
    refusals: tuple[str, ...] = setting(
        (),
        "phrasings of a refusal, repeatable; {lead} in one: an answer's beginning, up to the "
        "value; none: five of ours",
    )
    against: str = setting(
        "",
        "an earlier probe: is what it found known refused now (over-refusal), and the unknown?",
    )
    chat: bool = setting(True, "ask in the model's chat format where it has one")
    seed: int = setting(1337, "draws facts, passages, replies and phrasings")
    dtype: str = setting("auto", "number format; auto: as stored", choices=("auto", "fp32", "bf16"))
    device: str = setting("auto", "where to run", choices=("auto", "cpu", "cuda"))
    workers: int = setting(
        0, "CPU threads, and requests under way at an address; 0: idle cores, 4", payload=False
    )

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("max_tokens", 1), ("limit", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.unknown_at_most < self.known_threshold <= self.samples:
            raise UsageError(
                f"0 <= unknown_at_most < known_threshold <= samples must hold, got "
                f"{self.unknown_at_most}, {self.known_threshold}, {self.samples}"
            )
        for name in ("refusal_share", "held_out"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if not 0 <= self.temperature <= 5:
            raise UsageError(f"temperature must be from 0 to 5, got {self.temperature}")
        if self.documents and self.web:
            raise UsageError("--web and --documents were both given; give one of them")
        if bool(self.documents) != bool(self.asker):
            raise UsageError(
                "questions about real text need both --documents and --asker: a tuned model's "
                "folder, or the address of an OpenAI-compatible endpoint"
            )
        if any(not phrase.strip() for phrase in self.refusals):
            raise UsageError("a phrasing of --refusals is empty")


def run(config: ProbeConfig, inputs: list[Any], draft: Any) -> dict[str, Any]:
    """Ask, judge, write the conversations; the tables go to stderr and report.txt."""
    from llmctl.evals import probe_report as report
    from llmctl.evals.probe import REFUSALS, conversations

    [model] = inputs
    earlier = report.read_earlier(Path(config.against)) if config.against else None
    facts, stats = _facts(config, model, draft)
    if earlier is not None:
        report.check_same(facts, earlier)
    found = report.read_replies(facts, config.samples, Path(draft.path))
    if found is None:
        found = _ask(config, model, facts)
        report.write_replies(found, Path(draft.path))  # judging may fail
    stats |= _judge(config, found, draft)
    written = conversations(
        found,
        known_at=config.known_threshold,
        unknown_at=config.unknown_at_most,
        refusal_share=config.refusal_share,
        phrasings=config.refusals or REFUSALS,
        own_words=config.chat and _chats(model),
        seed=config.seed,
    )
    stats |= _report(config, found, written, earlier, draft)
    (Path(draft.path) / report.REPLIES).unlink()  # all of it stands in asked.jsonl now
    if not written.rows:
        raise Mismatch(
            f"{model.path}: of {len(facts):,} facts {stats['known']} are known and "
            f"{stats['unknown']} unknown; without the held-out ones, and with refusals at most "
            f"{config.refusal_share:.0%} of the rows, none is left; ask more or raise "
            f"refusal_share, with another -o (every reply is kept in {draft.path}/{report.ASKED})"
        )
    report.write_conversations(written, Path(draft.path) / report.CONVERSATIONS)
    return stats


def _chats(model: Any) -> bool:
    """Whether a model has a chat format, so that its replies are answers in its own words."""
    from llmctl.model.hf import check_folder
    from llmctl.tokenizer.bpe import Tokenizer
    from llmctl.tokenizer.chat import chat_format

    return chat_format(Tokenizer.of_model(check_folder(model.path))) is not None


def _ask(config: ProbeConfig, model: Any, facts: list[Fact]) -> list[Found]:
    """Every fact's replies."""
    from llmctl.core import console
    from llmctl.evals.probe import ask_facts
    from llmctl.evals.tasks.several import Opening, open_subject
    from llmctl.infer.opening import model_line

    opening = Opening(
        chat=None if config.chat else False,
        dtype=config.dtype,
        device=config.device,
        workers=config.workers,
    )
    subject = open_subject("model", model, opening)
    console.info(model_line(subject.engine))
    if subject.format is None:
        console.info("no chat format: asked as a base model, to complete or in plain text")
    total = len(facts) * config.samples
    with console.progress("asking", total, "replies") as bar:
        return ask_facts(
            subject,
            facts,
            samples=config.samples,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
            seed=config.seed,
            on_answer=bar.advance,
        )


def _facts(config: ProbeConfig, model: Any, draft: Any) -> tuple[list[Fact], dict[str, Any]]:
    """What to ask, and what is to be said of where it came from."""
    from random import Random

    from llmctl.core import console
    from llmctl.core.seeds import derive

    if config.documents:
        return _text_facts(config, draft)
    from llmctl.evals.probe_web import web_facts

    web = _web(config, model)
    facts = web_facts(web)
    if config.limit and config.limit < len(facts):
        chosen = Random(derive(config.seed, "facts")).sample(range(len(facts)), config.limit)
        facts = [facts[i] for i in sorted(chosen)]
    n_test = sum(fact.split == "test" for fact in facts)
    console.info(f"{web}: {len(facts):,} facts, {n_test:,} of them held out")
    return facts, {"source": "web", "facts": len(facts)}


def _web(config: ProbeConfig, model: Any) -> Path:
    """The web with the facts: named, or the one that the model was made from."""
    from llmctl.artifacts.lineage import find_upstream

    if config.web:
        return Path(config.web)
    otherwise = "name one with --web, or ask about real text with --documents and --asker"
    return find_upstream(model, "web", otherwise)


def _text_facts(config: ProbeConfig, draft: Any) -> tuple[list[Fact], dict[str, Any]]:
    from llmctl.core import console
    from llmctl.evals.probe_text import draw_passages, write_questions
    from llmctl.evals.respondents import open_respondent

    passages = draw_passages(Path(config.documents), config.limit or 500, config.seed)
    asker = open_respondent(
        config.asker,
        "asker",
        model=config.asker_model,
        workers=config.workers,
        journal=Path(draft.path) / "state" / "asker.jsonl",
    )
    console.info(f"{len(passages):,} passages; {asker.name} writes the questions")
    with console.progress("writing questions", len(passages), "passages") as bar:
        facts, refused = write_questions(
            asker, passages, held_out=config.held_out, seed=config.seed, on_reply=bar.advance
        )
    for why, n in refused.most_common():
        console.warn(f"{n:,} questions not used: {why}")
    if not facts:
        raise BadInput(f"{asker.name} wrote no usable question in {len(passages):,}; take another")
    return facts, {
        "source": "documents",
        "passages": len(passages),
        "asker": asker.name,
        "facts": len(facts),
        "questions_not_used": dict(refused),
    }


def _judge(config: ProbeConfig, found: list[Found], draft: Any) -> dict[str, Any]:
    from llmctl.core import console
    from llmctl.evals.probe_judge import judge_by_match, judge_by_model
    from llmctl.evals.respondents import open_respondent

    if config.judge == MATCH:
        judge_by_match(found)
        return {"judge": MATCH}
    judge = open_respondent(
        config.judge,
        "judge",
        model=config.judge_model,
        workers=config.workers,
        journal=Path(draft.path) / "state" / "judge.jsonl",
    )
    with console.progress(f"{judge.name} judges", unit="replies") as bar:
        unclear = judge_by_model(found, judge, seed=config.seed, on_reply=bar.advance)
    return {"judge": judge.name, "unclear_verdicts": unclear}


def _report(
    config: ProbeConfig,
    found: list[Found],
    written: Written,
    earlier: dict[str, str] | None,
    draft: Any,
) -> dict[str, Any]:
    """Print and keep the tables; asked.jsonl; the manifest's figures."""
    from llmctl.core import console
    from llmctl.core.files import atomic_write
    from llmctl.evals import probe_report as report

    limits = config.known_threshold, config.unknown_at_most
    rows = report.rows_by_group(found, *limits)
    tables = [report.table(rows, config.samples)]
    stats: dict[str, Any] = {"samples": config.samples, "groups": rows}
    for kind in ("known", "unsure", "unknown"):
        stats[kind] = sum(row[kind] for row in rows)
    stats |= {
        "rows_known": written.count("known"),
        "rows_unknown": written.count("unknown"),
        "refusals_left_out": written.left_out,
    }
    if earlier is not None:
        stats["against"] = report.against(found, earlier)
        tables.append(report.against_table(stats["against"]))
    n = len(written.rows)
    share = stats["rows_unknown"] / n if n else 0.0
    tables.append(
        f"{n:,} conversations: {stats['rows_known']:,} confident, {stats['rows_unknown']:,} "
        f"refusals ({share:.0%}, at most {config.refusal_share:.0%}); {written.left_out:,} "
        "refusals left out"
    )
    text = "\n\n".join(tables)
    console.info(text)
    with atomic_write(Path(draft.path) / "report.txt") as file:
        file.write(f"{text}\n".encode())
    report.write_asked(found, limits, Path(draft.path) / report.ASKED)
    return stats


def dry_run(config: ProbeConfig, inputs: list[Any]) -> None:
    """Say what would be asked of whom, and how often."""
    from llmctl.core import console

    if not inputs:
        raise NoInput("probe --dry-run needs a model; train one first or name it")
    rows: list[tuple[str, Any]] = [("model", inputs[0].path), ("judge", config.judge)]
    if config.documents:
        n = config.limit or 500
        rows += [("documents", config.documents), ("asker", config.asker), ("passages, most", n)]
    else:
        from llmctl.evals.probe_web import web_facts

        web = _web(config, inputs[0])
        n = len(web_facts(web))
        n = min(n, config.limit or n)
        rows += [("web", web), ("facts", n)]
    rows += [("times each", config.samples), ("replies, most", n * config.samples)]
    console.table("would ask", ["what", "value"], rows)


STAGE = Stage(
    name="probe",
    version=1,
    summary="model + facts -> conversations",
    config=ProbeConfig,
    run=run,
    dry_run=dry_run,
    reads=("model", "foreign"),
    writes="conversations",
    upstream="sft",
    path_settings=("web", "documents", "asker", "judge", "against"),
    volatile=("state",),
)
