"""Keys and values of the rows being generated, in memory allocated ahead.

Rows are left-aligned: row r holds `lengths[r]` tokens in columns 0 .. lengths[r] - 1. The active
rows are always the first `n_rows`: a finished row gives its place to the last one. Columns grow by
doubling, so that short answers do not pay for a long limit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl.model.config import ModelConfig

COLUMN_STEP = 64  # columns come in multiples of this


class KVCache:
    """k and v (L, rows, G, columns, K). Not safe for use from several threads."""

    def __init__(
        self,
        config: ModelConfig,
        max_rows: int,
        columns: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.heads = config.n_kv_heads, config.n_heads // config.n_kv_heads
        columns = min(_rounded(columns), _rounded(config.max_seq_len))
        # zeros, not empty: masked columns still enter a product, where NaN times 0 is NaN
        shape = config.n_layers, max_rows, config.n_kv_heads, columns, config.head_dim
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths: list[int] = []
        self.most = _rounded(config.max_seq_len)  # columns that can be of use

    @property
    def n_rows(self) -> int:
        return len(self.lengths)

    @property
    def max_rows(self) -> int:
        return self.k.shape[1]

    def add_row(self) -> int:
        """A new empty row; its number."""
        if self.n_rows == self.max_rows:
            raise ValueError(f"all {self.max_rows} rows are taken")
        self.lengths.append(0)
        return self.n_rows - 1

    @torch.inference_mode()
    def copy_row(self, source: int, target: int) -> None:
        """Make a row hold what another holds."""
        length = self.lengths[source]
        for side in (self.k, self.v):
            side[:, target, :, :length] = side[:, source, :, :length]
        self.lengths[target] = length

    def drop_row(self, row: int) -> int:
        """Give up a row; the last row takes its number. Returns the number that moved."""
        last = self.n_rows - 1
        if row != last:
            self.copy_row(last, row)
        self.lengths.pop()
        return last

    def reserve(self, columns: int) -> None:
        """Make room for so many columns in every row."""
        have = self.v.shape[3]  # the side that grows last: a signal may strike between the two
        if columns <= have:
            return
        wanted = max(_rounded(columns), min(2 * have, self.most))
        self.k = F.pad(self.k, (0, 0, 0, wanted - self.k.shape[3]))
        self.v = F.pad(self.v, (0, 0, 0, wanted - self.v.shape[3]))

    def prefill(self, row: int, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend T new tokens of one row to it and themselves, and keep their keys and values.

        q (T, H, K), k and v (T, G, K), positions already applied -> (T, H * K). The caller sets
        `lengths` once all layers are through.
        """
        n_new, start = q.shape[0], self.lengths[row]
        end = start + n_new
        self.k[layer, row, :, start:end] = k.transpose(0, 1)
        self.v[layer, row, :, start:end] = v.transpose(0, 1)
        keys, values = (side[layer, row : row + 1, :, :end] for side in (self.k, self.v))
        mask = None
        if start:
            columns = torch.arange(end, device=q.device)
            mask = columns[None] <= columns[start:, None]
        out = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self.heads[1] > 1,
        )
        return out[0].transpose(0, 1).flatten(1)

    def step(self) -> Step:
        """One decode step of all rows: each gets one more token."""
        self.reserve(max(self.lengths) + 1)
        return Step(self)


class Step:
    """Attention of one new token a row; made anew for every step, shared by its layers.

    The views that each layer needs are cut here, for all layers at once: a decode step is short
    enough for every call to count.
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache, self.heads = cache, cache.heads
        lengths, device = cache.lengths, cache.k.device
        self.n_rows, end = len(lengths), max(lengths) + 1
        k, v = cache.k[:, : self.n_rows], cache.v[:, : self.n_rows]
        self.keys, self.values = k[:, :, :, :end].unbind(0), v[:, :, :, :end].unbind(0)
        self.mask: Tensor | None = None
        if min(lengths) + 1 == end:
            self.new_keys, self.new_values = (
                k[:, :, :, end - 1].unbind(0),
                v[:, :, :, end - 1].unbind(0),
            )
        else:
            self.rows = torch.arange(self.n_rows, device=device)
            self.columns = torch.tensor(lengths, device=device)
            visible = torch.arange(end, device=device)[None] <= self.columns[:, None]
            self.mask = visible[:, None, None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (M, H, K), k and v (M, G, K) -> (M, H * K). The first n_rows count; rows beyond them
        are repetitions of the first, and so is what they get. Query heads that share a key head
        are given to the kernel as several queries, so that nothing is repeated in memory."""
        n_given, n_rows = q.shape[0], self.n_rows
        if n_given != n_rows:
            q, k, v = q[:n_rows], k[:n_rows], v[:n_rows]
        keys, values = self.keys[layer], self.values[layer]
        if self.mask is None:
            self.new_keys[layer].copy_(k)
            self.new_values[layer].copy_(v)
        else:
            keys[self.rows, :, self.columns] = k
            values[self.rows, :, self.columns] = v
        out = F.scaled_dot_product_attention(
            q.unflatten(1, self.heads), keys, values, attn_mask=self.mask
        ).reshape(n_rows, -1)
        if n_given == n_rows:
            return out
        return torch.cat((out, out[:1].expand(n_given - n_rows, -1)))

    def done(self) -> None:
        """Count the new token in every row."""
        self.cache.lengths = [length + 1 for length in self.cache.lengths]


def _rounded(columns: int) -> int:
    return -(-columns // COLUMN_STEP) * COLUMN_STEP
