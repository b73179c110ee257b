"""A run so small that a test can watch every step of it."""

from pathlib import Path

import numpy as np
import torch

from llmctl.core.distributed import World
from llmctl.data.batches import PackedBatches, PackedRows
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer
from llmctl.train.backward import Lanes
from llmctl.train.loop import Loop, LoopSettings
from llmctl.train.losses import next_token_loss
from llmctl.train.meter import Meter
from llmctl.train.optim import Optimizers, OptimSettings
from llmctl.train.plan import make_plan

EOT, VOCAB = 0, 64
SHAPE = ModelConfig(
    vocab_size=VOCAB, n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=64,
    max_seq_len=16,
)  # fmt: skip


class Stream:
    """Documents that count upwards, so that there is something to learn."""

    def __init__(self, n=300):
        rng = np.random.default_rng(0)
        lengths = rng.integers(3, 40, n)
        parts = [(np.arange(k) + rng.integers(VOCAB)) % (VOCAB - 1) + 1 for k in lengths]
        for part in parts:
            part[0] = EOT
        self.tokens = np.concatenate(parts).astype("<u2")
        self.doc_starts = np.cumsum(lengths) - lengths
        self.n_tokens = len(self.tokens)

    def read(self, start, stop):
        return self.tokens[start:stop]


def model(seed=0):
    made = Transformer(SHAPE)
    made.init_weights(seed)
    return made


def loss_of(transformer, dtype=torch.float32):
    return lambda b: next_token_loss(b, transformer.hidden, lambda: transformer.head_weight, dtype)


def batches(rank=0, world_size=1, rows_per_step=16):
    rows = PackedRows(Stream(), seq_len=16, eot_id=EOT, vocab_size=VOCAB, seed=1)
    return PackedBatches(rows, rows_per_step=rows_per_step, rank=rank, world_size=world_size)


def loop(folder: Path, *, steps=12, micro_batch=4, lanes=1, kind="adamw", world=None, **options):
    world = world or World(0, 1, torch.device("cpu"))
    transformer = options.pop("model", None) or model()
    loss_fn = options.pop("loss_fn", None) or loss_of(transformer)
    plan = make_plan(SHAPE, steps=steps, batch_tokens=256, lr=1e-2, save_steps=4, warmup=0.2)
    folder.mkdir(exist_ok=True)
    return Loop(
        model=transformer,
        loss_fn=loss_fn,
        batches=batches(world.rank, world.size),
        optimizer=Optimizers(transformer, OptimSettings(kind=kind, lr=1e-2)),
        plan=plan,
        world=world,
        folder=folder,
        meter=Meter(steps=steps, done=0, flops_per_token=1, peak=1e9, bytes_per_token=3.0, price=0),
        settings=LoopSettings(micro_batch=micro_batch, facts={"seed": 0}, **options),
        lanes=Lanes(lanes),
    )


def bits(transformer):
    return {k: v.detach().clone() for k, v in transformer.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[k], second[k]) for k in first) and first.keys() == second.keys()
