"""Packing of what is trained on in part: nothing lost, nothing cut, order is pure."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadInput, UsageError
from llmctl.data.batches import IGNORE
from llmctl.data.masked import (
    MaskedBatches,
    MaskedRows,
    MaskedSequences,
    fitting_length,
    without_targets,
)

SEQ = 16


@dataclass
class Part:
    ids: list
    mask: list


def parts(n, seed=0, longest=SEQ, base=0):
    """Sequences whose ids say which one they are: base + number, then counting."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        length = int(rng.integers(2, longest + 1))
        ids = [1000 * (base + k + 1) + i for i in range(length)]
        made.append(Part(ids, [bool(b) for b in rng.integers(0, 2, length)]))
    return made


def rows_of(*sources, seed=3, **options):
    options = {"seq_len": SEQ, "vocab_size": 10**6, "pad_id": 7, **options}
    return MaskedRows([MaskedSequences.of(s) for s in sources], seed=seed, **options)


def slow_reference(row_parts, seq_len):
    """One row, token by token."""
    ids, targets, segments = [7] * seq_len, [IGNORE] * seq_len, [-1] * seq_len
    at = 0
    for number, part in enumerate(row_parts):
        for i, token in enumerate(part.ids):
            ids[at], segments[at] = token, number
            if i + 1 < len(part.ids) and part.mask[i + 1]:
                targets[at] = part.ids[i + 1]
            at += 1
    return ids, targets, segments


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 1000), order=st.none() | st.integers(0, 9))
def test_rows_equal_the_slow_reference_and_lose_nothing(n, seed, order):
    made = parts(n, seed)
    rows = rows_of(made, seed=order)
    seen = Counter()
    for position in range(len(rows)):
        batch = rows.read([position])
        members = rows.members(position).tolist()
        seen.update(members)
        expected = slow_reference([made[m] for m in members], SEQ)
        assert batch.ids[0].tolist() == expected[0]
        assert batch.targets[0].tolist() == expected[1]
        assert batch.segments[0].tolist() == expected[2]
        places = (batch.targets.flatten() != IGNORE).nonzero().flatten()
        assert batch.places[: len(places)].tolist() == places.tolist()
        assert (batch.targets.flatten()[batch.places[len(places) :]] == IGNORE).all()
        assert len(batch.places) % 64 == 0
    assert seen == Counter(range(n))
    assert rows.n_targets == sum(sum(p.mask) for p in made)


def test_bounds_are_where_sequences_begin():
    from llmctl.model.attention import segment_bounds

    rows = rows_of(parts(30))
    batch = rows.read(range(4))
    assert batch.bounds.tolist() == segment_bounds(batch.segments, batch.bounds.numel()).tolist()
    assert rows.read([9, 3, 4, 1]).bounds.shape == batch.bounds.shape  # one shape for all batches


def test_the_order_is_a_function_of_seed_and_position_alone():
    made = parts(25)
    first, second = rows_of(made), rows_of(made)
    n = len(first)
    late = [second.members(p).tolist() for p in reversed(range(3 * n))]  # read backwards
    assert [first.members(p).tolist() for p in range(3 * n)] == late[::-1]
    epochs = [
        sorted(sum((first.members(e * n + i).tolist() for i in range(n)), [])) for e in (0, 1)
    ]
    assert epochs == [list(range(25))] * 2
    other = rows_of(made, seed=4)
    assert [first.members(p).tolist() for p in range(n)] != [
        other.members(p).tolist() for p in range(n)
    ]
    assert first.members(0).tolist() != first.members(n).tolist()  # another order each epoch


@pytest.mark.parametrize(("weight", "epochs"), [(2.0, 1), (0.5, 2), (0.25, 4), (1.5, 2), (0.01, 3)])
def test_a_weight_is_passes_an_epoch(weight, epochs):
    rows = rows_of(parts(20), parts(40, 1, base=20), weights=[1.0, weight])
    seen = Counter()
    for position in range(rows.begin(epochs)):
        seen.update(rows.members(position).tolist())
    assert [seen[i] for i in range(20)] == [epochs] * 20
    passes = [seen[i] for i in range(20, 60)]
    assert sum(passes) == int(epochs * weight * 40)
    assert max(passes) - min(passes) <= 1  # every sequence as often as any other
    assert rows.rows_of(epochs) == rows.begin(epochs)
    assert rows.epoch_at(rows.begin(1)) == 1.0


def test_ranks_and_micro_batches_share_a_step_and_change_nothing():
    rows = rows_of(parts(60))
    whole = torch.cat([b.ids for b in MaskedBatches(rows, rows_per_step=8).take(2, 8)])
    shares = []
    for rank in (0, 1):
        mine = MaskedBatches(rows, rows_per_step=8, rank=rank, world_size=2)
        shares += [b.ids for b in mine.take(2, 1)]
    assert torch.equal(torch.cat(shares), whole)
    with pytest.raises(UsageError, match="8 rows a step cannot be shared by 3 ranks"):
        MaskedBatches(rows, rows_per_step=8, world_size=3)


def test_a_step_says_its_tokens_its_place_and_its_sequences():
    made = parts(60)
    batches = MaskedBatches(rows_of(made), rows_per_step=4)
    held = sum(batches.describe(1)["sequences"], [])
    assert batches.tokens(1) == sum(len(made[m].ids) for m in held)
    assert 0 < batches.metrics(1)["epoch"] < 1
    last = -(-len(batches.rows) // 4)
    assert batches.metrics(last)["epoch"] > 1


@pytest.mark.parametrize(
    ("mask", "fits"),
    [
        ([0, 1, 1, 0, 1], 5),  # all of it
        ([0, 1, 1, 0, 0, 1, 1, 1], 3),  # after the first answer
        ([0, 1, 1, 1, 1, 1, 0, 1], 6),  # the answer just fits
        ([0, 1, 1, 1, 1, 1, 1, 0], 0),  # an answer is never cut
        ([0, 0, 0, 0, 0, 0, 0, 1], 0),  # the question alone teaches nothing
        ([0, 0, 0], 0),
    ],
)
def test_what_is_too_long_ends_after_a_whole_answer(mask, fits):
    assert fitting_length([bool(m) for m in mask], 6) == fits


def test_rows_that_only_fill_a_shape_have_no_targets():
    batch = without_targets(rows_of(parts(30)).read(range(4)), 2)
    assert (batch.targets[2:] == IGNORE).all() and (batch.targets[:2] != IGNORE).any()
    assert (batch.targets.flatten()[batch.places] != IGNORE).sum() == (
        batch.targets != IGNORE
    ).sum()


def test_an_id_without_a_row_and_no_sequence_at_all_are_refused():
    with pytest.raises(BadInput, match="the model has 500 ids"):
        rows_of(parts(3), vocab_size=500)
    with pytest.raises(BadInput, match="no sequence to train on"):
        rows_of([])
