"""llmctl tokenize: documents to token bins.

Reads a documents artifact, or parquet, JSONL (.gz, .zst) or .txt files and folders of others.
Writes tokens: train-*.bin and val-*.bin in llm.c's format with .idx beside each, tokenizer.json.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from llmctl.core import console
from llmctl.core.config import setting
from llmctl.core.errors import BadInput, Mismatch, NoInput, UsageError
from llmctl.core.stage import Stage

GIVEN = {"gpt2": 50_257, "cl100k": 100_277, "o200k": 200_019}  # ids of the published vocabularies
SPEED = {"gigatoken": 40e6, "tiktoken": 8e6, "tokenizers": 1e6}  # bytes/s a core, for --dry-run
TRAIN_SPEED = 2.5e6  # bytes/s
BYTES_PER_TOKEN = 4.2  # of English web text at 32k ids, for --dry-run
ONE_WORKER_BYTES = 24 << 20  # less input than this is done before a second worker has started


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """Turn text into token bins, with a vocabulary trained on it or a given one."""

    tokenizer: str = setting(
        "", "gpt2, cl100k, o200k, or a tokenizer.json, its folder, a .tiktoken file; empty: train"
    )
    vocab_size: int = setting(
        32_768, "ids of a trained vocabulary, rounded up to a multiple of 128", unit="ids"
    )
    train_mb: float = setting(100.0, "text a vocabulary is trained on", unit="MB")
    val_fraction: float = setting(0.01, "documents kept for validation, by a hash of their id")
    shard_tokens: int = setting(100_000_000, "ids in a .bin file, as llm.c has it", unit="tokens")
    dtype: str = setting("uint16", "ids on disk; uint32 above 65,536", choices=("uint16", "uint32"))
    textbook: bool = setting(
        False, "add the schoolbook of the synthetic web that the documents come from"
    )
    text_column: str = setting("text", "column or key that holds the text")
    max_bad: float = setting(0.01, "share of rows that may be unreadable before it is an error")
    skip_damaged: bool = setting(False, "go on without the rest of a damaged file, and record it")
    seed: int = setting(0, "draws the split, and the sample where the corpus exceeds train_mb")
    encoder: str = setting(
        "auto",
        "auto takes the fastest that gives the same ids",
        choices=("auto", "gigatoken", "tiktoken", "tokenizers"),
        payload=False,
    )
    workers: int = setting(0, "processes; 0: one for each core", payload=False)
    show: str = setting("", "print the tokens of this text and make nothing", payload=False)

    def __post_init__(self) -> None:
        if not self.tokenizer and not 384 <= self.vocab_size <= 1 << 20:
            raise UsageError(f"vocab_size={self.vocab_size:,} must be in 384..{1 << 20:,}")
        if not 0 <= self.val_fraction <= 0.5:
            raise UsageError(f"val_fraction={self.val_fraction} must be in 0..0.5")
        if not 1_000 <= self.shard_tokens <= 2**31 - 1:
            raise UsageError(f"shard_tokens={self.shard_tokens:,} must be in 1,000..{2**31 - 1:,}")
        if not 0 < self.train_mb <= 100_000:
            raise UsageError(f"train_mb={self.train_mb} must be above 0 and at most 100,000")
        if not 0 <= self.max_bad <= 1:
            raise UsageError(f"max_bad={self.max_bad} must be in 0..1")
        if self.workers < 0:
            raise UsageError(f"workers={self.workers} must be 0 or more")
        ids = GIVEN.get(self.tokenizer, 0) if self.tokenizer else self.vocab_size
        if ids > 65_536 and self.dtype == "uint16" and not self.show:
            raise Mismatch(
                f"a vocabulary of {ids:,} ids does not fit uint16 (65,536 ids); add --dtype uint32"
            )


def run(config: TokenizeConfig, inputs: list[Any], draft: Any) -> dict[str, Any] | None:
    """Train or load the tokenizer, encode everything, report."""
    if config.show:
        _show(config, inputs)
        return None
    from llmctl.core.files import human_bytes
    from llmctl.data.bins import check_fits
    from llmctl.data.encode import encode_documents
    from llmctl.tokenizer.fast import choose

    plan = _plan(config, inputs, draft.path)
    tokenizer = _tokenizer(config, plan, draft)
    check_fits(tokenizer.vocab_size, config.dtype)
    name, slower = choose(tokenizer, config.encoder)
    if slower:
        console.info(f"encoding with {name}: {slower}")
    plan = _with_encoder(plan, name, _workers(config, plan))
    n_bytes = sum(unit.n_text for unit in plan.units)
    console.info(f"encoding {human_bytes(n_bytes)} with {name}, {plan.workers} workers")
    started = time.monotonic()
    with console.progress("encoding", n_bytes / 1e6, "MB") as bar:
        counts = encode_documents(plan, _Megabytes(bar))
    return _report(config, draft.path, tokenizer, counts, time.monotonic() - started)


class _Megabytes:
    """A progress bar told in bytes."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def advance(self, n_bytes: float) -> None:
        self.bar.advance(n_bytes / 1e6)


