"""Prefill and decode give the logits of the whole row at once, blocked weights or not."""

import pytest
import torch
from shapes import SHAPES, ids, model

from llmctl.infer import packed, runner
from llmctl.infer.runner import Runner


def worst(net, run, prompts, steps=6):
    """Largest difference from the Transformer's logits, over prefill and some decode steps."""
    cache = run.new_cache(len(prompts), 8)
    rows = [cache.add_row() for _ in prompts]
    seqs = [list(p) for p in prompts]
    logits, errors = run.prefill(cache, rows, prompts), []
    for step in range(steps):
        for got, seq in zip(logits, seqs):
            errors.append((got - net(torch.tensor([seq]))[0, -1]).abs().max().item())
        new = ids(1, len(seqs), seed=step)[0]
        for seq, id in zip(seqs, new.tolist()):
            seq.append(id)
        logits = run.decode(cache, new)
    return max(errors)


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_cached_decode_is_the_full_forward(name, block):
    net = model(name)
    prompts = [ids(1, n, seed=n)[0].tolist() for n in (5, 9, 9, 1)]
    assert worst(net, Runner(net, block=block), prompts) < 2e-5


@torch.no_grad()
def test_long_prompts_come_in_pieces(monkeypatch):
    monkeypatch.setattr(runner, "PREFILL_TOKENS", 4)
    net = model("qwen3, tied")
    prompts = [ids(1, n, seed=n)[0].tolist() for n in (3, 11, 4)]
    assert worst(net, Runner(net), prompts) < 2e-5


@torch.no_grad()
def test_bf16_stays_near():
    net = model("qwen3, tied")
    prompts = [ids(1, 9)[0].tolist()]
    scale = net(torch.tensor(prompts)).std().item()
    assert worst(net, Runner(net, dtype=torch.bfloat16), prompts) < 0.25 * scale


@torch.no_grad()
def test_a_consumed_model_is_still_computed_right():
    net, same = model("llama, llama3 rope, biased"), model("llama, llama3 rope, biased")
    run = Runner(net, consume=True)
    assert sum(p.numel() for p in net.blocks.parameters()) == 0
    assert worst(same, run, [ids(1, 7)[0].tolist()]) < 2e-5


def test_a_dropped_row_gives_its_place_to_the_last():
    run = Runner(model("qwen3, tied"))
    cache = run.new_cache(3, 8)
    prompts = [ids(1, n, seed=n)[0].tolist() for n in (4, 6, 3)]
    rows = [cache.add_row() for _ in prompts]
    run.prefill(cache, rows, prompts)
    before = cache.k[:, 2, :, :3].clone()
    assert cache.drop_row(0) == 2
    assert cache.lengths == [3, 6] and torch.equal(cache.k[:, 0, :, :3], before)
    with pytest.raises(ValueError, match="rows are taken"):
        for _ in range(2):
            cache.add_row()


@pytest.mark.parametrize("rows", [1, 3, 4, 16])
@pytest.mark.parametrize("block", [True, False])
def test_blocked_products_are_the_products(rows, block):
    g = torch.Generator().manual_seed(0)
    x, other = torch.randn(rows, 24, generator=g), torch.randn(rows, 40, generator=g)
    weights = [torch.randn(n, 24, generator=g) for n in (32, 8)]
    biases = [torch.randn(32, generator=g), None]
    linear = packed.Linear(weights, biases, block=block)
    y = torch.cat([x @ weights[0].T + biases[0], x @ weights[1].T], 1)
    close = dict(rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(linear(x), y, **close)
    torch.testing.assert_close(linear.silu(x), torch.nn.functional.silu(y), **close)
    gelu = torch.nn.functional.gelu(y, approximate="tanh")
    torch.testing.assert_close(linear.gelu_tanh(x), gelu, **close)
    torch.testing.assert_close(linear.plus(x, other), y + other, **close)
    torch.testing.assert_close(linear.times(x, other), y * other, **close)


def test_columns_double_and_end_with_the_context():
    from dataclasses import replace

    from shapes import config

    from llmctl.infer.kv_cache import KVCache

    wide = replace(config("qwen3, tied"), max_seq_len=300)
    cache, found = KVCache(wide, 1, 60, torch.float32, "cpu"), []
    for needed in (64, 65, 129, 257, 300):
        cache.reserve(needed)
        found.append((cache.k.shape[3], cache.v.shape[3]))
    assert found == [(n, n) for n in (64, 128, 256, 320, 320)]
