"""A batch of rollouts, and how it is kept in state/ between two of its updates.

Each rank keeps its own share: state/rollouts-00000012-0.json. One stays as long as a checkpoint
that was made in the middle of its updates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from llmctl.core.distributed import World
from llmctl.core.errors import Mismatch
from llmctl.core.files import read_json, write_json
from llmctl.train.rl_rows import RolloutBatch
from llmctl.train.rollouts import Group, Rollout


@dataclass
class Held:
    """A batch of rollouts and what has become of it."""

    number: int
    groups: list[Group]
    sums: dict[str, float]
    seconds: float = 0.0  # of sampling and grading
    batches: list[RolloutBatch] = field(default_factory=list)
    rounds: int = 1


def _path(state: Path, number: int, rank: int) -> Path:
    return state / f"rollouts-{number:08d}-{rank}.json"


def write_held(held: Held, state: Path, world: World, wanted: Iterable[int]) -> None:
    """All that the further updates need; written before a checkpoint that counts on it. wanted:
    numbers of the batches that checkpoints still count on; others are removed."""
    rows = {
        "ranks": world.size,
        "groups": [asdict(g) for g in held.groups],
        "sums": held.sums,
        "old": [b.note.old.tolist() for b in held.batches if b.note.old is not None],
    }
    state.mkdir(parents=True, exist_ok=True)
    path = _path(state, held.number, world.rank)
    write_json(path, json.loads(json.dumps(rows)))
    kept = {path, *(_path(state, number, world.rank) for number in wanted)}
    for file in state.glob(f"rollouts-*-{world.rank}.json"):
        if file not in kept:
            file.unlink(missing_ok=True)


def read_held(number: int, state: Path, world: World) -> tuple[Held, list[list[float]]]:
    """The batch, without its micro-batches, and the old log-probabilities of each of these.

    Mismatch (78) when it is gone, or was shared by another number of ranks.
    """
    path = _path(state, number, world.rank)
    rows = read_json(path, limit=1 << 30) if path.is_file() else {}
    if not rows:
        raise Mismatch(f"{path}: missing, so that this batch's updates cannot go on; --force")
    if rows.get("ranks") != world.size:
        raise Mismatch(
            f"{path}: the run stopped between two updates of a batch that {rows.get('ranks')} "
            f"ranks share, here are {world.size}; go on with as many, or start anew with --force"
        )
    groups = [
        Group(g["problem"], g["prompt"], [Rollout(**r) for r in g["rollouts"]])
        for g in rows["groups"]
    ]
    return Held(number, groups, rows["sums"]), rows["old"]