def _sources(inputs: list[Any], textbook: bool) -> list[Any]:
    """The files to read. Mismatch (78) for artifacts that hold no documents."""
    from llmctl.artifacts.lineage import find_upstream
    from llmctl.data.documents import find_sources

    for given in inputs:
        if given.url is not None:
            raise NoInput(f"{given.url}: tokenize reads local files; fetch it first")
        if given.kind not in ("documents", "foreign"):
            raise Mismatch(f"{given.path}: a {given.kind} artifact, but tokenize reads documents")
    paths = [given.path for given in inputs]
    if textbook:
        paths.append(find_upstream(inputs[0], "web") / "textbook.parquet")
    return find_sources(paths)


def _plan(config: TokenizeConfig, inputs: list[Any], folder: Any) -> Any:
    """What to read and how to split it; refuses files without the text column."""
    from llmctl.data.documents import plan_units
    from llmctl.data.encode import split_threshold
    from llmctl.data.shards import EncodePlan

    units = plan_units(_sources(inputs, config.textbook), config.text_column)
    if not units:
        raise BadInput("the input holds no rows; check it, or the step that made it")
    below = split_threshold(
        units, config.text_column, config.seed, config.val_fraction, config.skip_damaged
    )
    return EncodePlan(
        folder=folder,
        units=units,
        text_column=config.text_column,
        val_below=below,
        seed=config.seed,
        shard_tokens=config.shard_tokens,
        dtype=config.dtype,
        encoder="tokenizers",
        max_bad=config.max_bad,
        skip_damaged=config.skip_damaged,
    )


def _with_encoder(plan: Any, encoder: str, workers: int) -> Any:
    import dataclasses

    return dataclasses.replace(plan, encoder=encoder, workers=workers)


def _workers(config: TokenizeConfig, plan: Any) -> int:
    """As many as asked for, or as there are cores; one where the input is small."""
    from llmctl.core.hardware import cpu_count

    if config.workers:
        return config.workers
    if sum(unit.n_text for unit in plan.units) < ONE_WORKER_BYTES:
        return 1
    return cpu_count()


def _tokenizer(config: TokenizeConfig, plan: Any, draft: Any) -> Any:
    """The run's tokenizer, written into its folder before anything else; the same at a resume."""
    from llmctl.data.encode import sample_texts
    from llmctl.tokenizer.bpe import FILE, Tokenizer
    from llmctl.tokenizer.train import check_sample, train

    if draft.resuming and (draft.path / FILE).is_file():
        tokenizer = Tokenizer.load(draft.path)
    elif config.tokenizer:
        tokenizer = Tokenizer.load(config.tokenizer)
    else:
        total = sum(unit.n_text for unit in plan.units) / 1e6
        amount = min(total, config.train_mb)
        console.info(f"training a vocabulary of {config.vocab_size:,} ids on {amount:,.1f} MB")
        sample = _Measured(sample_texts(plan, int(config.train_mb * 1e6)))
        tokenizer = train(sample, config.vocab_size)
        check_sample(sample.n_characters)
        if tokenizer.n_ids < config.vocab_size:
            console.warn(
                f"the text gives {tokenizer.n_ids:,} ids, not {config.vocab_size:,}: nothing is "
                f"left to merge; the vocabulary is {tokenizer.vocab_size:,}"
            )
    tokenizer.save(draft.path)
    if draft.remember("tokenizer", tokenizer.hash) != tokenizer.hash:
        raise Mismatch(
            f"{draft.path / FILE}: changed since this run began; remove the folder and run again"
        )
    return tokenizer


class _Measured:
    """Texts counted as they pass."""

    def __init__(self, texts: Any) -> None:
        self.texts, self.n_characters = texts, 0

    def __iter__(self) -> Any:
        for text in self.texts:
            self.n_characters += len(text)
            yield text


