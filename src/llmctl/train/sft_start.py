"""What a supervised tuning run starts from: model, tokenizer, chat format, conversations, steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from llmctl.artifacts.store import Artifact
from llmctl.core.errors import Mismatch, UsageError
from llmctl.core.terminal import printable
from llmctl.data.conversations import SourceSpec, read_conversations
from llmctl.data.masked import fitting_length
from llmctl.infer.prompts import start_record
from llmctl.model import hf
from llmctl.model.config import ModelConfig
from llmctl.model.grow import grow_embedding
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.bpe import Tokenizer, padded
from llmctl.tokenizer.chat import ChatFormat, chat_format, with_chat
from llmctl.train.plan import LONGEST_AUTO
from llmctl.train.sft_data import Chats, open_chats, render_all
from llmctl.view.mask import show_mask

ROWS_A_STEP = 8  # unless batch_tokens says otherwise


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run starts from: tokenizer and format as they will be, and the model's shape."""

    folder: Path
    tokenizer: Tokenizer
    format: ChatFormat
    shape: ModelConfig
    known: int  # ids of the tokenizer before it got our control tokens
    grown: bool
    record: dict[str, list[int]]  # what the manifest keeps of the model it starts from

    def load_model(self, seed: int) -> Transformer:
        """The model in fp32 on the CPU, with rows for our control tokens where it had none."""
        model = hf.load_model(self.folder, torch.float32)
        if self.grown:
            grow_embedding(model, self.tokenizer.n_ids, known=self.known, seed=seed)
        model.config = self.shape
        return model


def open_start(artifact: Artifact, seq_len: int) -> Start:
    """The model to tune, checked; one without a chat format gets ours.

    seq_len: context wanted, 0 for the model's own. Mismatch (78) when tokenizer, template and
    weights are not those that belong together; UsageError (2) for a context it cannot have.
    """
    folder = artifact.path
    shape = hf.load_config(folder)
    tokenizer = Tokenizer.of_model(folder)
    known = tokenizer.n_ids
    if known > shape.vocab_size:
        raise Mismatch(
            f"{folder}: its tokenizer has {known:,} ids, its embedding only "
            f"{shape.vocab_size:,}; take both from one place"
        )
    found = chat_format(tokenizer)
    _check_belonging(artifact, tokenizer, found)
    record = start_record(artifact, tokenizer)
    grown = found is None
    if grown:
        tokenizer = with_chat(tokenizer)
        found = chat_format(tokenizer)
    assert found is not None
    if seq_len > shape.max_seq_len and shape.family == "gpt2":
        raise UsageError(f"seq_len={seq_len:,}: {folder} has {shape.max_seq_len:,} positions")
    stop = [found.end_id] if found.own else []
    eos = dict.fromkeys([*stop, *shape.eos_ids, *sorted(found.stop_ids)])
    more = tokenizer.n_ids > known
    shape = dataclasses.replace(
        shape,
        vocab_size=max(shape.vocab_size, padded(tokenizer.n_ids)) if more else shape.vocab_size,
        max_seq_len=max(seq_len, shape.max_seq_len),
        eos_ids=tuple(eos),
        pad_id=tokenizer.eot_id if found.own else shape.pad_id,
    )
    return Start(folder, tokenizer, found, shape, known, grown, record)


def _check_belonging(artifact: Artifact, tokenizer: Tokenizer, format: ChatFormat | None) -> None:
    """A chat model of ours says which tokenizer and template it was tuned with."""
    told = artifact.stats.get("chat")
    if not isinstance(told, dict):
        return
    here = {"tokenizer": tokenizer.hash, "template": format.hash if format else None}
    for what, value in here.items():
        if told.get(what) != value:
            raise Mismatch(
                f"{artifact.path}: tuned with another {what} ({str(told.get(what))[:12]}) than the "
                f"one beside it ({str(value)[:12]}); copy the folder again"
            )


def row_length(config: Any, shape: ModelConfig) -> int:
    """Tokens of a row: as given, else the model's context up to what is usual."""
    return config.seq_len or min(shape.max_seq_len, LONGEST_AUTO)


def lr_share(width: int) -> float:
    """Of pretraining's rate, for lr=0: 1e-3 in all at 256 wide, falling as width^-1.5.

    Measured at 256 wide, one epoch of 3,466 synthetic conversations: validation loss 1.48 at 3e-4,
    0.99 at 1e-3. At 576 wide 3e-4, at 4,096 1.6e-5, what others tune such models with.
    """
    return (1 / 3) * min(1.0, (256 / width) ** 0.5)


def rows_a_step(config: Any, seq_len: int) -> int:
    """Rows of an update. UsageError (2) when batch_tokens is no number of whole rows."""
    if not config.batch_tokens:
        return ROWS_A_STEP
    if config.batch_tokens % seq_len:
        more = -(-config.batch_tokens // seq_len) * seq_len
        raise UsageError(
            f"batch_tokens={config.batch_tokens:,} is not a multiple of seq_len={seq_len:,}; "
            f"{more:,} is the next one"
        )
    return config.batch_tokens // seq_len


def read_chats(config: Any, start: Start, specs: list[SourceSpec]) -> Chats:
    """The run's conversations."""
    return open_chats(
        specs,
        start.format,
        seq_len=row_length(config, start.shape),
        vocab_size=start.shape.vocab_size,
        pad_id=start.tokenizer.eot_id if start.format.own else 0,
        val_fraction=config.val_fraction,
        seed=config.seed,
        max_bad=config.max_bad,
    )


def steps_of(config: Any, chats: Chats, rows_per_step: int) -> tuple[int, str]:
    """(updates, why so many)."""
    if config.steps:
        return config.steps, "as given"
    rows = chats.train.rows_of(config.epochs)
    return max(1, -(-rows // rows_per_step)), f"{config.epochs:g} epochs"


def masked_texts(
    config: Any, model: Artifact, specs: list[SourceSpec], *, colour: bool
) -> Iterator[str]:
    """`config.show_mask` conversations of each source as text in which the mask can be seen."""
    start = open_start(model, config.seq_len)
    room = row_length(config, start.shape)
    for spec in specs:
        found = read_conversations(spec.path, max_bad=config.max_bad)
        rows = spec.select(found)[: config.show_mask]
        for row, rendered in zip(rows, render_all(rows, start.format)):
            if isinstance(rendered, str):
                yield f"{row.where}: not usable: {rendered}"
                continue
            kept = fitting_length(rendered.mask, room)
            said = f"{row.where}: {len(rendered.ids):,} tokens, {sum(rendered.mask):,} trained on"
            if kept < len(rendered.ids):
                said += f"; only the first {kept:,} fit" if kept else "; dropped: no answer fits"
            text = show_mask(start.tokenizer, rendered.ids, rendered.mask, colour=colour)
            yield f"{printable(said)}\n{text}"
