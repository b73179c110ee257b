"""Optimizers: Muon is Muon, decay goes where it should, state travels by name."""

import pytest
import torch

from llmctl.core.errors import Mismatch
from llmctl.train.muon import Muon, orthogonalize
from llmctl.train.optim import Optimizers, OptimSettings

from . import tiny


def test_orthogonalize_brings_singular_values_near_one():
    stack = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(stack).float())
    assert values.min() > 0.5 and values.max() < 1.4
    single = torch.cat([orthogonalize(m[None]) for m in stack])
    assert torch.allclose(single.float(), orthogonalize(stack).float(), atol=0.02)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_agrees_with_torchs():
    generator = torch.Generator().manual_seed(1)
    first = [torch.randn(32, 48, generator=generator) for _ in range(2)]
    first.append(torch.randn(48, 16, generator=generator))
    ours = [torch.nn.Parameter(w.clone()) for w in first]
    theirs = [torch.nn.Parameter(w.clone()) for w in first]
    mine = Muon(ours, lr=0.05, momentum=0.95, weight_decay=0.1)
    reference = torch.optim.Muon(
        theirs, lr=0.05, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
    for a, b, start in zip(ours, theirs, first):
        moved = (b - start).norm()
        assert (a - b).norm() < 0.02 * moved  # bf16 products in another order


def test_only_matrices_decay():
    model = tiny.model()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    optimizer = Optimizers(model, OptimSettings(lr=0.1, weight_decay=0.5))
    for p in optimizer.params:
        p.grad = torch.zeros_like(p)
    optimizer.step(0.1)
    layer = model.blocks[0]
    assert layer.mlp.up_proj.weight[0, 0].item() == pytest.approx(0.95)
    assert model.embedding.weight[0, 0] == 1.0 and layer.input_layernorm.weight[0] == 1.0


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_travels_by_parameter_name(kind):
    first, second = tiny.model(), tiny.model()
    mine, other = (Optimizers(m, OptimSettings(kind=kind)) for m in (first, second))
    for p in mine.params:
        p.grad = torch.ones_like(p)
    mine.step(0.01)
    other.load(mine.state(), "test")
    assert tiny.same(mine.state(), other.state())
    with pytest.raises(Mismatch, match="unknown parameter 'nobody'"):
        other.load({"nobody.exp_avg": torch.zeros(2)}, "test")


def test_muon_leaves_tables_and_vectors_to_adamw():
    model = tiny.model()
    muon, adamw = Optimizers(model, OptimSettings(kind="muon")).each
    hidden = {id(p) for group in muon.param_groups for p in group["params"]}
    assert id(model.embedding.weight) not in hidden and len(hidden) == 7  # q k v o gate up down
    rest = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert hidden | rest == {id(p) for p in model.parameters()} and not hidden & rest
