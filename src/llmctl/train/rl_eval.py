"""Held-out evaluation during RL: greedy answers to problems that are never trained on.

Each evaluation is kept as evals/step-000040.jsonl, one line an answer. The guard against
over-optimisation reads nothing else, so a run that was killed comes to the same verdict.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.core.distributed import World
from llmctl.core.files import atomic_write
from llmctl.data.problems import Problem
from llmctl.evals.intervals import wilson
from llmctl.reward.judges import Judge
from llmctl.train.meter import Meter
from llmctl.train.rl_guard import Look, Verdict, judge_looks
from llmctl.train.rollouts import Rollout, Sampler

UNSCORED = -1e300  # stands for None where ranks add numbers


@dataclass(frozen=True)
class HeldOut:
    """The problems an evaluation asks, and their prompts as ids."""

    problems: Sequence[Problem]
    prompts: Sequence[list[int]]


@dataclass
class Evaluation:
    """Greedy answers graded by the reward trained on and, where there is one, by gold."""

    held_out: HeldOut
    sampler: Sampler
    judge: Judge
    gold: Judge | None
    world: World
    folder: Path
    meter: Meter
    max_tokens: int
    keep_best: Callable[[int], None] | None = None  # saves the weights of a step
    shown: int = 1  # answers shown each time
    verdict: Verdict | None = None
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)  # step -> what was measured

    def __call__(self, step: int) -> dict[str, Any]:
        """A hook's call: measure, note, tell. All ranks must call it."""
        mine = range(self.world.rank, len(self.held_out.problems), self.world.size)
        self.sampler.refresh()
        params = {"max_tokens": self.max_tokens, "temperature": 0.0}
        rollouts = self.sampler.draw([self.held_out.prompts[i] for i in mine], params, 0)
        answers = [(self.held_out.problems[i], r.reply) for i, r in zip(mine, rollouts)]
        proxy = self._shared(mine, self.judge.grade_all(answers))
        gold = self._shared(mine, self.gold.grade_all(answers)) if self.gold else []
        self._write(step, mine, rollouts, proxy, gold)
        row = self._row(rollouts, proxy, gold)
        self.rows[step] = row
        if self.gold is not None:
            self._look(step, row)
        self.meter.say(f"step {step:,}: held-out {self._said(row, len(proxy))}")
        for (problem, reply), score in list(zip(answers, proxy))[: self.shown]:
            said = " ".join(reply.split())
            asked = " ".join(problem.question.split())
            self.meter.say(f"  {asked[-80:]} → {said[-120:]} (reward {score})")
        return row

    def _shared(self, mine: range, values: Sequence[float | None]) -> list[float | None]:
        """Every rank's values, put together on all of them."""
        whole = [0.0] * len(self.held_out.problems)
        for i, value in zip(mine, values):
            whole[i] = UNSCORED if value is None else value
        return [None if v == UNSCORED else v for v in self.world.sum(whole)]

    def _row(
        self, rollouts: Sequence[Rollout], proxy: list[float | None], gold: list[float | None]
    ) -> dict[str, Any]:
        known = [v for v in proxy if v is not None]
        sums = [float(sum(r.n_sampled for r in rollouts)), float(len(rollouts))]
        tokens, n = self.world.sum(sums)
        row: dict[str, Any] = {
            "eval_n": len(proxy),
            "eval_reward": math.fsum(known) / len(known) if known else None,
            "eval_length": tokens / max(1.0, n),
        }
        if self.judge.verdicts:
            right = sum(v >= 1 for v in known)
            low, high = wilson(right, len(proxy))
            row |= {"eval_pass_1": right / len(proxy), "eval_low": low, "eval_high": high}
        if gold:
            judged = [v for v in gold if v is not None]
            row["eval_gold"] = math.fsum(judged) / len(judged) if judged else None
        return row

    def _look(self, step: int, row: dict[str, Any]) -> None:
        self.verdict = verdict = self.look(step)
        assert verdict is not None
        row |= {"guard_alarms": verdict.alarms, "guard_best_step": verdict.best.step}
        row |= {"guard_proxy_z": _finite(verdict.proxy_z), "guard_gold_z": _finite(verdict.gold_z)}
        if verdict.best.step == step and step and self.keep_best is not None:
            self.keep_best(step)

    def look(self, step: int) -> Verdict | None:
        """The verdict after `step` updates; None before any evaluation. All ranks must call it."""
        looks = read_looks(self.folder, step) if self.world.is_main else []
        looks = self.world.share(looks)
        return judge_looks(looks) if looks else None

    def _said(self, row: dict[str, Any], n: int) -> str:
        parts = []
        if "eval_pass_1" in row:
            interval = f"95% {row['eval_low']:.1%} – {row['eval_high']:.1%}"
            parts.append(f"pass@1 {row['eval_pass_1']:.1%} of {n} ({interval})")
        elif row["eval_reward"] is not None:
            parts.append(f"reward {row['eval_reward']:.3f} over {n}")
        if row.get("eval_gold") is not None:
            parts.append(f"gold {row['eval_gold']:.3f}")
        return ", ".join([*parts, f"{row['eval_length']:.0f} tokens an answer"])

    def _write(
        self,
        step: int,
        mine: range,
        rollouts: Sequence[Rollout],
        proxy: list[float | None],
        gold: list[float | None],
    ) -> None:
        """Rank 0 has every score; answers of other ranks are in files of their own."""
        said = dict(zip(mine, rollouts))
        numbers = range(len(proxy)) if self.world.is_main else mine
        rank = f"-rank{self.world.rank}" if self.world.rank else ""
        path = _file(self.folder, step, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as handle:
            for i in numbers:
                row: dict[str, Any] = {"prompt": self.held_out.problems[i].question}
                row |= {"answer": self.held_out.problems[i].answer, "reward": proxy[i]}
                row |= {"gold": gold[i]} if gold else {}
                if i in said:
                    row |= {"text": said[i].text, "tokens": said[i].n_sampled}
                    row |= {"finish": said[i].finish}
                handle.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def _finite(value: float) -> float:
    return max(-1e6, min(1e6, value))


def _file(folder: Path, step: int, rank: str = "") -> Path:
    return folder / "evals" / f"step-{step:06d}{rank}.jsonl"


def read_looks(folder: Path, last: int) -> list[Look]:
    """The evaluations kept in a run's folder, up to and with step `last`."""
    looks = []
    for path in sorted((folder / "evals").glob("step-*.jsonl")):
        found = re.fullmatch(r"step-(\d+)\.jsonl", path.name)
        if found is None or int(found[1]) > last:
            continue
        rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
        looks.append(
            Look(int(found[1]), [r["reward"] for r in rows], [r.get("gold") for r in rows])
        )
    return looks
