"""What is watched while RL goes on: KL against its budget, dead groups, sampler against trainer."""

from __future__ import annotations

import math
from itertools import takewhile
from pathlib import Path

from torch import Tensor

from llmctl.core import console
from llmctl.core.errors import Diverged
from llmctl.train.metrics import read_metrics
from llmctl.train.rl_guard import Verdict

DEAD_WARN = 20  # steps in a row without any live group
KL_WINDOW = 5  # steps over which the KL that is held against the budget is averaged
WEAK = 0.1  # pass@1 below which a small model finds too little to learn from
OVER_OPTIMISED = "over-optimised"
DRIFT_WARN = 1.0  # nats: sampler and trainer disagree by a factor of e


class Finished(Exception):
    """The run ends before its plan does; `reason` goes into the manifest, `said` to the user."""

    def __init__(self, reason: str, said: str) -> None:
        super().__init__(said)
        self.reason, self.said = reason, said


def over_optimised(step: int, verdict: Verdict) -> Finished:
    """The end that the guard's verdict calls for."""
    return Finished(
        OVER_OPTIMISED,
        f"stopped at step {step:,}: the reward model is over-optimised. Since step "
        f"{verdict.best.step:,} its score on held-out prompts has risen (z {verdict.proxy_z:+.1f}) "
        f"while gold has fallen (z {verdict.gold_z:+.1f}), at {verdict.alarms} evaluations in a "
        f"row; the model of step {verdict.best.step:,} is kept",
    )


class Watch:
    """Ends a run in good order (`finished`) or with an error, and warns before."""

    def __init__(self, kl_budget: float = 0.0, dead_stop: int = 0) -> None:
        """kl_budget: nats an answer, 0: none. dead_stop: steps in a row without anything to learn
        from that end the run, 0: never."""
        self.kl_budget, self.dead_stop = kl_budget, dead_stop
        self.finished: Finished | None = None
        self._dead_steps = 0
        self._kl: list[float] = []

    def begin(self, folder: Path, step: int) -> None:
        """A resumed run knows what the steps before said of its end."""
        rows = read_metrics(folder / "metrics.jsonl") if step else []
        rows = [r for r in rows if r["step"] <= step]
        self._kl = [r["kl_answer"] for r in rows if r.get("kl_answer") is not None]
        self.kl(step, None)
        shares = [r["dead"] for r in rows if r.get("dead") is not None]
        self._dead_steps = sum(1 for _ in takewhile(lambda share: share >= 1, reversed(shares)))

    def kl(self, step: int, found: float | None) -> None:
        """Spend the KL budget: the mean of the last steps, in nats an answer."""
        self._kl = [*self._kl, *([] if found is None else [found])][-KL_WINDOW:]
        spent = math.fsum(self._kl) / max(1, len(self._kl))
        if self.kl_budget and len(self._kl) == KL_WINDOW and spent >= self.kl_budget:
            self.finished = Finished(
                "kl-budget",
                f"KL budget spent at step {step:,}: {spent:.2f} nats an answer from the start "
                f"model, {self.kl_budget:g} allowed",
            )

    def start(self, pass_1: float | None) -> None:
        """The share of right answers before anything is learned; None: there is no right."""
        if pass_1 is not None and pass_1 < WEAK:
            console.warn(
                f"pass@1 is {pass_1:.1%} at the start: with so few right answers small models "
                "learn little or collapse; take easier problems (--set difficulty=1), or more sft "
                "first"
            )

    def dead(self, share: float) -> None:
        """Share of a step's groups whose rewards are all equal."""
        self._dead_steps = self._dead_steps + 1 if share >= 1 else 0
        if self._dead_steps and self._dead_steps % DEAD_WARN == 0:
            console.warn(
                f"{self._dead_steps} steps without anything to learn from: all answers to each "
                "problem get the same reward; take easier or harder problems, or a larger group"
            )
        if self.dead_stop and self._dead_steps >= self.dead_stop:
            raise Diverged(
                f"{self._dead_steps} steps in a row gave nothing to learn from; take easier or "
                "harder problems; the last checkpoint stands"
            )


def worst_drift(drift: Tensor) -> float:
    """The 99th percentile of |sampler's - trainer's log-probability| (M,); warns of a large one."""
    if not drift.numel():
        return 0.0
    found = float(drift.kthvalue(max(1, math.ceil(0.99 * drift.numel()))).values)
    if found > DRIFT_WARN:
        console.warn(
            f"sampler and trainer disagree: 1% of log-probabilities differ by {found:.2f} nats "
            "or more; take --set dtype=fp32"
        )
    return found
