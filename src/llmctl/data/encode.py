"""Documents to token bins: encode in parallel, write in order, go on where a killed run stopped.

Workers encode units and leave the ids in spool files; the parent copies them into shards in the
order of the input, so the bytes do not depend on the number of workers. A resumed run starts at the
positions that the finished shards recorded (see shards.py), and encodes nothing before them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from llmctl.core.errors import BadInput, LlmctlError
from llmctl.core.seeds import derive
from llmctl.core.workers import ordered_map
from llmctl.data.bins import FORMATS
from llmctl.data.documents import Unit
from llmctl.data.rows import OK, REPLACED, Rows, read_unit
from llmctl.data.shards import SPLITS, STATE, Block, EncodePlan, SplitWriter
from llmctl.tokenizer.bpe import FILE, Tokenizer

_WHOLE = 1 << 64
SMALL = 32 << 20  # bytes of text that are read once more, to have a validation document for sure


def split_numbers(rows: Rows, seed: int) -> np.ndarray:
    """(N,) uint64: a number in 0..2**64-1 for each row, by its id, or by its text without one."""
    keys: Any = rows.ids or [None] * len(rows.texts)
    if any(key is None for key in keys):
        texts = rows.texts.to_pylist()
        keys = [texts[i] if key is None else key for i, key in enumerate(keys)]
    return np.frombuffer(b"".join(_digest(k, seed) for k in keys), dtype="<u8")


def _digest(key: str, seed: int) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8, key=str(seed).encode()).digest()


def in_validation(doc_id: str, val_fraction: float, seed: int) -> bool:
    """Whether `tokenize` puts the document with this id into the val split.

    But for a corpus so small that none falls there: then the one of the lowest number is taken.
    """
    return int.from_bytes(_digest(doc_id, seed), "little") < int(val_fraction * _WHOLE)


def split_threshold(
    units: Sequence[Unit], text_column: str, seed: int, val_fraction: float, skip_damaged: bool
) -> int:
    """Numbers below it are validation. A small corpus gets at least one document there."""
    below = int(val_fraction * _WHOLE)
    small = sum(unit.n_text for unit in units) <= SMALL
    if not val_fraction or not small:
        return below
    lowest, highest = _WHOLE, -1
    for unit in units:
        for rows in _readable(unit, text_column, skip_damaged):
            kept = np.isin(rows.marks, (OK, REPLACED))
            numbers = split_numbers(rows, seed)[kept]
            if len(numbers):
                lowest = min(lowest, int(numbers.min()))
                highest = max(highest, int(numbers.max()))
    return max(below, lowest + 1) if lowest < highest else min(below, lowest)


def _readable(unit: Unit, text_column: str, skip_damaged: bool) -> Iterator[Rows]:
    """The unit's rows; where damage is to be skipped, those before it."""
    try:
        yield from read_unit(unit, text_column)
    except BadInput:
        if not skip_damaged:
            raise


def sample_texts(plan: EncodePlan, n_bytes: int) -> Iterator[str]:
    """Texts of the train split to learn a vocabulary from, about n_bytes of them, in input order.

    Where the input is larger, documents drawn by a hash of their id, from units spread over it.
    """
    total = sum(u.n_text for u in plan.units)
    step = max(1, total // (4 * n_bytes))
    units = plan.units[::step] if len(plan.units) > 4 * step else plan.units
    share = 1.1 * n_bytes / max(1, sum(u.n_text for u in units))
    left = n_bytes
    for unit in units:
        for rows in _readable(unit, plan.text_column, plan.skip_damaged):
            keep = np.isin(rows.marks, (OK, REPLACED))
            keep &= split_numbers(rows, plan.seed) >= np.uint64(plan.val_below)
            if share < 1:
                drawn = split_numbers(rows, derive(plan.seed, "tokenizer sample"))
                keep &= drawn < np.uint64(int(share * _WHOLE))
            for text in rows.texts.filter(keep).to_pylist():
                yield text[:left]
                left -= len(text.encode())
                if left <= 0:
                    return


class _Worker:
    """What a process needs to encode units."""

    plan: EncodePlan
    tokenizer: Tokenizer
    encoder: Any


def start_worker(plan: EncodePlan) -> None:
    """Load the tokenizer of the run."""
    from llmctl.tokenizer.fast import make

    _Worker.plan = plan
    _Worker.tokenizer = Tokenizer.load(plan.folder / FILE)
    _Worker.encoder = make(_Worker.tokenizer, plan.encoder)


def encode_unit(task: tuple[int, tuple[int, int]], careful: bool) -> Iterator[Block] | Path:
    """Blocks of a unit, or the spool file a worker process left them in.

    task: the unit's number; for train and val, the first row that is still wanted.
    """
    from multiprocessing import parent_process

    number, firsts = task
    encoder = _Worker.encoder
    if careful:
        from llmctl.tokenizer.fast import make

        encoder = make(_Worker.tokenizer, "tokenizers")
    blocks = _encoded(_Worker.plan.units[number], firsts, encoder)
    if parent_process() is None:
        return blocks
    path = _Worker.plan.folder / STATE / f"unit-{number:08d}.spool"
    with open(path, "wb") as handle:
        for block in blocks:
            np.save(handle, block.rows, allow_pickle=False)
            np.save(handle, block.ids, allow_pickle=False)
            words = json.dumps([block.problem, block.damage]).encode()
            np.save(handle, np.frombuffer(words, dtype=np.uint8), allow_pickle=False)
    return path


def _encoded(unit: Unit, firsts: tuple[int, int], encoder: Any) -> Iterator[Block]:
    plan, at = _Worker.plan, 0
    try:
        for rows in read_unit(unit, plan.text_column):
            yield _block(rows, at, firsts, encoder)
            at += len(rows.texts)
    except BadInput as error:
        if not plan.skip_damaged:
            raise
        empty = np.empty(0, FORMATS[plan.dtype].dtype)
        yield Block(np.empty((0, 4), np.int64), empty, damage=str(error).split(";")[0])


def _block(rows: Rows, at: int, firsts: tuple[int, int], encoder: Any) -> Block:
    plan, tokenizer = _Worker.plan, _Worker.tokenizer
    number = np.arange(at, at + len(rows.texts))
    split = (split_numbers(rows, plan.seed) < np.uint64(min(plan.val_below, _WHOLE - 1))).astype(
        int
    )
    marks = np.array(rows.marks, dtype=np.int64)
    wanted = (marks == OK) | (marks == REPLACED)
    wanted &= number >= np.where(split == 0, firsts[0], firsts[1])
    texts = rows.texts.filter(wanted) if not wanted.all() else rows.texts
    flat, lengths = encoder.encode(texts)
    highest = int(flat.max(initial=0))
    if highest >= tokenizer.n_ids:
        raise LlmctlError(f"id {highest:,} from a tokenizer of {tokenizer.n_ids:,} ids; a bug")
    begins = np.cumsum(lengths) - lengths
    ids = np.insert(flat, begins, tokenizer.eot_id).astype(FORMATS[plan.dtype].dtype)
    table = np.zeros((len(number), 4), dtype=np.int64)
    table[:, 0], table[:, 3] = split, marks
    table[wanted, 1] = lengths + 1
    table[:, 2] = np.diff(_offsets(rows.texts))
    return Block(table, ids, rows.problem)


def _offsets(texts: Any) -> np.ndarray:
    """(N + 1,) where the texts begin in their buffer."""
    return np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, 8 * texts.offset)


