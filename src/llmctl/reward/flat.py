"""Encoded rankings in one flat row without padding, and their scores.

On a CPU a ranking's prompt is computed once for all of its responses; on CUDA it is repeated, and
the variable-length kernel keeps conversations apart. Either way every response goes through the
model once, and the row is as long as its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmctl.model import shared_prefix
from llmctl.model.reward import RewardModel
from llmctl.reward.encode import Encoded

SCORE_TOKENS = 8192  # of a row when only scores are wanted
CPU_SCORE_TOKENS = 2048


@dataclass(frozen=True)
class Flat:
    """One row (1, N) of rankings.

    ids, positions (1, N) int64; ends (S,) int64: each response's last token. blocks: as of
    shared_prefix.blocks_of, where prompts are shared; else segments (1, N) int32 and bounds.
    """

    ids: Tensor
    positions: Tensor
    ends: Tensor
    blocks: Tensor | None = None
    segments: Tensor | None = None
    bounds: Tensor | None = None

    def to(self, device: torch.device) -> Flat:
        """The same on another device; blocks are read by the host."""
        if device.type == "cpu":
            return self
        return Flat(
            self.ids.to(device),
            self.positions.to(device),
            self.ends.to(device),
            self.blocks,
            None if self.segments is None else self.segments.to(device),
            None if self.bounds is None else self.bounds.to(device),
        )


def n_tokens(ranking: Encoded, shared: bool) -> int:
    """Tokens a ranking takes in a row."""
    return ranking.n_tokens if shared else ranking.n_repeated


def flatten(rankings: Sequence[Encoded], *, shared: bool) -> Flat:
    """Rankings one after another; shared: each prompt once."""
    groups = [(r.prompt, r.responses) for r in rankings]
    if not shared:
        groups = [(prompt, (response,)) for prompt, rest in groups for response in rest]
    layout = [(len(prompt), [len(r) for r in rest]) for prompt, rest in groups]
    ends, at = [], 0
    for prompt, lengths in layout:
        at += prompt
        for n in lengths:
            at += n
            ends.append(at - 1)
    parts = [part for prompt, rest in groups for part in (prompt, *rest)]
    ids = torch.from_numpy(np.concatenate(parts))[None]
    positions = shared_prefix.positions_of(layout)[None]
    if shared:
        return Flat(ids, positions, torch.tensor(ends), blocks=shared_prefix.blocks_of(layout))
    segments, bounds = shared_prefix.segments_of(layout)
    return Flat(ids, positions, torch.tensor(ends), segments=segments, bounds=bounds)


def score_flat(model: RewardModel, flat: Flat, dtype: torch.dtype) -> Tensor:
    """Scores (S,) fp32 of a row; matrix products in `dtype` by autocast."""
    attend = None if flat.blocks is None else shared_prefix.sharing(flat.blocks)
    device = flat.ids.device.type
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        return model(
            flat.ids,
            flat.segments,
            flat.bounds,
            flat.ends,
            positions=flat.positions,
            attend=attend,
        )


def gather_rows(sizes: Sequence[int], budget: int, at_least: int = 1) -> list[list[int]]:
    """Numbers of things of these sizes, in as few even rows of about `budget` as hold them.

    at_least: a multiple of so many rows, as long as there are things (lanes that all have work).
    One that is larger than the budget is alone. The same for the same sizes.
    """
    wanted = max(1, -(-sum(sizes) // budget))
    wanted = min(len(sizes), -(-wanted // at_least) * at_least)
    rows: list[list[int]] = [[] for _ in range(wanted)]
    filled = [0] * wanted
    for number in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        row = filled.index(min(filled))
        rows[row].append(number)
        filled[row] += sizes[number]
    return [sorted(row) for row in rows if row]


@torch.no_grad()
def score_all(
    model: RewardModel, rankings: Sequence[Encoded], dtype: torch.dtype
) -> list[list[float]]:
    """The scores of each ranking's responses."""
    device = model.score.weight.device
    shared = device.type == "cpu"
    budget = CPU_SCORE_TOKENS if shared else SCORE_TOKENS
    found: list[list[float]] = [[] for _ in rankings]
    for row in gather_rows([n_tokens(r, shared) for r in rankings], budget) if rankings else []:
        chosen = [rankings[i] for i in row]
        scores = iter(score_flat(model, flatten(chosen, shared=shared).to(device), dtype).tolist())
        for number, ranking in zip(row, chosen):
            found[number] = [next(scores) for _ in ranking.responses]
    return found
