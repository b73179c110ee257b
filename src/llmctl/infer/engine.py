"""The engine: prompts in, completions out, many rows at once.

Rows join and leave as they go: a finished row gives its place to a waiting prompt at once
(continuous batching). Row r of a request is drawn with uniform(seed, r, step), so its result does
not depend on the batch it ran in, as far as floating point allows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from llmctl.core.errors import BadInput, Diverged, Mismatch
from llmctl.infer.kv_cache import KVCache
from llmctl.infer.params import SamplingParams
from llmctl.infer.runner import PREFILL_TOKENS, Runner
from llmctl.infer.sampling import draw, penalise, uniform
from llmctl.infer.text import TextStream
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.bpe import Tokenizer

FIRST_COLUMNS = 128  # columns of a new cache beyond the longest prompt, at most
KV_SHARE = 0.4  # of the memory that is free when a request comes, for keys and values
FinishReason = Literal["stop", "length", "context"]


@dataclass
class Completion:
    """One answer. `ids` are the tokens sampled, the one that ended it included; `text` stops before
    it. finish_reason: stop (an end id or stop string), length (max_tokens), context (the model's
    longest row). logprobs[i] belongs to ids[i]; probs[i]: the most likely (id, probability)."""

    index: int
    prompt_ids: list[int]
    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None
    logprobs: list[float] = field(default_factory=list)
    probs: list[list[tuple[int, float]]] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """New text of one row; `completion` is final once its finish_reason is set."""

    completion: Completion
    text: str


@dataclass
class Stats:
    """Tokens and seconds since the engine was made."""

    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0

    def line(self) -> str:
        """'prefill 512 tokens at 700 tokens/s, decode 64 tokens at 40.1 tokens/s'."""
        parts = []
        for name in ("prefill", "decode"):
            tokens, seconds = getattr(self, f"{name}_tokens"), getattr(self, f"{name}_seconds")
            rate = tokens / max(seconds, 1e-9)
            parts.append(f"{name} {tokens:,} tokens" + f" at {rate:,.1f} tokens/s" * (tokens > 0))
        return ", ".join(parts)


@dataclass
class _Row:
    """A request that is being answered."""

    completion: Completion
    params: SamplingParams
    stream: TextStream
    limit: int  # tokens it may sample
    limited_by: FinishReason


class Engine:
    """Generation with one model. Not safe for use from several threads.

    The model is used as it is now: where nothing had to be copied, later changes of its weights
    show. max_rows: rows at work at once. dtype, consume: see Runner.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        max_rows: int = 64,
        dtype: torch.dtype | None = None,
        consume: bool = False,
        source: str = "the model",
    ) -> None:
        self.config, self.tokenizer, self.source = model.config, tokenizer, source
        if tokenizer.n_ids > model.config.vocab_size:
            raise Mismatch(
                f"{source}: its tokenizer has {tokenizer.n_ids:,} ids, its embedding only "
                f"{model.config.vocab_size:,}; take both from one place"
            )
        self.max_rows = max_rows
        self.runner = Runner(model, dtype=dtype, consume=consume)
        self.stats = Stats()
        self.end_ids = frozenset(model.config.eos_ids) or _end_of_text(tokenizer)
        # ids that stand for nothing, such as the padding of the vocabulary, are never drawn
        known = [i for i, b in enumerate(tokenizer.token_bytes[: tokenizer.n_ids]) if not b]
        self.holes = torch.tensor(known, dtype=torch.int64, device=self.runner.device)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
        on_text: Callable[[Event], None] | None = None,
    ) -> list[Completion]:
        """A completion for each prompt, in order. on_text is called with new text as it comes."""
        done: dict[int, Completion] = {}
        for event in self.stream(prompts, params):
            if on_text is not None:
                on_text(event)
            if event.completion.finish_reason is not None:
                done[event.completion.index] = event.completion
        return [done[i] for i in range(len(prompts))]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
    ) -> Iterator[Event]:
        """Events of all rows as they happen; each row's last one has a finish_reason.

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
        cache = self._new_cache(waiting)
        rows: list[_Row] = []
        while rows or waiting:
            if waiting and cache.n_rows < cache.max_rows:
                joined, logits = self._admit(cache, waiting)
                yield from self._advance(cache, rows, joined, logits, first=len(rows))
                continue
            ids = torch.tensor([r.completion.ids[-1] for r in rows], device=self.runner.device)
            started = time.perf_counter()
            logits = self.runner.decode(cache, ids)
            active, rows = rows, []
            yield from self._advance(cache, rows, active, logits, first=0, started=started)

    def _new_cache(self, waiting: Sequence[_Row]) -> KVCache:
        """A cache with as many rows as are asked for, allowed, and fit in memory at full length."""
        prompts = [len(row.completion.prompt_ids) for row in waiting]
        full = max(size + row.limit for size, row in zip(prompts, waiting))
        first = max(size + min(row.limit, FIRST_COLUMNS) for size, row in zip(prompts, waiting))
        per_row = full * self.config.kv_bytes_per_token(self.runner.dtype.itemsize)
        fit = max(1, int(KV_SHARE * free_bytes(self.runner.device)) // per_row)
        return self.runner.new_cache(min(self.max_rows, len(waiting), fit), first)

    def _row(self, index: int, ids: list[int], params: SamplingParams) -> _Row:
        room = self.config.max_seq_len - len(ids)
        if not ids or room < 1:
            raise BadInput(
                f"prompt {index}: {len(ids):,} tokens, while the context of {self.source} is "
                f"{self.config.max_seq_len:,}; shorten it so that 1 to "
                f"{self.config.max_seq_len - 1:,} remain"
            )
        if not 0 <= min(ids) <= max(ids) < self.config.vocab_size:
            raise BadInput(f"prompt {index}: an id is not below {self.config.vocab_size:,}")
        by_context = room < params.max_tokens
        return _Row(
            Completion(index, ids),
            params,
            TextStream(self.tokenizer, params.stop),
            min(room, params.max_tokens),
            "context" if by_context else "length",
        )

    def _admit(self, cache: KVCache, waiting: deque[_Row]) -> tuple[list[_Row], Tensor]:
        """Take as many waiting rows in as fit; equal prompts go through the model once."""
        joined: list[_Row] = []
        numbers: list[int] = []
        first_with: dict[tuple[int, ...], int] = {}
        sources: list[int] = []
        tokens = 0
        while waiting and cache.n_rows < cache.max_rows and (tokens < PREFILL_TOKENS or not joined):
            row = waiting.popleft()
            key = tuple(row.completion.prompt_ids)
            if key not in first_with:
                first_with[key] = len(first_with)
                tokens += len(key)
            joined.append(row)
            sources.append(first_with[key])
            numbers.append(cache.add_row())
        started = time.perf_counter()
        prompts = list(first_with)
        leaders = [numbers[sources.index(i)] for i in range(len(prompts))]
        logits = self.runner.prefill(cache, leaders, prompts)
        for number, source in zip(numbers, sources):
            if number != leaders[source]:
                cache.copy_row(leaders[source], number)
        self.stats.prefill_tokens += tokens
        self.stats.prefill_seconds += time.perf_counter() - started
        return joined, logits[torch.tensor(sources, device=logits.device)]

    def _advance(
        self,
        cache: KVCache,
        kept: list[_Row],
        active: list[_Row],
        logits: Tensor,
        *,
        first: int,
        started: float | None = None,
    ) -> Iterator[Event]:
        """Draw a token for each active row (cache rows first ..), append those that go on to
        `kept`, and drop the others from the cache."""
        ids = self._choose(active, logits)
        if started is not None:
            self.stats.decode_tokens += len(ids)
            self.stats.decode_seconds += time.perf_counter() - started
        events = [self._take(row, id) for row, id in zip(active, ids)]
        kept.extend(active)
        for number in range(len(kept) - 1, first - 1, -1):
            if kept[number].completion.finish_reason is not None:
                cache.drop_row(number)
                kept[number] = kept[-1]
                kept.pop()
        for event in events:
            if event.text or event.completion.probs or event.completion.finish_reason is not None:
                yield event

    @torch.inference_mode()
    def _choose(self, rows: list[_Row], logits: Tensor) -> list[int]:
        """The next id of each row, with log-probabilities noted where they were asked for."""
        logits = logits[:, : self.tokenizer.n_ids]
        if self.holes.numel():
            logits = logits.index_fill(1, self.holes, float("-inf"))
        if not bool(torch.isfinite(logits.amax(-1)).all()):
            raise Diverged(
                f"{self.source}: its logits are not numbers; the weights are damaged or diverged"
            )
        chosen = [0] * len(rows)
        groups: dict[SamplingParams, list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(row.params, []).append(number)
        for params, numbers in groups.items():
            part = logits if len(groups) == 1 else logits[torch.tensor(numbers)]
            members = [rows[number] for number in numbers]
            for number, id in zip(numbers, self._draw(members, part, params)):
                chosen[number] = id
        return chosen

    def _draw(self, rows: list[_Row], logits: Tensor, params: SamplingParams) -> list[int]:
        biased = logits
        if params.repetition_penalty != 1.0:
            seen = [r.completion.prompt_ids + r.completion.ids for r in rows]
            biased = penalise(logits, seen, params.repetition_penalty)
        numbers = [uniform(params.seed, r.completion.index, len(r.completion.ids)) for r in rows]
        ids = draw(biased, params, numbers)
        if params.logprobs or params.probs:
            logprobs = logits.log_softmax(-1)
            for row, value in zip(rows, logprobs.gather(1, ids[:, None])[:, 0].tolist()):
                row.completion.logprobs.append(value)
            if params.probs:
                best, index = logprobs.topk(min(params.probs, logprobs.shape[-1]))
                for row, p, i in zip(rows, best.exp().tolist(), index.tolist()):
                    row.completion.probs.append(list(zip(i, p)))
        return ids.tolist()

    def _take(self, row: _Row, id: int) -> Event:
        """Append one id to a row, and end it where it ends."""
        completion, params = row.completion, row.params
        completion.ids.append(id)
        ends = id in params.stop_ids or (id in self.end_ids and not params.ignore_eos)
        if not ends:
            row.stream.push(id)
        if ends or row.stream.stopped:
            completion.finish_reason = "stop"
        elif len(completion.ids) >= row.limit:
            completion.finish_reason = row.limited_by
        final = completion.finish_reason is not None
        if final:
            row.stream.finish()
            completion.text = row.stream.text
        return Event(completion, row.stream.new_text(final=final))


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
