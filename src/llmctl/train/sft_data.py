"""Conversations as supervised tuning takes them: read, rendered, cut to the context, split, packed.

Nothing is left out silently: what was skipped, cut or dropped is counted with its reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.core import console
from llmctl.core.errors import BadInput
from llmctl.data.conversations import Conversation, SourceSpec, read_conversations
from llmctl.data.encode import in_validation
from llmctl.data.masked import MaskedRows, MaskedSequences, fitting_length
from llmctl.tokenizer.chat import ChatFormat, Rendered

RENDERED_AT_ONCE = 1000  # conversations
UNTRAINED = "nothing in them is trained on"


@dataclass
class Source:
    """One --data as it was taken in."""

    path: Path
    weight: float
    format: str
    train: MaskedSequences
    val: MaskedSequences
    skipped: dict[str, int]  # by the reader
    notes: dict[str, int]  # what the reader changed: how often
    dropped: Counter[str] = field(default_factory=Counter)  # here
    cut: int = 0  # later turns left out

    def stats(self) -> dict[str, Any]:
        """For the manifest."""
        found: dict[str, Any] = {"name": self.path.name, "format": self.format}
        found |= {"weight": self.weight, "conversations": len(self.train)}
        found |= {"validation": len(self.val), "cut": self.cut}
        found |= {"dropped": dict(self.dropped), "skipped": self.skipped}
        return found | {"notes": self.notes}

    def line(self) -> str:
        """For people."""
        said = [f"{self.path}: {len(self.train) + len(self.val):,} conversations ({self.format})"]
        said += [f"x {self.weight:g} an epoch"] if self.weight != 1 else []
        said += [f"{self.cut:,} cut after an earlier turn to fit"] if self.cut else []
        said += [f"{n:,} dropped: {why}" for why, n in self.dropped.items()]
        said += [f"{n:,} skipped: {why}" for why, n in self.skipped.items()]
        said += [f"{what}: {n:,}" for what, n in self.notes.items()]
        return ", ".join(said)


@dataclass(frozen=True)
class Chats:
    """All of a run's conversations. val is None where none was held out."""

    sources: list[Source]
    train: MaskedRows
    val: MaskedRows | None

    @property
    def hash(self) -> str:
        """What was trained on, ids and masks, in the order they were read."""
        hashes = [h for s in self.sources for h in (s.train.hash, s.val.hash, str(s.weight))]
        return hashlib.sha256(" ".join(hashes).encode()).hexdigest()

    def stats(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "conversations": sum(len(s.train) for s in self.sources),
            "val_conversations": sum(len(s.val) for s in self.sources),
            "tokens_an_epoch": self.train.n_tokens,
            "targets_an_epoch": self.train.n_targets,
            "padding": round(self.train.padding, 4),
            "sources": [s.stats() for s in self.sources],
        }

    def say(self) -> None:
        """What was read, and what became of it."""
        for source in self.sources:
            console.info(source.line())
        rows = self.train
        console.info(
            f"an epoch: {rows.n_tokens:,} tokens, {rows.n_targets:,} of them trained on, in "
            f"{len(rows):,} rows of {rows.seq_len:,}, {rows.padding:.2%} padding"
        )


def open_chats(
    specs: Sequence[SourceSpec],
    format: ChatFormat,
    *,
    seq_len: int,
    vocab_size: int,
    pad_id: int,
    val_fraction: float,
    seed: int,
    max_bad: float,
) -> Chats:
    """Read and pack every source. Nothing that begins alike is on both sides of the split.

    BadInput (65) when more than max_bad of a source cannot be read or holds nothing to train on, or
    when no conversation is left; UsageError (2) for a column or value that is not there.
    """
    sources = []
    for spec in specs:
        found = read_conversations(spec.path, max_bad=max_bad)
        rows = spec.select(found)
        source = Source(
            spec.path, spec.weight, found.format, _NONE, _NONE, found.skipped, found.notes
        )
        kept = list(_fitting(rows, format, seq_len, source))
        _check_dropped(source, len(rows), seq_len, max_bad)
        sides: tuple[list[Rendered], list[Rendered]] = ([], [])
        for row, rendered in kept:
            sides[in_validation(row.group, val_fraction, seed)].append(rendered)
        source.train, source.val = (MaskedSequences.of(side) for side in sides)
        sources.append(source)
    common: dict[str, Any] = {"seq_len": seq_len, "vocab_size": vocab_size, "pad_id": pad_id}
    train = MaskedRows(
        [s.train for s in sources], weights=[s.weight for s in sources], seed=seed, **common
    )
    held = [s.val for s in sources if len(s.val)]
    return Chats(sources, train, MaskedRows(held, **common) if held else None)


_NONE = MaskedSequences.of([])


def _fitting(
    rows: Sequence[Conversation], format: ChatFormat, seq_len: int, source: Source
) -> Iterator[tuple[Conversation, Rendered]]:
    """The conversations as ids and masks, cut at the end of a turn where they are too long."""
    for row, rendered in zip(rows, render_all(rows, format)):
        if isinstance(rendered, str):
            source.dropped[rendered] += 1
        elif not any(rendered.mask):
            source.dropped[UNTRAINED] += 1
        elif not (length := fitting_length(rendered.mask, seq_len)):
            source.dropped[f"no whole answer fits {seq_len:,} tokens"] += 1
        elif length < len(rendered.ids):
            source.cut += 1
            yield row, Rendered(rendered.ids[:length], rendered.mask[:length])
        else:
            yield row, rendered


def render_all(rows: Sequence[Conversation], format: ChatFormat) -> Iterator[Rendered | str]:
    """Each conversation rendered, or why the format has no place for it."""
    for at in range(0, len(rows), RENDERED_AT_ONCE):
        part = rows[at : at + RENDERED_AT_ONCE]
        yield from format.try_many([row.messages for row in part])


def _check_dropped(source: Source, n_rows: int, seq_len: int, max_bad: float) -> None:
    untrained = source.dropped[UNTRAINED]
    if untrained > max_bad * n_rows:
        raise BadInput(
            f"{source.path}: {untrained:,} of {n_rows:,} conversations have nothing to train on; "
            "see what the chat template marks as the assistant's with --show-mask 3"
        )
    if n_rows == sum(source.dropped.values()):
        raise BadInput(
            f"{source.path}: none of {n_rows:,} conversations can be used in rows of "
            f"{seq_len:,} tokens: {', '.join(source.dropped)}; give a longer seq_len"
        )
