"""Bradley-Terry over rankings, each response scored once. Pure: scores in, (sum, count) out.

InstructGPT (arXiv:2203.02155, equation 1): the loss of a ranking is the mean over its pairs of
-log sigmoid(score of the better - score of the worse), and all pairs of a ranking are one element
of the batch. A ranking of K thus weighs as much as one of 2: its K (K - 1) / 2 pairs share K
scores and overfit when each counts in full. With K = 2 it is TRL's loss. Ties make no pair.

Axes: S responses of a batch, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl.data.preferences.ranking import Pairs


@dataclass(frozen=True)
class Comparisons:
    """The pairs of a batch of rankings.

    better, worse (P,) int64: which of the S scores; share (P,) fp32: 1 / pairs of its ranking;
    margin (P,) fp32; rankings: how many.
    """

    better: Tensor
    worse: Tensor
    share: Tensor
    margin: Tensor
    rankings: int

    def to(self, device: torch.device) -> Comparisons:
        """The same on another device."""
        better, worse = self.better.to(device), self.worse.to(device)
        share, margin = self.share.to(device), self.margin.to(device)
        return Comparisons(better, worse, share, margin, self.rankings)


def compare(sizes: Sequence[int], pairs: Sequence[Pairs], margins: Sequence[float]) -> Comparisons:
    """Comparisons of rankings whose responses stand one after another; sizes: responses of each."""
    better, worse, share, margin = [], [], [], []
    first = 0
    for size, known, gap in zip(sizes, pairs, margins, strict=True):
        better += [first + a for a, _ in known]
        worse += [first + b for _, b in known]
        share += [1 / len(known)] * len(known)
        margin += [gap] * len(known)
        first += size
    return Comparisons(
        torch.tensor(better),
        torch.tensor(worse),
        torch.tensor(share),
        torch.tensor(margin),
        len(sizes),
    )


def ranking_loss(
    scores: Tensor, pairs: Comparisons, *, margin: float = 0.0, centering: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(sum over rankings of their mean loss in nats, rankings), fp32 scalars.

    scores (S,). margin: added to each pair's own; the better side must win by it. centering:
    coefficient of (better + worse)^2, which keeps scores around zero (Eisenstein et al.,
    arXiv:2312.09244, as TRL has it); the difference alone leaves their level open.
    """
    scores = scores.float()
    better, worse = scores[pairs.better], scores[pairs.worse]
    losses = -F.logsigmoid(better - worse - pairs.margin - margin)
    if centering:
        losses = losses + centering * (better + worse) ** 2
    return (losses * pairs.share).sum(), torch.tensor(float(pairs.rankings))
