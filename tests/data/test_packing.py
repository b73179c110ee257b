"""Packing: nothing lost, documents whole as far as a row goes, hardly any padding."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.data.packing import hashed, pack, permutation, split_documents


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 16))
def test_every_token_is_in_exactly_one_piece_and_every_piece_in_one_row(lengths, seq_len):
    ends = np.cumsum(lengths)
    pieces = split_documents(ends - lengths, int(ends[-1]), seq_len)
    covered = np.concatenate([np.arange(s, s + n) for s, n in zip(pieces.starts, pieces.lengths)])
    assert sorted(covered) == list(range(ends[-1]))
    assert pieces.closes.sum() == len(lengths)
    rows = pack(pieces.lengths, seq_len)
    members = rows.assign(pieces, key=7)
    assert sorted(members) == list(range(len(pieces)))
    filled = np.add.reduceat(pieces.lengths[members], rows.offsets[:-1])
    assert filled.max() <= seq_len and filled.min() >= 1


def test_a_long_document_is_split_at_the_row_length():
    pieces = split_documents(np.array([0, 3]), 10, 4)  # documents of 3 and 7 tokens
    assert pieces.starts.tolist() == [0, 3, 7]
    assert pieces.lengths.tolist() == [3, 4, 3]
    assert pieces.closes.tolist() == [True, False, True]


def test_tokens_before_the_first_start_are_a_document():
    assert split_documents(np.array([2]), 5, 8).starts.tolist() == [0, 2]


def test_best_fit_fills_rows_to_the_brim():
    rows = pack(np.array([6, 5, 3, 2, 2]), 8)  # 6 + 2 and 5 + 3, then 2
    sums = [rows.lengths[rows.slots[a:b]].sum() for a, b in zip(rows.offsets, rows.offsets[1:])]
    assert sorted(sums) == [2, 8, 8]


def test_padding_of_usual_documents_is_below_half_a_percent():
    lengths = np.random.default_rng(0).lognormal(5.5, 1.0, 20_000).astype(int) + 2
    ends = np.cumsum(lengths)
    pieces = split_documents(ends - lengths, int(ends[-1]), 512)
    rows = pack(pieces.lengths, 512)
    assert 1 - ends[-1] / (512 * len(rows)) < 0.005


def test_an_epoch_changes_places_only_among_equal_lengths():
    pieces = split_documents(np.arange(0, 400, 4), 400, 8)  # a hundred documents of 4
    rows = pack(pieces.lengths, 8)
    first, second = rows.assign(pieces, 1), rows.assign(pieces, 2)
    assert (pieces.lengths[first] == pieces.lengths[second]).all()
    assert (first != second).any()


def test_the_order_is_plain_arithmetic_that_never_changes():
    assert hashed(1, 0).tolist() == [0xE220A8397B1DCDAF]  # SplitMix64's first output for seed 0
    assert permutation(6, 3).tolist() == permutation(6, 3).tolist()
    assert sorted(permutation(1000, 9)) == list(range(1000))
    assert permutation(1000, 9).tolist() != permutation(1000, 10).tolist()
