"""Bradley-Terry over rankings: the formula, its special cases, and batches that keep to it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llmctl.core.distributed import World
from llmctl.data.preferences import Ranking
from llmctl.model.config import ModelConfig
from llmctl.model.reward import RewardModel
from llmctl.model.transformer import Transformer
from llmctl.reward.encode import Encoded, share_prompt
from llmctl.train.ranking_loss import compare, ranking_loss
from llmctl.train.rm_batches import ROW, RankingBatches, make_batch, make_loss

ALONE = World(0, 1, torch.device("cpu"))


def plain_loss(scores, rankings, margin=0.0, centering=0.0):
    """The formula as one would say it: for each ranking, for each of its pairs."""
    total, first = 0.0, 0
    for pairs, size in rankings:
        losses = []
        for better, worse in pairs:
            a, b = scores[first + better], scores[first + worse]
            losses.append(
                -math.log(1 / (1 + math.exp(-(a - b - margin)))) + centering * (a + b) ** 2
            )
        total += sum(losses) / len(losses)
        first += size
    return total


def test_all_pairs_of_a_ranking_are_one_element_of_the_batch():
    scores = [0.5, -1.0, 2.0, 0.1, 0.3, -0.4]
    rankings = [(((0, 1), (0, 2), (1, 2)), 3), (((1, 0),), 2), (((0, 0),), 1)][:2]
    pairs = compare([3, 2], [r[0] for r in rankings], [0.0, 0.0])
    loss, count = ranking_loss(torch.tensor(scores[:5]), pairs, margin=0.2, centering=0.05)
    assert count == 2
    assert loss.item() == pytest.approx(plain_loss(scores, rankings, 0.2, 0.05), rel=1e-5)


def test_pairs_alone_are_trl_s_loss():
    torch.manual_seed(0)
    chosen, rejected, margin = torch.randn(3, 7)
    theirs = -F.logsigmoid(chosen - rejected - margin).mean()
    theirs = theirs + 0.01 * torch.mean((rejected + chosen) ** 2)
    scores = torch.stack([chosen, rejected], 1).flatten()
    pairs = compare([2] * 7, [((0, 1),)] * 7, margin.tolist())
    loss, count = ranking_loss(scores, pairs, centering=0.01)
    assert torch.allclose(loss / count, theirs)


def test_ties_make_no_pair_and_no_gradient():
    tied = Ranking([], ["a", "b", "c"], [1, 1, 2])
    scores = torch.tensor([0.3, 0.3, 0.3], requires_grad=True)
    loss, _ = ranking_loss(scores, compare([3], [tied.pairs], [0.0]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert scores.grad.tolist() == [-0.25, -0.25, 0.5]  # two pairs, each pulls by a half of a half


SHAPE = ModelConfig(
    vocab_size=64, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48,
    max_seq_len=128,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    made = Transformer(SHAPE)
    made.init_weights(1)
    reward = RewardModel(made)
    torch.manual_seed(2)
    reward.score.weight.data.normal_()
    return reward


def rankings(n=12, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        prompt, k = rng.integers(64, size=rng.integers(1, 30)), int(rng.integers(2, 5))
        sides = [
            np.concatenate([prompt, rng.integers(64, size=rng.integers(1, 20))]) for _ in range(k)
        ]
        ranks = rng.integers(3, size=k)
        pairs = Ranking([], [""] * k, ranks.tolist()).pairs or ((0, 1),)
        made.append(share_prompt(sides, pairs))
    return made


def whole(ranking: Encoded, i):
    return torch.from_numpy(np.concatenate([ranking.prompt, ranking.responses[i]]))[None]


def batches(made, **options):
    given = dict(per_step=5, total=len(made), seed=3, shared=True, lanes=1, world=ALONE)
    return RankingBatches(made, **(given | options))


@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_has_the_loss_and_gradient_of_responses_scored_alone(model, shared):
    made = rankings(6)
    alone = [model(whole(r, i)) for r in made for i in range(len(r.responses))]
    pairs = compare([len(r.responses) for r in made], [r.pairs for r in made], [0.0] * 6)
    wanted, _ = ranking_loss(torch.cat(alone), pairs)
    found = batches(made)
    loss, count = make_loss(model, torch.float32, found.tally, margin=0, centering=0)(
        make_batch(made, shared=shared)
    )
    assert count == 6 and torch.allclose(loss, wanted, rtol=1e-4)
    params = list(model.parameters())
    for a, b in zip(*(torch.autograd.grad(x, params) for x in (loss, wanted))):
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-3)


def test_rankings_stay_whole_however_a_step_is_divided(model):
    made = rankings(40)
    for micro, lanes in ((1, 1), (4, 1), (1, 3)):
        found = batches(made, per_step=20, lanes=lanes)
        parts = list(found.take(0, micro))
        assert len(parts) >= lanes
        assert sum(p.pairs.rankings for p in parts) == 20
        for part in parts:
            assert len(part.flat.ends) == 1 + int(
                max(part.pairs.better.max(), part.pairs.worse.max())
            )
        loss_fn = make_loss(model, torch.float32, found.tally, margin=0, centering=0)
        total = sum(float(loss_fn(p)[0].detach()) for p in parts)
        first = locals().get("first", total)
        assert total == pytest.approx(first, rel=1e-4)
        chosen = [made[i] for i in found.numbers(0)]
        alone = [[model(whole(r, i)).item() for i in range(len(r.responses))] for r in chosen]
        right = [scores[a] > scores[b] for r, scores in zip(chosen, alone) for a, b in r.pairs]
        assert 0.1 < found.metrics(0)["accuracy"] == sum(right) / len(right) != 0.5
    tokens = batches(made, per_step=20).tokens(0)
    assert (
        tokens == sum(p.flat.ids.numel() for p in batches(made, per_step=20).take(0, 1)) < 20 * ROW
    )


def test_a_pair_is_right_where_the_better_side_scores_higher_and_half_where_both_are_equal():
    found = batches(rankings(1))
    found.tally.add(torch.tensor([3.0, 2.0, 1.0, 0.5]), torch.tensor([0.0, 1.0, 4.0, 0.5]))
    assert found.metrics(0) == {"accuracy": 2.5 / 4}


def test_an_epoch_has_every_ranking_once_and_the_last_step_the_rest():
    made = rankings(12)
    found = batches(made, total=18)
    numbers = [found.numbers(step) for step in range(4)]
    assert [len(n) for n in numbers] == [5, 5, 5, 3]
    flat = [i for step in numbers for i in step]
    assert sorted(flat[:12]) == list(range(12)) and flat[:6] != flat[12:]
    assert batches(made, total=18).numbers(3) == numbers[3]  # nothing depends on what came before
    assert batches(made, total=18, seed=4).numbers(0) != numbers[0]


def test_ranks_share_a_step():
    made = rankings(12)
    parts = [
        batches(made, per_step=6, world=World(rank, 2, torch.device("cpu"))) for rank in (0, 1)
    ]
    counts = [sum(b.pairs.rankings for b in part.take(0, 1)) for part in parts]
    assert counts == [3, 3]
    assert parts[0].tokens(0) == parts[1].tokens(0)
    probe = parts[0].probe(1)
    assert probe.flat.ids.numel() >= max(r.n_tokens for r in made)
