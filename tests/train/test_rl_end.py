"""The end of an RL run on this rank among others."""

import torch

from llmctl.artifacts.checkpoint import Checkpoints
from llmctl.train.rl_end import Best

from .rl_tiny import tiny_policy


class Rank:
    """One of two ranks, which says when it waits for the other."""

    rank, size, is_main = 1, 2, False

    def __init__(self):
        self.waited = 0

    def wait(self):
        self.waited += 1


def test_no_rank_leaves_before_all_have_read_the_best_weights(tmp_path):
    """Rank 0 removes them next."""
    model, start, world = tiny_policy(steps=0), tiny_policy(steps=0), Rank()
    weights = {k: torch.full_like(v, 0.5) for k, v in model.named_parameters()}
    Checkpoints(tmp_path / "state/best").save(3, {"model": weights}, {})
    Best(model, tmp_path, world).take_back(3, start)
    assert world.waited == 1
    assert all(bool((p == 0.5).all()) for p in model.parameters())
