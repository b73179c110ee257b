"""Documents packed in a row stay apart; counts and first weights."""

import pytest
import torch
from shapes import BASE, SHAPES, config, ids, model

from llmctl.core.errors import UsageError
from llmctl.model import attention
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer

SEGMENTS = torch.tensor([[0] * 5 + [1] * 8 + [-1] * 3, [0] * 16], dtype=torch.int32)


@pytest.fixture(params=["mask", "documents"])
def way(request, monkeypatch):
    """Both ways of keeping documents apart on CPU."""
    monkeypatch.setattr(attention, "DENSE_MASK_TOKENS", 0 if request.param == "documents" else 512)
    return request.param


@pytest.mark.parametrize("name", ["qwen3, tied", "gpt2, tied"])
def test_packed_documents_are_separate_documents(name, way):
    net, batch = model(name), ids(2, 16)
    packed = net(batch, segments=SEGMENTS)
    for row, start, stop in ((0, 0, 5), (0, 5, 13), (1, 0, 16)):
        alone = net(batch[row : row + 1, start:stop])
        assert (packed[row, start:stop] - alone[0]).abs().max() < 1e-5


def test_a_token_of_another_document_changes_nothing(way):
    net, batch = model("qwen3, tied"), ids(2, 16)
    before = net(batch, segments=SEGMENTS)[0, 5:13]
    batch[0, :5] = 3
    assert torch.equal(net(batch, segments=SEGMENTS)[0, 5:13], before)


def test_both_ways_have_the_same_gradients(monkeypatch):
    net, batch = model("qwen3, tied"), ids(2, 16)
    found = []
    for limit in (0, 512):
        monkeypatch.setattr(attention, "DENSE_MASK_TOKENS", limit)
        net.zero_grad()
        net(batch, segments=SEGMENTS).square().sum().backward()
        found.append([p.grad.clone() for p in net.parameters()])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_bounds_and_positions_by_hand():
    assert attention.segment_bounds(SEGMENTS).tolist() == [0, 5, 13, 16, 32]
    assert attention.segment_bounds(SEGMENTS, 7).tolist() == [0, 5, 13, 16, 32, 32, 32]
    assert attention.segment_positions(SEGMENTS)[0].tolist() == [*range(5), *range(8), *range(3)]
    with pytest.raises(ValueError, match="do not fit"):
        attention.segment_bounds(SEGMENTS, 4)


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_counted_right(name):
    net = Transformer(config(name))
    assert net.n_params() == net.config.n_params()


def test_flops_of_gpt2_small():
    """6 x 123.7M (all but the position table) + 12 x 12 x 12 x 64 x 1024."""
    gpt2 = ModelConfig.from_hf({"model_type": "gpt2"})
    assert gpt2.flops_per_token(1024) == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024


def test_first_weights_depend_on_the_seed_alone():
    def weights(seed, dtype=torch.float32):
        with torch.device("meta"):
            net = Transformer(config("qwen3, tied"))
        net = net.to(dtype).to_empty(device="cpu")
        net.init_weights(seed)
        return net.state_dict()

    a, b, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["lm_head.weight"], other["lm_head.weight"])
    assert a["lm_head.weight"].data_ptr() == a["model.embed_tokens.weight"].data_ptr()
    wide = torch.stack([a[f"model.layers.{i}.self_attn.q_proj.weight"] for i in range(2)])
    assert abs(wide.std().item() / 32**-0.5 - 1) < 0.1


def test_a_model_made_on_meta_computes_like_one_made_at_once():
    with torch.device("meta"):
        late = Transformer(config("llama, llama3 rope, biased"))
    late = late.to_empty(device="cpu")
    late.init_weights(0)
    early = Transformer(config("llama, llama3 rope, biased"))
    early.init_weights(0)
    assert torch.equal(late(ids(1, 20)), early(ids(1, 20)))


@pytest.mark.parametrize("key, value", [("n_kv_heads", 3), ("head_dim", 15), ("norm_eps", 0.0)])
def test_impossible_shapes_are_refused(key, value):
    with pytest.raises(UsageError, match=key):
        ModelConfig(**(BASE | {key: value}))
