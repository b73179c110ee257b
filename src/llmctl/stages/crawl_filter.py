"""llmctl crawl-filter: WARC and WET files -> clean, deduplicated documents, by FineWeb's recipe.

Reads WARC/WET files (gzip or plain), a `web` artifact, or documents (parquet, JSONL) to filter
again; local paths, or URLs that fsspec opens. Writes a `documents` artifact: part-00000.parquet …
with text, id, dump, url, date, file_path, language, language_score; funnel.json: pages and
characters in, out and dropped by step and reason; with keep_rejected also
rejected/part-*.parquet: the dropped pages with step, rule, value, threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.core import console
from llmctl.core.config import setting
from llmctl.core.errors import UsageError
from llmctl.core.stage import Stage

if TYPE_CHECKING:
    from llmctl.artifacts.store import Artifact, Draft
    from llmctl.web.inputs import InputFile
    from llmctl.web.plan import Settings

PII_KINDS = ("email", "ip", "phone", "ssn")
FINEWEB_PII = ("email", "ip")
PAGES_PER_CPU_S = 25  # on two cores of 2026; for the estimate of --dry-run alone
WARC_BYTES_PER_PAGE = 15_000  # compressed; Common Crawl's mean is about twice that


@dataclass(frozen=True, kw_only=True)
class CrawlFilterConfig:
    """Settings of crawl-filter; the defaults are FineWeb's (arXiv:2406.17557) where it has one."""

    preset: str = setting(
        "llmctl",
        "llmctl, or fineweb: as published, without our removal of phone and SSN",
        choices=("llmctl", "fineweb"),
    )
    language: tuple[str, ...] = setting(
        ("en",), "languages to keep, as fastText names them; any keeps all that are sure"
    )
    language_threshold: float = setting(
        0.65, "least score of the language identifier", unit="probability"
    )
    extractor: str = setting(
        "trafilatura", "what finds the main text of a page", choices=("trafilatura",)
    )
    url_lists: bool = setting(True, "drop pages of block-listed domains and by words in the URL")
    dedup: str = setting(
        "minhash",
        "near-duplicates (14 buckets of 8 hashes over 5-grams), equal texts only, or none",
        choices=("minhash", "exact", "none"),
    )
    pii: tuple[str, ...] = setting(
        PII_KINDS, "personal data to replace; [] keeps all", choices=PII_KINDS
    )
    keep_rejected: bool = setting(
        False, "also write the dropped pages, each with step, rule, value and threshold"
    )
    dump: str = setting("local", "the column `dump`: a name for this crawl")
    max_record_bytes: int = setting(
        8 << 20, "larger records and bodies are dropped unread", unit="bytes"
    )
    max_tags: int = setting(
        100_000, "pages with more are dropped unparsed, so that the clock need not", unit="tags"
    )
    page_time_limit: float = setting(
        10.0, "CPU time that a page may take in the extractor", unit="seconds"
    )
    max_bad_files: float = setting(
        0.01, "share of unreadable input files tolerated (ten always are)", unit="fraction"
    )
    part_bytes: int = setting(256 << 20, "text in one output file, about", unit="bytes")
    allow_empty: bool = setting(False, "a result without documents is no error")
    workers: int = setting(0, "processes; 0: one a core", payload=False)

    def __post_init__(self) -> None:
        if not 0 <= self.language_threshold < 1:
            raise UsageError(
                f"language_threshold={self.language_threshold:g} must be in [0, 1), a probability"
            )
        if not 0 <= self.max_bad_files <= 1:
            raise UsageError(f"max_bad_files={self.max_bad_files:g} must be in [0, 1], a share")
        for name, least in (
            ("max_record_bytes", 1024),
            ("max_tags", 100),
            ("part_bytes", 1024),
            ("workers", 0),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"{name}={getattr(self, name):,} is below its least, {least:,}")
        if self.page_time_limit <= 0:
            raise UsageError(f"page_time_limit={self.page_time_limit:g} must be above 0 seconds")
        if not self.language:
            raise UsageError("language is empty; name languages, or `any`")

    def settings(self) -> Settings:
        """The recipe's plain values."""
        from llmctl.web.plan import Settings

        pii = self.pii
        if self.preset == "fineweb":
            pii = tuple(kind for kind in pii if kind in FINEWEB_PII)
        return Settings(
            languages=() if "any" in self.language else self.language,
            language_threshold=self.language_threshold,
            extractor=self.extractor,
            url_lists=self.url_lists,
            dedup=self.dedup,
            pii=pii,
            keep_rejected=self.keep_rejected,
            dump=self.dump,
            max_record_bytes=self.max_record_bytes,
            max_tags=self.max_tags,
            page_time_limit=self.page_time_limit,
            part_bytes=self.part_bytes,
            max_bad_files=self.max_bad_files,
            allow_empty=self.allow_empty,
            workers=self.workers,
        )


