"""The next-token loss counts what it should."""

import pytest
import torch
import torch.nn.functional as F

from llmctl.data.batches import IGNORE

from . import tiny


def test_it_is_cross_entropy_over_targets_that_count():
    model = tiny.model()
    [batch] = tiny.batches().take(0, 16)
    loss, count = tiny.loss_of(model)(batch)
    logits = model(batch.ids, segments=batch.segments, bounds=batch.bounds)
    expected = F.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert count == (batch.targets != IGNORE).sum()


def test_a_document_does_not_see_its_neighbours():
    model = tiny.model()
    [batch] = tiny.batches().take(0, 16)
    row = int((batch.segments.max(1).values >= 1).nonzero()[0])
    second = batch.segments[row] == 1
    changed = batch.ids.clone()
    changed[row, batch.segments[row] == 0] = 5
    with torch.no_grad():
        before = model.hidden(batch.ids, segments=batch.segments, bounds=batch.bounds)
        after = model.hidden(changed, segments=batch.segments, bounds=batch.bounds)
    assert torch.equal(before[row, second], after[row, second])
    assert not torch.equal(before[row, ~second], after[row, ~second])


def test_bf16_is_close():
    model = tiny.model()
    [batch] = tiny.batches().take(0, 16)
    exact, half = (tiny.loss_of(model, d)(batch)[0] for d in (torch.float32, torch.bfloat16))
    assert half.item() == pytest.approx(exact.item(), rel=5e-3)
