"""The settings of a run as plain values, and the blocks they stand for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.web.inputs import Share

WORK = ".work"  # inside the artifact's folder while a run works; gone when it is complete


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may be changed about FineWeb's recipe; the defaults are the stage's."""

    languages: tuple[str, ...]  # empty: any
    language_threshold: float
    extractor: str
    url_lists: bool
    dedup: str  # "minhash", "exact" or "none"
    pii: tuple[str, ...]
    keep_rejected: bool
    dump: str
    max_record_bytes: int
    max_tags: int
    page_time_limit: float  # CPU seconds
    part_bytes: int
    max_bad_files: float
    allow_empty: bool
    workers: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run: what is read, how, and where its state lies."""

    settings: Settings
    shares: list[Share] = field(default_factory=list)
    work: Path

    @property
    def tasks(self) -> Path:
        """Folder of the tasks' results."""
        return self.work / "tasks"

    @property
    def logs(self) -> Path:
        """datatrove's logging folder: completion markers, per-task statistics and logs."""
        return self.work / "logs"

    @property
    def lists(self) -> Path:
        return self.work / "lists"

    @property
    def ledgers(self) -> Path:
        """Verdicts by clock or crash, kept for reruns."""
        return self.work / "ledgers"


def build_pipeline(plan: Plan) -> list[Any]:
    """FineWeb's blocks in FineWeb's order, made anew for one task.

    Personal data is replaced in the tasks, behind the signature, so that it runs in parallel and
    deduplication still sees the text as it was.
    """
    from llmctl.web.blocks import Task
    from llmctl.web.dedup import Signatures
    from llmctl.web.extract import MainText
    from llmctl.web.filters import C4Quality, FineWebQuality, GopherQuality
    from llmctl.web.language import LanguageFilter
    from llmctl.web.pii import PiiReplacer
    from llmctl.web.reader import PageReader
    from llmctl.web.repetition import GopherRepetition
    from llmctl.web.tasks import Pulse, TaskWriter
    from llmctl.web.urls import UrlFilter

    s, task = plan.settings, Task(keep_rejected=plan.settings.keep_rejected)
    words = word_language(s.languages)
    steps = [
        PageReader(task, plan.shares, s.max_record_bytes, s.dump),
        Pulse(task),
        UrlFilter(task, plan.lists) if s.url_lists else None,
        MainText(task, plan.ledgers, s.extractor, s.page_time_limit, s.max_tags),
        LanguageFilter(task, s.languages, s.language_threshold),
        GopherRepetition(task, words),
        GopherQuality(task, words),
        C4Quality(task, words),
        FineWebQuality(task, words),
        Signatures(task, plan.work / "signatures", s.dedup, words),
        PiiReplacer(task, s.pii),
        TaskWriter(task, plan.tasks, s.dedup),
    ]
    return [step for step in steps if step is not None]


def word_language(languages: tuple[str, ...]) -> str:
    """Whose word rules are used: the one wanted language's where spaCy has them, else English.

    FineWeb, too, counts every page's words by the English rules.
    """
    if len(languages) != 1 or languages[0] == "en":
        return "en"
    from datatrove.utils.word_tokenizers import SpaCyTokenizer, load_word_tokenizer

    try:
        tokenizer = load_word_tokenizer(languages[0])
    except ValueError:
        return "en"
    plain = type(tokenizer) is SpaCyTokenizer and languages[0] not in ("zh", "ja", "ko", "th", "vi")
    return languages[0] if plain else "en"