def encode_documents(plan: EncodePlan, bar: Any) -> dict[str, Any]:
    """Fill plan.folder (which holds tokenizer.json) with bins. Returns the counts of both splits.

    bar: told the bytes of text done. Byte-identical for any number of workers and any interruption.
    """
    tokenizer = Tokenizer.load(plan.folder / FILE)
    (plan.folder / STATE).mkdir(exist_ok=True)
    for spool in (plan.folder / STATE).glob("*.spool"):
        spool.unlink()
    damaged: dict[int, str] = {}
    writers = [SplitWriter(plan, split, tokenizer, damaged=damaged) for split in SPLITS]
    problems: list[str] = []
    try:
        for writer in writers:
            writer.resume()
        start = min(w.position[0] for w in writers)
        tasks = [
            (n, (writers[0].first_row(n), writers[1].first_row(n)))
            for n in range(start, len(plan.units))
        ]
        results = ordered_map(
            encode_unit,
            tasks,
            plan.workers,
            start_worker,
            (plan,),
            name=lambda task: str(plan.units[task[0]].source.path),
        )
        for (number, _), result in zip(tasks, results):
            first, text = 0, 0
            for block in _blocks(result):
                for writer in writers:
                    writer.add(number, first, block)
                first += len(block.rows)
                text += int(block.rows[:, 2].sum())
                problems += [block.problem] if block.problem else []
                if block.damage:
                    damaged[number] = block.damage
            bar.advance(text)
            _check_bad(writers, problems, plan.max_bad, rows_wanted=1000)
        _check_bad(writers, problems, plan.max_bad, rows_wanted=1)
        for writer in writers:
            if writer._writer is not None or not writer.shard:
                writer.close((len(plan.units), 0, 0))
    finally:
        for writer in writers:
            writer.abandon()
    shutil.rmtree(plan.folder / STATE)
    return {
        **{w.split: vars(w.counts) | {"shards": w.shard} for w in writers},
        "damaged": [damaged[number] for number in sorted(damaged)],
    }


def _blocks(result: Iterator[Block] | Path) -> Iterator[Block]:
    """The blocks a worker made: here, or from its spool file, which is then removed."""
    if not isinstance(result, Path):
        yield from result
        return
    with open(result, "rb") as handle:
        end = result.stat().st_size
        while handle.tell() < end:
            rows, ids, words = (_array(handle) for _ in range(3))
            yield Block(rows, ids, *json.loads(words.tobytes()))
    result.unlink()


def _array(handle: BinaryIO) -> np.ndarray:
    return np.load(handle, allow_pickle=False)


def _check_bad(
    writers: list[SplitWriter], problems: list[str], max_bad: float, rows_wanted: int
) -> None:
    """Stop (65) when too many rows could not be read."""
    bad = sum(w.counts.bad for w in writers)
    rows = bad + sum(w.counts.documents + w.counts.empty for w in writers)
    if rows >= rows_wanted and bad > max_bad * rows:
        raise BadInput(
            f"{bad:,} of {rows:,} rows are bad, more than --max-bad {max_bad:g}; the first: "
            f"{problems[0] if problems else 'before the interruption'}"
        )
