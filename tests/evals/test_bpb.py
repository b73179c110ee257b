"""Bits per byte: a known model, and no influence of how the split is cut into micro-batches."""

import math

import numpy as np
import pytest
import torch

from llmctl.data.batches import IGNORE, PackedRows
from llmctl.evals.bpb import bits_per_byte

EOT, VOCAB = 0, 256


class Stream:
    def __init__(self, lengths):
        rng = np.random.default_rng(0)
        self.n_tokens = sum(lengths)
        self.tokens = rng.integers(1, VOCAB, self.n_tokens).astype("<u2")
        self.doc_starts = np.cumsum(lengths) - lengths
        self.tokens[self.doc_starts] = EOT

    def read(self, start, stop):
        return self.tokens[start:stop]


def uniform(batch):
    """A model that knows nothing: every id costs log 256 nats."""
    count = (batch.targets != IGNORE).sum()
    return count * math.log(VOCAB), count


def measure(micro_batch, loss_fn=uniform, **options):
    rows = PackedRows(Stream([5, 9, 30, 2, 2]), seq_len=8, eot_id=EOT, vocab_size=VOCAB)
    return bits_per_byte(
        loss_fn,
        rows,
        n_bytes=43,
        eot_id=EOT,
        micro_batch=micro_batch,
        device=torch.device("cpu"),
        **options,
    )


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 100])
def test_a_uniform_model_over_bytes_has_eight_bits_a_byte(micro_batch):
    found = measure(micro_batch)
    assert found.targets == 43  # 48 tokens, five of them documents' beginnings
    assert found.bits_per_byte == pytest.approx(8.0)
    assert found.loss == pytest.approx(math.log(VOCAB))


def test_ranks_share_the_rows():
    parts = [measure(1, rank=r, world_size=3) for r in range(3)]
    assert sum(p.targets for p in parts) == 43
    assert math.fsum(p.nats for p in parts) == pytest.approx(measure(4).nats)


def test_every_token_is_measured_once():
    seen = []

    def remember(batch):
        seen.extend(batch.targets[batch.targets != IGNORE].tolist())
        return uniform(batch)

    measure(4, remember)
    tokens = Stream([5, 9, 30, 2, 2]).tokens
    assert sorted(seen) == sorted(tokens[tokens != EOT].tolist())
