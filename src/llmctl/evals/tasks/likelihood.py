"""Log-probabilities of continuations: what stands before several of them is computed once.

The pairs of an item are a tree: their common beginning, then a branch each. Trees lie side by side
in one flat row of tokens, without padding; a token sees the beginning and its own branch. The
last hidden states alone go through the head.

Of the three attentions over shared prompts, the one for measuring, without gradients and on any
device (model/shared_prefix.py is for rm, model/group_attention.py for rl, both on a CPU).

Axes: N tokens of all trees, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl.core.errors import Diverged
from llmctl.evals.tasks.requests import Pair
from llmctl.infer.runner import Runner

TOKENS = 2048  # of trees in one forward pass, about
HEAD_ROWS = 256  # hidden states through the head at once: their logits are the largest tensor


@dataclass(frozen=True)
class Scored:
    """One continuation: the sum of its tokens' log-probabilities in nats, and whether each of them
    was the most likely one."""

    logprob: float
    greedy: bool
    tokens: int


@dataclass(frozen=True)
class _Tree:
    """ids and positions, flat: `shared` tokens, then the branches of these sizes.

    rows: for each pair the places (in this tree) of the tokens before its targets."""

    ids: list[int]
    positions: list[int]
    shared: int
    branches: list[int]
    rows: list[list[int]]
    targets: list[tuple[int, ...]]


def score(
    runner: Runner,
    groups: Sequence[Sequence[Pair]],
    advance: Callable[[int], None] = lambda n: None,
) -> list[list[Scored]]:
    """Every pair of every group (an item), in order. Diverged (76) when logits are not numbers."""
    found: list[list[Scored]] = [[] for _ in groups]
    batch: list[tuple[int, _Tree]] = []
    size = 0
    for number, group in enumerate(groups):
        for tree in _trees(list(group)):
            if batch and size + len(tree.ids) > TOKENS:
                _run(runner, batch, found, advance)
                batch, size = [], 0
            batch.append((number, tree))
            size += len(tree.ids)
    if batch:
        _run(runner, batch, found, advance)
    return found


def _run(
    runner: Runner,
    batch: list[tuple[int, _Tree]],
    found: list[list[Scored]],
    advance: Callable[[int], None],
) -> None:
    for (number, tree), scores in zip(batch, _forward(runner, [tree for _, tree in batch])):
        found[number] += scores
        advance(len(tree.targets))


def _trees(pairs: list[Pair]) -> Iterator[_Tree]:
    """One tree of a group, or several where it would not fit a pass."""
    shared = _common([pair.ids for pair in pairs])
    if len(pairs) > 1 and shared + sum(len(p.ids) - shared for p in pairs) > TOKENS:
        half = len(pairs) // 2
        yield from _trees(pairs[:half])
        yield from _trees(pairs[half:])
        return
    ids, positions = list(pairs[0].ids[:shared]), list(range(shared))
    branches, rows = [], []
    for pair in pairs:
        begin, size = len(ids), len(pair.ids) - shared
        ids += pair.ids[shared:]
        positions += range(shared, len(pair.ids))
        branches.append(size)
        places = range(len(pair.ids) - len(pair.targets), len(pair.ids))
        rows.append([p if p < shared else begin + p - shared for p in places])
    yield _Tree(ids, positions, shared, branches, rows, [pair.targets for pair in pairs])


def _common(many: Sequence[tuple[int, ...]]) -> int:
    """How many first ids all have in common."""
    first, last = min(many), max(many)
    for i, (a, b) in enumerate(zip(first, last)):
        if a != b:
            return i
    return min(len(first), len(last))


@torch.inference_mode()
def _forward(runner: Runner, trees: Sequence[_Tree]) -> list[list[Scored]]:
    device = runner.device
    ids = torch.tensor([i for t in trees for i in t.ids], device=device)
    positions = torch.tensor([p for t in trees for p in t.positions], device=device)
    masks = [_mask(tree).to(device) if sum(tree.branches) else None for tree in trees]
    sizes = [len(tree.ids) for tree in trees]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(trees, masks, q.split(sizes), k.split(sizes), v.split(sizes))
        return torch.cat([_attend(tree.shared, mask, *qkv) for tree, mask, *qkv in parts])

    hidden = runner.forward(ids, positions, attend)
    begins = [sum(sizes[:i]) for i in range(len(sizes))]
    rows = [begin + r for begin, t in zip(begins, trees) for places in t.rows for r in places]
    targets = [id for t in trees for wanted in t.targets for id in wanted]
    logprobs, best = _of_targets(runner, hidden[torch.tensor(rows, device=device)], targets)
    scores, at = [], 0
    for tree in trees:
        mine = []
        for wanted in tree.targets:
            end = at + len(wanted)
            mine.append(Scored(sum(logprobs[at:end]), all(best[at:end]), len(wanted)))
            at = end
        scores.append(mine)
    return scores


def _of_targets(
    runner: Runner, hidden: Tensor, targets: Sequence[int]
) -> tuple[list[float], list[bool]]:
    """Log-probability of each target after its hidden state (N, D), and whether it is the best."""
    logprobs: list[float] = []
    best: list[bool] = []
    for at in range(0, len(targets), HEAD_ROWS):
        wanted = torch.tensor(targets[at : at + HEAD_ROWS], device=hidden.device)
        logits = runner.logits(hidden[at : at + HEAD_ROWS])
        if not bool(torch.isfinite(logits.amax(-1)).all()):
            raise Diverged("the logits are not numbers; the weights are damaged or diverged")
        logprobs += logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0].tolist()
        best += (logits.argmax(-1) == wanted).tolist()
    return logprobs, best


def _mask(tree: _Tree) -> Tensor:
    """(M, shared + M) bool: what each of the M tokens of the branches sees."""
    total = sum(tree.branches)
    branch = torch.repeat_interleave(
        torch.arange(len(tree.branches)), torch.tensor(tree.branches, dtype=torch.int64)
    )
    number = torch.arange(total)
    own = (branch[:, None] == branch[None]) & (number[:, None] >= number[None])
    return torch.cat((torch.ones(total, tree.shared, dtype=torch.bool), own), 1)


def _attend(shared: int, mask: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one tree: q (N, H, K), k and v (N, G, K) -> (N, H * K)."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    gqa = q.shape[1] != k.shape[1]
    parts = []
    if shared:
        parts.append(
            F.scaled_dot_product_attention(
                q[:, :, :shared], k[:, :, :shared], v[:, :, :shared], is_causal=True, enable_gqa=gqa
            )
        )
    if mask is not None:
        parts.append(
            F.scaled_dot_product_attention(q[:, :, shared:], k, v, attn_mask=mask, enable_gqa=gqa)
        )
    out = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return out[0].transpose(0, 1).flatten(1)
