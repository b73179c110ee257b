"""The end of an RL run: the best weights taken back, what is not needed dropped, and figures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.artifacts.checkpoint import Checkpoints, copy_into
from llmctl.core import console
from llmctl.core.distributed import World
from llmctl.core.errors import Mismatch
from llmctl.core.files import atomic_write
from llmctl.model.transformer import Transformer
from llmctl.train.curve import svg_curve, text_curve
from llmctl.train.loop import Loop
from llmctl.train.optim import gather
from llmctl.train.rl_watch import Finished

Row = dict[str, Any]


class Best:
    """The weights of the evaluation with the best gold so far, in state/best."""

    def __init__(self, model: Transformer, folder: Path, world: World) -> None:
        self.model, self.world = model, world
        self.checkpoints = Checkpoints(folder / "state" / "best")

    def keep(self, step: int) -> None:
        """Save the weights as they are; all ranks must call it."""
        weights = gather(dict(self.model.named_parameters()), self.world)
        if self.world.is_main:
            self.checkpoints.save(step, {"model": weights}, {})
        self.world.wait()

    def take_back(self, step: int, start: Transformer) -> None:
        """Put the weights of that step in place of the last ones; of step 0 those of `start`. All
        ranks must call it: none leaves before all have read."""
        if step == 0:
            self.model.load_state_dict(start.state_dict())
            return
        found = [c for c in self.checkpoints if c.step == step]
        if not found or found[0].damage():
            raise Mismatch(
                f"{self.checkpoints.folder}: the best weights (step {step}) are gone; start anew "
                "with --force"
            )
        weights = found[0].tensors("model")
        copy_into(dict(self.model.named_parameters()), weights, str(found[0].path))
        self.world.wait()


def save_end(loop: Loop, world: World) -> None:
    """A checkpoint of where the run ends before its plan does: it may still be killed before its
    commit. One that is there is left as it is. All ranks must call it."""
    step = loop.state.step
    if not world.share(any(c.step == step for c in loop.checkpoints)):
        loop.save()


def drop_state(loop: Loop, best: Best, taken: int) -> None:
    """What is not needed to come to this end again; the folder has no manifest yet, so the run may
    still be killed and resumed. taken: the step whose weights were taken back; 0: none was."""
    loop.checkpoints.keep_only(loop.state.step)
    best.checkpoints.keep_only(taken)
    state = loop.checkpoints.folder
    copies = [*state.glob("reward-*"), *state.glob("gold-*")]  # a resume makes them again
    for path in [*copies, *([] if taken else [best.checkpoints.folder])]:
        shutil.rmtree(path, ignore_errors=True)
    for path in state.glob("rollouts-*.json"):
        path.unlink(missing_ok=True)


def stats_of(
    loop: Loop,
    rows: Sequence[Row],
    evals: Mapping[int, Row],
    stopped: Finished | None,
    step: int,
) -> dict[str, Any]:
    """For the manifest: how it ended, and the first and last of what was measured on held-out
    problems. rows: of metrics.jsonl; evals: by step; step: whose weights are written."""
    stats: dict[str, Any] = {
        "steps": loop.state.step,
        "model_of_step": step,
        "stopped": stopped.reason if stopped else None,
        "skipped_steps": len(loop.state.skipped),
        "rollouts": sum(int(r.get("rollouts") or 0) for r in rows),
    }
    if stopped:
        stats["stopped_because"] = stopped.said
    noted = {r["step"]: {k: r[k] for k in r if k.startswith("eval_")} for r in rows} | dict(evals)
    for at, name in ((0, "start"), (step, "end")):
        for key, value in noted.get(at, {}).items():
            if key.startswith("eval_"):
                stats[f"{name}_{key.removeprefix('eval_')}"] = value
    for key in ("kl_answer", "seconds", "cost"):
        if rows and key in rows[-1]:
            stats[key] = rows[-1][key]
    return stats


def draw_rewards(rows: list[dict[str, Any]], path: Path) -> None:
    """Reward by step, in the terminal and as an SVG; with held-out reward and gold."""
    names = {"rollouts": "reward", "held out": "eval_reward", "gold": "eval_gold"}
    curves: dict[str, Sequence[tuple[float, float]]] = {
        title: [(float(r["step"]), float(r[key])) for r in rows if r.get(key) is not None]
        for title, key in names.items()
    }
    curves = {title: points for title, points in curves.items() if points}
    if not curves.get("rollouts"):
        return
    console.info("reward\n" + text_curve(curves["rollouts"]))
    with atomic_write(path) as handle:
        handle.write(svg_curve(curves, title="reward").encode())