def _report(
    config: TokenizeConfig, folder: Any, tokenizer: Any, counts: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Say what came out, and return the stats for the manifest."""
    from llmctl.core.files import human_bytes
    from llmctl.data.usage import longest_tokens, token_stats, used_ids

    if not any(counts[split]["documents"] for split in ("train", "val")):
        raise BadInput("no document with text in the input; check --text-column")
    used = used_ids(folder, tokenizer.vocab_size)
    stats = token_stats(tokenizer, counts, used)
    stats |= {"dtype": config.dtype, "tokenizer": config.tokenizer or "trained"}
    rows = [
        (split, part["documents"], part["tokens"], human_bytes(part["bytes"]), part["shards"])
        for split, part in counts.items()
        if split != "damaged"
    ]
    console.table("", ["split", "documents", "tokens", "text", "shards"], rows)
    speed = (stats["train_bytes"] + stats["val_bytes"]) / 1e6 / max(seconds, 1e-9)
    console.info(
        f"{stats['bytes_per_token']:.2f} bytes a token; {stats['ids_used']:,} of "
        f"{stats['ids_known']:,} ids used, {stats['ids_known'] - stats['ids_used']:,} unused, "
        f"{tokenizer.vocab_size - tokenizer.n_ids:,} padding; {speed:,.1f} MB/s"
    )
    console.info(f"longest tokens: {' '.join(longest_tokens(tokenizer, used))}")
    for key in ("empty_documents", "documents_with_replaced_characters", "bad_rows"):
        if stats[key]:
            console.info(f"{key.replace('_', ' ')}: {stats[key]:,}")
    for problem in counts["damaged"]:
        console.warn(problem)
    if config.val_fraction and not stats["val_documents"]:
        console.warn("no document fell to validation: there is only one, or all are the same")
    return stats


def dry_run(config: TokenizeConfig, inputs: list[Any]) -> None:
    """Say what would be read and written, and how long it would take."""
    from llmctl.core.files import human_bytes
    from llmctl.core.hardware import cpu_count
    from llmctl.data.documents import plan_units

    if not inputs:
        console.info("no documents yet: they would be made first, by crawl-filter with recipe tiny")
        return
    sources = _sources(inputs, config.textbook)
    units = plan_units(sources, config.text_column)
    n_text = sum(unit.n_text for unit in units)
    known = all(unit.n_rows is not None for unit in units)
    documents = sum(unit.n_rows or 0 for unit in units)
    tokens = int(n_text / BYTES_PER_TOKEN) + documents
    size = tokens * (2 if config.dtype == "uint16" else 4)
    cores = config.workers or cpu_count()
    training = 0.0 if config.tokenizer else min(n_text, config.train_mb * 1e6) / TRAIN_SPEED
    seconds = training + n_text / SPEED["gigatoken"] / cores
    rows: list[tuple[str, Any]] = [
        ("files", len(sources)),
        ("documents", documents if known else "not known before reading"),
        ("text", human_bytes(n_text)),
        ("vocabulary", config.tokenizer or f"{config.vocab_size:,} ids, trained on the text"),
        ("tokens, about", tokens),
        ("of them validation, about", int(tokens * config.val_fraction)),
        ("bins", f"{human_bytes(size)} in {max(1, -(-tokens // config.shard_tokens)):,} shards"),
        ("time, about", f"{seconds:,.0f} s on {cores} cores, {training:,.0f} s of it training"),
    ]
    console.table("tokenize would read and write", ["", ""], rows)


def _show(config: TokenizeConfig, inputs: list[Any]) -> None:
    """Print a text's tokens on stdout: painted on a terminal, one a line elsewhere."""
    import sys

    from llmctl.tokenizer import show
    from llmctl.tokenizer.bpe import Tokenizer

    given: list[Any] = [i.path for i in inputs if i.kind != "documents"]
    if not config.tokenizer and not given:
        raise UsageError(
            "--show needs a tokenizer: --tokenizer gpt2|cl100k|PATH, or a tokens or model folder "
            "as INPUT"
        )
    tokenizer = Tokenizer.load(config.tokenizer or given[0])
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(show.painted(tokenizer, config.show) if colour else show.plain(tokenizer, config.show))
    console.info(show.summary(tokenizer, config.show))


STAGE = Stage(
    name="tokenize",
    version=1,
    summary="documents -> token bins (uint16)",
    config=TokenizeConfig,
    run=run,
    dry_run=dry_run,
    reads=("documents", "foreign", "tokens", "model"),
    writes="tokens",
    upstream="crawl-filter",
    many=True,
    path_settings=("tokenizer",),
    text_mode=lambda config: bool(config.show),
)
