"""Accumulation: the same gradient however a batch is cut, by one lane or several."""

import pytest
import torch

from llmctl.train.backward import Lanes

from . import tiny

CPU = torch.device("cpu")


def gradients(micro_batch, lanes):
    model = tiny.model()
    params = list(model.parameters())
    work = tiny.batches().take(0, micro_batch)
    pool = Lanes(lanes)
    loss, count = pool.sum_gradients(work, tiny.loss_of(model), params, CPU)
    pool.close()
    return float(loss), float(count), torch.cat([p.grad.flatten() for p in params])


@pytest.mark.parametrize(("micro_batch", "lanes"), [(4, 1), (1, 1), (4, 2), (2, 3)])
def test_one_times_sixteen_is_four_times_four(micro_batch, lanes):
    loss, count, whole = gradients(16, 1)
    other_loss, other_count, parts = gradients(micro_batch, lanes)
    assert other_count == count and other_loss == pytest.approx(loss, rel=1e-6)
    assert (parts - whole).norm() < 1e-5 * whole.norm()


def test_an_error_in_a_lane_reaches_the_caller():
    def loss_fn(batch):
        raise ValueError("lane")

    model = tiny.model()
    with pytest.raises(ValueError, match="lane"):
        Lanes(2).sum_gradients(tiny.batches().take(0, 4), loss_fn, list(model.parameters()), CPU)
