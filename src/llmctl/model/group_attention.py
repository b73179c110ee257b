"""Attention of many short continuations of one prompt, all of them in one product.

Of the three attentions over shared prompts, the one for rl, which learns on a CPU from answers of
some tens of tokens (model/shared_prefix.py is for rankings, evals/tasks/likelihood.py for measuring
without gradients). It is the same function as shared_prefix, which goes stretch by stretch and
computes probabilities again in the backward pass. Here the continuations of a prompt are padded to
the longest and their probabilities are kept, which pays while they are short and much alike.
Measured on one Zen 4 thread in bf16, 4 query and 2 key/value heads of 64, forward and backward, a
prompt and 8 continuations, here and there: 60 tokens and 20 each 1.7 and 3.8 ms, 100 and 63 each
5.4 and 7.1, 60 and from 60 to 250 each 24 and 18. A group of many scores is left to shared_prefix.

Axes: H query heads, G key/value heads, K head width, n continuations padded to C tokens, P tokens
of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmctl.model.attention import Attend
from llmctl.model.shared_prefix import Groups, blocks_of, sharing

MOST_SCORES = 1 << 23  # of one group and layer; beyond it shared_prefix, which keeps none


def attention_over(layout: Groups, n_heads: int) -> Attend:
    """Attention over one flat row (B = 1) of groups: a prompt, then its continuations.

    layout: for each group, in row order, the length of its prompt and of each continuation, all of
    them at least 1.
    """
    if any(_scores(prompt, lengths) * n_heads > MOST_SCORES for prompt, lengths in layout):
        return sharing(blocks_of(layout))
    groups = [_Group(prompt, lengths) for prompt, lengths in layout]
    sizes = [size for group in groups for size in (group.prompt, group.total)]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(*(x[0].split(sizes, 1) for x in (q, k.to(q.dtype), v.to(q.dtype))))
        out: list[Tensor] = []
        for group in groups:
            out += group(next(parts), next(parts))
        return torch.cat(out)[None]

    return attend


def _scores(prompt: int, lengths: Sequence[int]) -> int:
    longest = max(lengths, default=0)
    return max(prompt * prompt, len(lengths) * longest * (prompt + longest))


class _Group:
    """One prompt and its continuations; what attention to them needs, made once for all layers."""

    def __init__(self, prompt: int, lengths: Sequence[int]) -> None:
        self.prompt, self.total, self.n = prompt, sum(lengths), len(lengths)
        self.longest = max(lengths, default=0)
        self.even = len(set(lengths)) <= 1
        if not self.even:
            starts = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths)
            columns = torch.arange(self.longest)
            inside = columns < torch.tensor(lengths)[:, None]
            # padding repeats the first token: queries behind it are dropped, and as keys it comes
            # later than every real query of its continuation
            self.padded = (starts[:, None] + columns * inside).flatten()
            self.real = inside.flatten().nonzero()[:, 0]

    def __call__(self, prompt: tuple[Tensor, ...], rest: tuple[Tensor, ...]) -> list[Tensor]:
        """q, k, v (heads, tokens, K) of prompt and continuations -> (tokens, H K) of each."""
        q, k, v = (x[None] for x in prompt)
        out = [_attend(q, k, v)]
        if not self.total:
            return out
        q_own, *kv_own = (self._apart(x) for x in rest)
        shared = (x.expand(self.n, -1, -1, -1) for x in (k, v))
        k_all, v_all = (torch.cat(pair, 2) for pair in zip(shared, kv_own))
        found = _attend(q_own, k_all, v_all)
        out.append(found if self.even else found.index_select(0, self.real))
        return out

    def _apart(self, x: Tensor) -> Tensor:
        """(heads, tokens, K) -> (n, heads, C, K), shorter continuations padded."""
        if not self.even:
            x = x.index_select(1, self.padded)
        return x.unflatten(1, (self.n, self.longest)).transpose(0, 1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, q (n, H, T, K) at the end of k and v (n, G, S, K) -> (n T, H K)."""
    n, n_heads, n_new, width = q.shape
    n_kv, n_seen = k.shape[1:3]
    share = n_heads // n_kv
    later = torch.ones(n_new, n_seen, dtype=torch.bool).triu(n_seen - n_new + 1)
    bias = torch.zeros(n_new, n_seen, dtype=q.dtype).masked_fill(later, -torch.inf)
    keys, values = (x.reshape(n * n_kv, n_seen, width) for x in (k, v))
    scores = (q * width**-0.5).reshape(n * n_kv, share * n_new, width) @ keys.transpose(1, 2)
    weights = torch.softmax(scores.view(n * n_kv, share, n_new, n_seen) + bias, -1)
    out = weights.view(n * n_kv, share * n_new, n_seen) @ values
    return out.view(n, n_heads, n_new, width).transpose(1, 2).reshape(n * n_new, -1)
