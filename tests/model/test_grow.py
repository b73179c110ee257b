"""A grown vocabulary: old ids mean what they meant, new ones start near the middle."""

import dataclasses

import pytest
import torch

from llmctl.core.errors import Mismatch
from llmctl.model.config import ModelConfig
from llmctl.model.grow import grow_embedding
from llmctl.model.transformer import Transformer

SHAPE = ModelConfig(
    vocab_size=256, n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=64,
    max_seq_len=16,
)  # fmt: skip
IDS = torch.arange(10)[None]


def made(**options):
    model = Transformer(dataclasses.replace(SHAPE, **options))
    model.init_weights(0)
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_old_ids_keep_their_logits_and_heads_stay_as_they_were(tied):
    model = made(tie_embeddings=tied)
    before = model(IDS)
    assert grow_embedding(model, 262) is model
    assert model.config.vocab_size == 384 and model.n_params() == model.config.n_params()
    assert torch.equal(model(IDS)[..., :256], before)
    assert (model.head_weight is model.embedding.weight) == tied
    assert model.embedding.weight.requires_grad and model.head_weight.requires_grad


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_new_rows_are_the_mean_and_a_little_of_their_own(family):
    kv = 2 if family == "gpt2" else 1
    model = grow_embedding(made(family=family, n_kv_heads=kv), 262, seed=1)
    old, new = model.embedding.weight[:256], model.embedding.weight[256:262]
    distance = (new - old.mean(0)).norm(dim=1) / old.std(0).norm()
    assert 0.02 < distance.min() and distance.max() < 0.3
    assert len({tuple(row.tolist()) for row in new}) == 6
    again = grow_embedding(made(family=family, n_kv_heads=kv), 262, seed=1)
    assert torch.equal(again.embedding.weight, model.embedding.weight)


def test_ids_that_fit_the_padding_take_it_and_nothing_grows():
    model = made()
    before = model.embedding.weight.detach().clone()
    grow_embedding(model, 256, known=250)
    assert model.config.vocab_size == 256
    after = model.embedding.weight
    assert torch.equal(after[:250], before[:250]) and not torch.equal(after[250:], before[250:])


def test_nothing_new_changes_nothing_and_too_many_known_are_refused():
    model = made()
    before = model.embedding.weight
    assert grow_embedding(model, 250, known=250).embedding.weight is before
    with pytest.raises(Mismatch, match="the tokenizer has 300 ids, the model only 256"):
        grow_embedding(model, 310, known=300)
