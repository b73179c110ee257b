"""Batches: the next token of the same document, in an order that knows no ranks."""

import numpy as np
import pytest
import torch

from llmctl.core.errors import BadInput, UsageError
from llmctl.data.batches import IGNORE, PackedBatches, PackedRows
from llmctl.model.attention import segment_bounds

EOT = 0


class Stream:
    """Token bins in memory: each document begins with EOT."""

    def __init__(self, documents):
        self.tokens = np.concatenate([np.array([EOT, *d], dtype="<u2") for d in documents])
        lengths = np.array([len(d) + 1 for d in documents])
        self.doc_starts = np.cumsum(lengths) - lengths
        self.n_tokens = len(self.tokens)

    def read(self, start, stop):
        return self.tokens[start:stop]


def rows_of(documents, seq_len=8, seed=1, vocab_size=1000):
    return PackedRows(
        Stream(documents), seq_len=seq_len, eot_id=EOT, vocab_size=vocab_size, seed=seed
    )


def many(n=200):
    rng = np.random.default_rng(3)
    return [list(range(1, 2 + int(rng.integers(1, 30)))) for _ in range(n)]


def test_targets_are_the_next_token_of_the_same_document():
    rows = rows_of([[1, 2, 3], [4, 5]], seed=None)
    batch = rows.read([0])
    assert batch.ids[0].tolist() == [EOT, 1, 2, 3, EOT, 4, 5, EOT]
    assert batch.targets[0].tolist() == [1, 2, 3, EOT, 4, 5, EOT, IGNORE]
    assert batch.segments[0].tolist() == [0, 0, 0, 0, 1, 1, 1, -1]


def test_a_piece_that_is_continued_elsewhere_targets_its_continuation():
    rows = rows_of([[1, 2, 3, 4, 5]], seq_len=4, seed=None)
    batch = rows.read([0, 1])
    assert batch.ids.tolist() == [[EOT, 1, 2, 3], [4, 5, EOT, EOT]]
    assert batch.targets.tolist() == [[1, 2, 3, 4], [5, EOT, IGNORE, IGNORE]]


def test_bounds_are_those_of_the_segments():
    batch = rows_of(many()).read(range(5))
    expected = segment_bounds(batch.segments, len(batch.bounds))
    assert batch.bounds.tolist() == expected.tolist()


def test_an_epoch_holds_every_token_once_and_the_next_has_another_order():
    rows = rows_of(many())
    epochs = [rows.read(range(e * len(rows), (e + 1) * len(rows))) for e in (0, 1)]
    for batch in epochs:
        real = batch.segments >= 0
        assert int(real.sum()) == rows.bins.n_tokens
        ids = np.sort(batch.ids[real].numpy())
        assert (ids == np.sort(rows.bins.tokens)).all()
    assert (epochs[0].ids != epochs[1].ids).any()


@pytest.mark.parametrize(("ranks", "micro_batch"), [(1, 8), (1, 2), (2, 4), (4, 1)])
def test_the_order_is_the_same_for_any_ranks_and_micro_batches(ranks, micro_batch):
    rows = rows_of(many())
    whole = PackedBatches(rows, rows_per_step=8)
    parts = [PackedBatches(rows, rows_per_step=8, rank=r, world_size=ranks) for r in range(ranks)]
    for step in (0, 3, 40):
        [expected] = [b.ids for b in whole.take(step, 8)]
        found = [b.ids for part in parts for b in part.take(step, micro_batch)]
        assert torch.equal(torch.cat(found), expected)


def test_a_position_needs_no_history():
    fresh, used = rows_of(many()), rows_of(many())
    for position in range(300):
        used.members(position)
    assert fresh.members(123).tolist() == used.members(123).tolist()


def test_another_seed_is_another_order():
    first, second = rows_of(many(), seed=1), rows_of(many(), seed=2)
    assert (first.read(range(8)).ids != second.read(range(8)).ids).any()


def test_rows_of_one_whole_document_need_no_segments():
    rows = rows_of([list(range(1, 32))], seq_len=8)  # 32 tokens: four full rows
    assert rows.alone and rows.read([0]).segments is None


def test_an_id_beyond_the_vocabulary_is_refused_with_its_place():
    rows = rows_of([[1, 2], [3, 99]], vocab_size=50)
    with pytest.raises(BadInput, match=r"token id 99 .*50 ids"):
        rows.read([0])


def test_rows_that_ranks_cannot_share_are_refused():
    with pytest.raises(UsageError, match="8 rows a step cannot be shared by 3 ranks"):
        PackedBatches(rows_of(many()), rows_per_step=8, world_size=3)
