"""Batches of whole rankings: a pure function of (seed, data, step).

A step has so many rankings, each with all of its responses in one micro-batch. A micro-batch is a
flat row without padding; the rows of a step hold about as many tokens each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmctl.core.distributed import World
from llmctl.core.seeds import derive
from llmctl.data.packing import permutation
from llmctl.model.reward import RewardModel
from llmctl.reward.encode import Encoded
from llmctl.reward.flat import Flat, flatten, gather_rows, n_tokens, score_flat
from llmctl.train.ranking_loss import Comparisons, compare, ranking_loss

ROW = 1024  # tokens: what one "row" of a micro-batch stands for


@dataclass(frozen=True)
class RankingBatch:
    """Rankings in one flat row, and what is known of their order."""

    flat: Flat
    pairs: Comparisons

    def to(self, device: torch.device) -> RankingBatch:
        """The same on another device."""
        return RankingBatch(self.flat.to(device), self.pairs.to(device))


def make_batch(rankings: Sequence[Encoded], *, shared: bool) -> RankingBatch:
    """Rankings that have pairs, as one batch."""
    sizes = [len(r.responses) for r in rankings]
    pairs = compare(sizes, [r.pairs for r in rankings], [r.margin for r in rankings])
    return RankingBatch(flatten(rankings, shared=shared), pairs)


class RankingBatches:
    """A rank's share of each step's rankings; every epoch in an order of its own."""

    def __init__(
        self,
        rankings: Sequence[Encoded],
        *,
        per_step: int,
        total: int,
        seed: int,
        shared: bool,
        lanes: int,
        world: World,
    ) -> None:
        """total: rankings of the whole run, the last step may have fewer. shared: prompts once."""
        self.rankings, self.per_step, self.total = rankings, per_step, total
        self.seed, self.shared, self.lanes, self.world = seed, shared, lanes, world
        self.tally = Tally()
        self._order: dict[int, np.ndarray] = {}

    def numbers(self, step: int) -> list[int]:
        """Which rankings the whole step has."""
        stop = min((step + 1) * self.per_step, self.total)
        return [self._number(p) for p in range(step * self.per_step, stop)]

    def _number(self, position: int) -> int:
        epoch, at = divmod(position, len(self.rankings))
        if epoch not in self._order:
            key = derive(self.seed, "rankings", epoch)
            self._order = {epoch: permutation(len(self.rankings), key)}
        return int(self._order[epoch][at])

    def take(self, step: int, micro_batch: int) -> Iterator[RankingBatch]:
        """This rank's rankings of a step, in rows of about micro_batch * ROW tokens."""
        self.tally.clear()
        chosen = [self.rankings[i] for i in self.numbers(step)]
        sizes = [n_tokens(r, self.shared) for r in chosen]
        by_size = sorted(range(len(chosen)), key=lambda i: (-sizes[i], i))
        mine = [chosen[i] for i in by_size[self.world.rank :: self.world.size]]
        if mine:
            yield from self._rows(mine, micro_batch * ROW)

    def _rows(self, rankings: Sequence[Encoded], budget: int) -> Iterator[RankingBatch]:
        sizes = [n_tokens(r, self.shared) for r in rankings]
        for row in gather_rows(sizes, budget, self.lanes):
            yield make_batch([rankings[i] for i in row], shared=self.shared)

    def probe(self, micro_batch: int) -> RankingBatch:
        """The largest batch of this micro-batch that can come: the longest rankings together."""
        order = sorted(self.rankings, key=lambda r: -n_tokens(r, self.shared))
        budget, chosen = micro_batch * ROW, order[:1]
        for ranking in order[1 : self.per_step]:
            if sum(n_tokens(r, self.shared) for r in chosen) < budget:
                chosen.append(ranking)
        return make_batch(chosen, shared=self.shared)

    def tokens(self, step: int) -> int:
        """Tokens the step's rankings take, over all ranks."""
        return sum(n_tokens(self.rankings[i], self.shared) for i in self.numbers(step))

    def metrics(self, step: int) -> dict[str, Any]:
        """Share of the step's pairs that were right before its update."""
        right, n = self.world.sum([self.tally.right, float(self.tally.n)])
        return {"accuracy": right / n} if n else {}

    def describe(self, step: int) -> dict[str, Any]:
        """Which rankings the step has, for a person who looks for a bad batch."""
        return {"step": step, "rankings": self.numbers(step)}


class Tally:
    """Right pairs of a step, counted by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.right, self.n = 0.0, 0

    def add(self, better: Tensor, worse: Tensor) -> None:
        """Count pairs; equal scores are half right."""
        right = float((better > worse).sum() + 0.5 * (better == worse).sum())
        with self._lock:
            self.right += right
            self.n += len(better)


def make_loss(
    model: RewardModel, dtype: torch.dtype, tally: Tally, *, margin: float, centering: float
) -> Callable[[RankingBatch], tuple[Tensor, Tensor]]:
    """The loop's loss: each response of a batch scored by one forward, all pairs compared."""

    def loss_fn(batch: RankingBatch) -> tuple[Tensor, Tensor]:
        scores = score_flat(model, batch.flat, dtype)
        found = scores.detach()
        tally.add(found[batch.pairs.better], found[batch.pairs.worse])
        return ranking_loss(scores, batch.pairs, margin=margin, centering=centering)

    return loss_fn
