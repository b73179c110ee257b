"""llmctl synth: a seed and a size -> the embedded synthetic web.

Reads nothing. Writes a `web` artifact: warc/web-00000.warc.gz … (pages in real-looking HTML, with
planted spam, copies, other languages, boilerplate and personal data); truth.parquet, one row a
page: what was planted and what has to happen to it; facts.parquet: who, what, and on how many good
pages it is said; textbook.parquet (exercises to train on beside the pages), conversations.parquet,
preferences.parquet, problems.parquet, quizzes.parquet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core import console
from llmctl.core.config import setting
from llmctl.core.errors import UsageError
from llmctl.core.stage import Stage

if TYPE_CHECKING:
    from llmctl.artifacts.store import Artifact, Draft
    from llmctl.synth.plan import Plan

HTML_MB_A_SECOND = 4.0  # per core, on two cores of 2026; for the estimate of --dry-run alone
HTML_BYTES_A_PAGE = 3_500
WARC_BYTES_A_PAGE = 2_900
SHARES = (
    "blocked",
    "foreign",
    "thin",
    "list",
    "repetitive",
    "placeholder",
    "exact_duplicate",
    "near_duplicate",
    "mirror",
    "nonpage",
)


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """Settings of synth."""

    seed: int = setting(1337, "decides every byte: another seed is another world")
    size_mb: float = setting(6.0, "main text of the good pages, about", unit="MB")
    pages: int = setting(0, "all pages, planted ones included; 0: as many as size_mb asks for")
    facts: int = setting(256, "facts in each class of exposure; fewer where the pages are too few")
    textbook_mb: float = setting(
        4.0, "schoolbook beside the web: reading exercises, sums, worked problems", unit="MB"
    )
    blocked: float = setting(0.04, "pages of block-listed addresses", unit="share of all pages")
    foreign: float = setting(0.05, "pages in nine other languages", unit="share of all pages")
    thin: float = setting(0.04, "pages of one or two sentences", unit="share of all pages")
    list: float = setting(0.03, "pages of short lines", unit="share of all pages")
    repetitive: float = setting(0.03, "pages that repeat themselves", unit="share of all pages")
    placeholder: float = setting(0.01, "unfinished templates", unit="share of all pages")
    exact_duplicate: float = setting(
        0.03, "the same bytes under a second address", unit="share of all pages"
    )
    near_duplicate: float = setting(
        0.03, "copies with a few words changed", unit="share of all pages"
    )
    mirror: float = setting(0.02, "the same text on another site", unit="share of all pages")
    nonpage: float = setting(0.02, "images, redirects, missing pages", unit="share of all pages")
    pii: float = setting(
        0.04, "good pages with an e-mail, and as many with IP, phone, SSN", unit="share"
    )
    broken: float = setting(0.05, "good pages with broken HTML", unit="share of good pages")
    wrong_charset: float = setting(
        0.05, "good pages in another charset than they say", unit="share of good pages"
    )
    workers: int = setting(0, "processes; 0: one a core", payload=False)

    def __post_init__(self) -> None:
        if not 0.05 <= self.size_mb <= 1e6:
            raise UsageError(f"size_mb={self.size_mb:g} must be from 0.05 to 1,000,000")
        if self.pages and not 200 <= self.pages <= 10**9:
            raise UsageError(f"pages={self.pages:,} must be from 200 to 1,000,000,000")
        if not 0 <= self.facts <= 1000:
            raise UsageError(f"facts={self.facts:,} must be from 0 to 1,000 in each class")
        if not 0 <= self.textbook_mb <= 1e4:
            raise UsageError(f"textbook_mb={self.textbook_mb:g} must be from 0 to 10,000")
        if self.workers < 0:
            raise UsageError(f"workers={self.workers} is below its least, 0")
        for name in (*SHARES, "pii", "broken", "wrong_charset"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}={getattr(self, name):g} must be in [0, 1], a share")
        planted = sum(getattr(self, name) for name in SHARES)
        copies = self.exact_duplicate + self.near_duplicate + self.mirror
        if 1 - planted < max(0.2, 2 * copies):
            raise UsageError(
                f"planted shares add up to {planted:g} ({copies:g} of them copies); leave at least "
                f"{max(0.2, 2 * copies):g} for good pages"
            )

    def plan(self) -> Plan:
        """The plan of the web these settings ask for."""
        from llmctl.synth.plan import Shares, make_plan

        names = (*SHARES, "pii", "broken", "wrong_charset")
        shares = Shares(**{name: getattr(self, name) for name in names})
        return make_plan(
            self.seed,
            shares,
            self.facts,
            size_mb=self.size_mb,
            pages=self.pages,
            textbook_mb=self.textbook_mb,
        )


def run(config: SynthConfig, inputs: Sequence[Artifact], draft: Draft) -> dict[str, Any]:
    """Make the web into draft.path."""
    from llmctl.synth.build import build_web

    plan = config.plan()
    if plan.facts < config.facts:
        console.info(f"facts: {plan.facts} in each class, since there are {plan.n_pages:,} pages")
    with console.progress("synth", plan.n_pages, "pages") as bar:
        stats = build_web(plan, draft.path, config.workers, bar.advance)
    rows = [(name, f"{pages:,}") for name, pages in stats["classes"].items()]
    console.table("pages planted", ("class", "pages"), rows)
    return stats


def dry_run(config: SynthConfig, inputs: Sequence[Artifact]) -> None:
    """What would be written, how large, and how long it would take."""
    from llmctl.core.hardware import cpu_count

    plan = config.plan()
    html = plan.n_pages * HTML_BYTES_A_PAGE
    cores = min(config.workers or cpu_count(), plan.n_shards)
    rows: list[tuple[str, str]] = [
        (name.replace("_", " "), f"{pages:,} pages") for name, pages in plan.totals.items()
    ]
    rows += [
        ("all pages", f"{plan.n_pages:,}"),
        ("facts in each class of exposure", f"{plan.facts:,}"),
        ("HTML", f"{html / 1e6:,.0f} MB"),
        (
            f"WARC, {plan.n_shards} files",
            f"{plan.n_pages * WARC_BYTES_A_PAGE / 1e6:,.0f} MB",
        ),
        (f"time on {cores} cores", f"{html / 1e6 / HTML_MB_A_SECOND / cores:,.0f} s"),
    ]
    console.table("synth would write", ("what", "how much"), rows)


STAGE = Stage(
    name="synth",
    version=3,
    summary="a seed -> the embedded synthetic web (WARC, truth, facts, conversations)",
    config=SynthConfig,
    run=run,
    dry_run=dry_run,
    reads=(),
    writes="web",
)
