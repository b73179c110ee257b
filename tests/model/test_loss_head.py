"""The chunked head is F.cross_entropy of the whole logits, value and gradients."""

import pytest
import torch
import torch.nn.functional as F

from llmctl.model.loss_head import IGNORE, loss_head


def data(dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(37, 16, generator=g).to(dtype).requires_grad_()
    weight = torch.randn(50, 16, generator=g).requires_grad_()
    targets = torch.randint(0, 50, (37,), generator=g)
    targets[::7] = IGNORE
    return hidden, weight, targets, g


@pytest.mark.parametrize("chunk", [1, 8, 64])
def test_value_and_gradients_are_exact(chunk):
    hidden, weight, targets, _ = data()
    loss, count = loss_head(hidden, weight, targets, chunk=chunk)
    (loss / count).backward()
    found = loss.detach(), hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    wanted = F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORE, reduction="sum")
    (wanted / count).backward()
    assert count == (targets != IGNORE).sum()
    for a, b in zip(found, (wanted.detach(), hidden.grad, weight.grad)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_weights_of_rows_scale_loss_and_count():
    hidden, weight, targets, g = data()
    factors = torch.rand(37, generator=g)
    loss, count = loss_head(hidden, weight, targets, factors, chunk=8)
    each = F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORE, reduction="none")
    torch.testing.assert_close(loss, (each * factors).sum(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(count, (factors * (targets != IGNORE)).sum())


def test_bf16_hidden_with_fp32_weight():
    hidden, weight, targets, _ = data(torch.bfloat16)
    loss, count = loss_head(hidden, weight, targets, chunk=8)
    loss.backward()
    exact = F.cross_entropy(
        hidden.float() @ weight.T, targets, ignore_index=IGNORE, reduction="sum"
    )
    assert loss.dtype == torch.float32 and abs(loss / exact - 1) < 0.02
    assert hidden.grad.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32


def test_under_autocast_and_without_gradients():
    hidden, weight, targets, _ = data()
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = loss_head(hidden, weight, targets)
    with torch.no_grad():
        outside, _ = loss_head(hidden, weight, targets)
    assert torch.equal(inside, outside)


def test_nothing_to_count_is_zero():
    hidden, weight, _, _ = data()
    loss, count = loss_head(hidden, weight, torch.full((37,), IGNORE))
    loss.backward()
    assert loss == 0 and count == 0 and not hidden.grad.any()