def run(config: CrawlFilterConfig, inputs: Sequence[Artifact], draft: Draft) -> dict[str, Any]:
    """Filter every page of the inputs into draft.path."""
    from llmctl.web.recipe import run_recipe

    return run_recipe(config.settings(), input_files(inputs), draft.path)


def input_files(inputs: Sequence[Artifact]) -> list[InputFile]:
    """The files to read, in order: of our artifacts the payload, of a folder all in it.

    What `file_path` and the ids of records without one say of a file must follow from what the
    run's fingerprint covers: of a folder the names in it, of a URL the URL. A file given by itself
    is known there by its content alone, so it is shown as the beginning of its id, which the
    manifest's inputs translate to a path; two files of one name stay apart.
    """
    from llmctl.web.inputs import InputFile

    files = []
    for artifact in inputs:
        if artifact.url is not None:
            files.append(InputFile(artifact.url, artifact.url))
            continue
        for path in _payload(artifact):
            alone = path == artifact.path
            shown = f"file-{artifact.id[:16]}" if alone else path.relative_to(artifact.path)
            files.append(InputFile(str(path), str(shown)))
    return files


def _payload(artifact: Artifact) -> list[Path]:
    root = artifact.path if artifact.path.is_dir() else artifact.path.parent
    return [
        path
        for path in artifact.files()
        if _is_payload(artifact.kind, path.relative_to(root).as_posix())
    ]


def _is_payload(kind: str, name: str) -> bool:
    if kind == "web":
        return name.startswith("warc/")
    if kind == "documents":
        return Path(name).match("part-*.parquet") and "/" not in name
    return not name.endswith((".md", ".txt", ".idx", ".cdx", ".cdxj"))


def dry_run(config: CrawlFilterConfig, inputs: Sequence[Artifact]) -> None:
    """What would be read, and about how long it takes on this machine."""
    from llmctl.core.files import human_bytes
    from llmctl.core.hardware import cpu_count

    sizes = [path.stat().st_size for artifact in inputs for path in _payload(artifact)]
    n_files = len(sizes) + sum(artifact.url is not None for artifact in inputs)
    pages = sum(sizes) // WARC_BYTES_PER_PAGE
    workers = config.workers or cpu_count()
    minutes = pages / PAGES_PER_CPU_S / workers / 60
    rows: list[list[Any]] = [
        ["input files", f"{n_files:,} ({human_bytes(sum(sizes))} of them local)"],
        ["pages, about", f"{pages:,}"],
        ["workers", f"{workers}"],
        ["time, about", f"{minutes:,.1f} minutes"],
        ["temporary disk, at most", human_bytes(130e6 + 0.6 * sum(sizes))],
        ["memory, about", human_bytes(0.3e9 + workers * 0.7e9)],
    ]
    if config.dedup == "minhash":
        rows.append(["MinHash signatures, at most", human_bytes(pages * 896)])
    console.table("crawl-filter would", ["what", "how much"], rows)


STAGE = Stage(
    name="crawl-filter",
    version=1,
    summary="WARC files -> clean, deduplicated documents (FineWeb's recipe)",
    config=CrawlFilterConfig,
    run=run,
    dry_run=dry_run,
    reads=("web", "documents", "foreign"),
    writes="documents",
    upstream="synth",
    many=True,
    remote=True,
)
