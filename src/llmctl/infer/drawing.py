"""The next id of each row, and what is noted of it.

Axes: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmctl.infer.params import SamplingParams
from llmctl.infer.row import Row
from llmctl.infer.sampling import draw, penalise, uniform


def next_ids(rows: Sequence[Row], logits: Tensor) -> list[int]:
    """One id for each row, by its own params, from logits (N, V); log-probabilities are noted in
    the rows that ask for them."""
    chosen = [0] * len(rows)
    groups: dict[SamplingParams, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.params, []).append(number)
    for params, numbers in groups.items():
        part = logits if len(groups) == 1 else logits[torch.tensor(numbers)]
        members = [rows[number] for number in numbers]
        for number, id in zip(numbers, _draw(members, part, params)):
            chosen[number] = id
    return chosen


def _draw(rows: list[Row], logits: Tensor, params: SamplingParams) -> list[int]:
    biased = logits
    if params.repetition_penalty != 1.0:
        biased = penalise(logits, [r.context for r in rows], params.repetition_penalty)
    numbers = [uniform(params.seed, r.completion.index, r.n_sampled) for r in rows]
    ids = draw(biased, params, numbers)
    if params.logprobs or params.probs:
        _note(rows, logits, ids, params)
    return ids.tolist()


def _note(rows: list[Row], logits: Tensor, ids: Tensor, params: SamplingParams) -> None:
    """Keep the log-probabilities of the ids drawn, and of the most likely ones."""
    logprobs = logits.log_softmax(-1)
    raw = logprobs.gather(1, ids[:, None])[:, 0].tolist()
    at = params.temperature or 1.0
    policy = raw
    if at != 1.0:
        policy = (logits / at).log_softmax(-1).gather(1, ids[:, None])[:, 0].tolist()
    for row, value, tempered in zip(rows, raw, policy):
        row.completion.logprobs.append(value)
        row.completion.policy_logprobs.append(tempered)
    if params.probs:
        best, index = logprobs.topk(min(params.probs, logprobs.shape[-1]))
        for row, p, i in zip(rows, best.exp().tolist(), index.tolist()):
            row.completion.probs.append(list(zip(i, p)))
