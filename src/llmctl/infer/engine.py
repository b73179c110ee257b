"""The engine: prompts in, completions out, many rows at once.

Rows join and leave as they go: a finished row gives its place to a waiting prompt at once
(continuous batching). Token k that row r of a request draws is drawn with uniform(seed, r, k), so
its result does not depend on the batch it ran in, as far as floating point allows.

With tools, a row whose turn ends with a call leaves, and joins again with all its ids and those of
the result behind them: nothing is encoded twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from llmctl.core.errors import BadInput, Diverged, Mismatch
from llmctl.infer.completion import CallRecord, Completion, Event, FinishReason, Stats
from llmctl.infer.drawing import next_ids
from llmctl.infer.kv_cache import KVCache
from llmctl.infer.params import SamplingParams
from llmctl.infer.prefix import Prefix
from llmctl.infer.row import Row
from llmctl.infer.runner import PREFILL_TOKENS, Runner
from llmctl.infer.text import TextStream
from llmctl.infer.toolbox import Running, ToolBox
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import ToolCall

__all__ = ["CallRecord", "Completion", "Engine", "Event", "FinishReason", "Stats", "ToolBox"]
FIRST_COLUMNS = 128  # columns of a new cache beyond the longest prompt, at most
KV_SHARE = 0.4  # of the memory that is free, for keys and values


class Engine:
    """Generation with one model. Not safe for use from several threads.

    The model is used as it is now: `refresh` takes its weights anew when they have changed.
    max_rows: rows at work at once. kv_bytes: memory for keys and values, which lowers the rows as
    well; None: a share of what is free when a request comes. dtype, consume: see Runner; runner:
    one made of the same weights, by an engine of another thread.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        max_rows: int = 64,
        kv_bytes: int | None = None,
        dtype: torch.dtype | None = None,
        consume: bool = False,
        runner: Runner | None = None,
        source: str = "the model",
    ) -> None:
        self.config, self.tokenizer, self.source = model.config, tokenizer, source
        if tokenizer.n_ids > model.config.vocab_size:
            raise Mismatch(
                f"{source}: its tokenizer has {tokenizer.n_ids:,} ids, its embedding only "
                f"{model.config.vocab_size:,}; take both from one place"
            )
        self.max_rows, self.kv_bytes = max_rows, kv_bytes
        self.runner = runner or Runner(model, dtype=dtype, consume=consume)
        self._model = None if consume else model
        self.stats = Stats()
        self.end_ids = frozenset(model.config.eos_ids) or _end_of_text(tokenizer)
        # ids that stand for nothing, such as the padding of the vocabulary, are never drawn
        known = [i for i, b in enumerate(tokenizer.token_bytes[: tokenizer.n_ids]) if not b]
        self.holes = torch.tensor(known, dtype=torch.int64, device=self.runner.device)

    def refresh(self) -> None:
        """Take the model's weights as they are now. Not while a request is being answered."""
        if self._model is None:
            raise ValueError("an engine that consumed its model has nowhere to take weights from")
        self.runner = Runner(self._model, dtype=self.runner.dtype)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
        on_text: Callable[[Event], None] | None = None,
        tools: ToolBox | None = None,
        prefix: Prefix | None = None,
    ) -> list[Completion]:
        """A completion for each prompt, in order. on_text is called with new text as it comes."""
        done: dict[int, Completion] = {}
        events = self.stream(prompts, params, tools, prefix)
        try:
            for event in events:
                if on_text is not None:
                    on_text(event)
                if event.completion.finish_reason is not None:
                    done[event.completion.index] = event.completion
        finally:
            events.close()  # now, whatever was raised: running tools end with it
        return [done[i] for i in range(len(prompts))]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
        tools: ToolBox | None = None,
        prefix: Prefix | None = None,
    ) -> Generator[Event, None, None]:
        """Events of all rows as they happen; each row's last one has a finish_reason.

        tools: what the model may call; max_tokens counts what it draws, not what tools answer.
        prefix: of one prompt, what is kept from the last one and for the next.
        Whoever stops early calls close() of what is returned, which ends running tools.
        Raises BadInput for an empty prompt, one with an id the model has not, or one that leaves no
        room in the context, before anything is computed; Diverged when logits are not numbers.
        """
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        waiting = deque(
            self._row(i, list(ids), chosen)
            for i, (ids, chosen) in enumerate(zip(prompts, each, strict=True))
        )
        if not waiting:
            return
        if prefix is not None and len(waiting) > 1:
            raise ValueError(f"a prefix is kept of one conversation; got {len(waiting)} prompts")
        calls: Running[Row] | None = None if tools is None else Running(tools)
        try:
            yield from self._work(waiting, calls, prefix)
        finally:
            if calls is not None:
                calls.stop()

    def _work(
        self, waiting: deque[Row], calls: Running[Row] | None, prefix: Prefix | None
    ) -> Iterator[Event]:
        new_cache = partial(self._new_cache, waiting, grows=calls is not None)
        cache = prefix.open(self.runner, new_cache) if prefix else new_cache()
        rows: list[Row] = []
        step = 0
        while rows or waiting or (calls and calls.away):
            if calls and calls.away:
                yield from self._rejoin(calls, waiting, step, idle=not rows and not waiting)
            box = calls.box if calls else None
            if waiting and cache.n_rows < cache.max_rows:
                active, logits = self._admit(cache, waiting, prefix)
                events = self._advance(cache, rows, active, logits, box, first=len(rows))
            elif rows:
                ids = torch.tensor([r.completion.ids[-1] for r in rows], device=self.runner.device)
                started = time.perf_counter()
                logits = self.runner.decode(cache, ids)
                active, rows = rows, []
                events = self._advance(cache, rows, active, logits, box, started=started)
            else:
                continue  # all have come back at their end
            step += 1
            for row in active:
                if calls and row.asked is not None:
                    calls.start(row, row.asked, self.tokenizer.decode(row.turn), step)
            yield from events

    def _rejoin(
        self, calls: Running[Row], waiting: deque[Row], step: int, *, idle: bool
    ) -> Iterator[Event]:
        """Rows whose calls have been answered wait for a place again."""
        for row, record in calls.back(step, idle=idle):
            completion = row.completion
            completion.calls.append(record)
            self.stats.calls += 1
            forced = calls.box.format.result_ids(record.name, record.result)
            if row.length + len(forced) < self.config.max_seq_len:
                row.force(forced)
                waiting.append(row)
                yield Event(completion, "", call=record)
            else:
                completion.finish_reason, row.held = "context", []
                row.end()
                yield Event(completion, row.stream.new_text(final=True), call=record)

    def _new_cache(self, waiting: Sequence[Row], grows: bool = False) -> KVCache:
        """A cache with as many rows as are asked for, allowed, and fit in memory at full length.
        grows: results of tools may come on top of what the rows ask for."""
        longest = self.config.max_seq_len
        asked = [(len(row.completion.prompt_ids), row.params.max_tokens) for row in waiting]
        full = longest if grows else max(min(size + n, longest) for size, n in asked)
        first = max(size + min(n, longest - size, FIRST_COLUMNS) for size, n in asked)
        per_row = full * self.config.kv_bytes_per_token(self.runner.dtype.itemsize)
        room = self.kv_bytes
        if room is None:
            room = int(KV_SHARE * free_bytes(self.runner.device))
        fit = max(1, room // per_row)
        return self.runner.new_cache(min(self.max_rows, len(waiting), fit), first)

    def _row(self, index: int, ids: list[int], params: SamplingParams) -> Row:
        room = self.config.max_seq_len - len(ids)
        if not ids or room < 1:
            raise BadInput(
                f"prompt {index}: {len(ids):,} tokens, while the context of {self.source} is "
                f"{self.config.max_seq_len:,}; shorten it so that 1 to "
                f"{self.config.max_seq_len - 1:,} remain"
            )
        if not 0 <= min(ids) <= max(ids) < self.config.vocab_size:
            raise BadInput(f"prompt {index}: an id is not below {self.config.vocab_size:,}")
        return Row(Completion(index, ids), params, TextStream(self.tokenizer, params.stop))

    def _admit(
        self, cache: KVCache, waiting: deque[Row], prefix: Prefix | None
    ) -> tuple[list[Row], Tensor]:
        """Take as many waiting rows in as fit; equal prompts go through the model once."""
        joined: list[Row] = []
        numbers: list[int] = []
        first_with: dict[tuple[int, ...], int] = {}
        sources: list[int] = []
        tokens = 0
        while waiting and cache.n_rows < cache.max_rows and (tokens < PREFILL_TOKENS or not joined):
            row = waiting.popleft()
            key = tuple(row.context)
            if key not in first_with:
                first_with[key] = len(first_with)
                tokens += len(key)
            joined.append(row)
            sources.append(first_with[key])
            numbers.append(cache.add_row())
        started = time.perf_counter()
        prompts = list(first_with)
        leaders = [numbers[sources.index(i)] for i in range(len(prompts))]
        logits = (prefix or self.runner).prefill(cache, leaders, prompts)
        for number, source in zip(numbers, sources):
            if number != leaders[source]:
                cache.copy_row(leaders[source], number)
        self.stats.prefill_tokens += tokens - (prefix.reused if prefix else 0)
        self.stats.prefill_seconds += time.perf_counter() - started
        return joined, logits[torch.tensor(sources, device=logits.device)]

    def _advance(
        self,
        cache: KVCache,
        kept: list[Row],
        active: list[Row],
        logits: Tensor,
        box: ToolBox | None,
        *,
        first: int = 0,
        started: float | None = None,
    ) -> list[Event]:
        """Draw a token for each active row (cache rows first ..), append those that go on to
        `kept`, and drop the others from the cache."""
        ids = self._choose(active, logits)
        if started is not None:
            self.stats.decode_tokens += len(ids)
            self.stats.decode_seconds += time.perf_counter() - started
        events = [self._take(row, id, box) for row, id in zip(active, ids)]
        kept.extend(active)
        for number in range(len(kept) - 1, first - 1, -1):
            if kept[number].leaves:
                cache.drop_row(number)
                kept[number] = kept[-1]
                kept.pop()
        return [e for e in events if e.text or e.asked or e.completion.probs or _final(e)]

    @torch.inference_mode()
    def _choose(self, rows: list[Row], logits: Tensor) -> list[int]:
        """The next id of each row, with log-probabilities noted where they were asked for."""
        logits = logits[:, : self.tokenizer.n_ids]
        if self.holes.numel():
            logits = logits.index_fill(1, self.holes, float("-inf"))
        if not bool(torch.isfinite(logits.amax(-1)).all()):
            raise Diverged(
                f"{self.source}: its logits are not numbers; the weights are damaged or diverged"
            )
        return next_ids(rows, logits)

    def _take(self, row: Row, id: int, box: ToolBox | None) -> Event:
        """Append one id to a row, and end it, or its turn, where it ends."""
        completion, params = row.completion, row.params
        completion.ids.append(id)
        completion.sampled.append(True)
        row.turn.append(id)
        row.n_sampled += 1
        ends = id in params.stop_ids or (id in self.end_ids and not params.ignore_eos)
        if box is not None:
            ends = ends or id in box.format.stop_ids
        if not ends:
            row.say(id, box.markers if box else frozenset())
        if row.n_sampled >= params.max_tokens and not ends:
            completion.finish_reason = "length"
        elif row.length >= self.config.max_seq_len and not ends:
            completion.finish_reason = "context"
        if row.stream.stopped:
            completion.finish_reason = "stop"
        elif ends:
            self._end_turn(row, box)
        if completion.finish_reason is not None:
            row.end()
        text = row.stream.new_text(final=completion.finish_reason is not None)
        return Event(completion, text, row.asked if isinstance(row.asked, ToolCall) else None)

    def _end_turn(self, row: Row, box: ToolBox | None) -> None:
        """At an end id: the row is finished, or asks for a tool."""
        completion = row.completion
        asked = box.asked(row.turn) if box else None
        if asked is None:
            completion.finish_reason = "stop"
        elif box and box.exhausted(completion.calls):
            completion.finish_reason = "calls"
        elif row.n_sampled >= row.params.max_tokens:
            completion.finish_reason = "length"
        else:
            row.asked = asked


def _final(event: Event) -> bool:
    return event.completion.finish_reason is not None


def _end_of_text(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokenizer's own end-of-text id; none when it has none."""
    try:
        return frozenset({tokenizer.eot_id})
    except Mismatch:
        return frozenset()


def free_bytes(device: torch.device) -> int:
    """Memory that could be taken on a device now; 4 GB where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:
            found = next(line for line in lines if line.startswith("MemAvailable"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return 4_000_000_000
