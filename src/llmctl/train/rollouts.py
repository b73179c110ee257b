"""Rollouts: answers drawn from the live weights, graded, and compared within their group.

Draws are a pure function of the weights, the prompts and (seed, batch, round, rank, lane), and how
many are drawn at once is decided when a run begins: one that was killed draws the same answers
again on as many ranks and lanes. Every rollout is kept as a
line of rollouts/step-000012.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llmctl.core.errors import Diverged
from llmctl.core.files import atomic_write
from llmctl.core.seeds import derive
from llmctl.data.problems import Problem
from llmctl.infer.completion import Completion
from llmctl.infer.engine import Engine
from llmctl.infer.sampling import SamplingParams
from llmctl.infer.toolbox import ToolBox
from llmctl.model.transformer import Transformer
from llmctl.reward.judges import Judge
from llmctl.tokenizer.chat import CallError, ChatFormat
from llmctl.train import policy_loss
from llmctl.train.backward import Lanes

UNSCORED_LIMIT = 0.2  # of a batch's rewards; more of them end the run


@dataclass
class Rollout:
    """One answer. ids: all tokens after the prompt; sampled: those the policy drew itself."""

    ids: list[int]
    sampled: list[bool]
    logprobs: list[float]  # of the sampler, at its temperature; 0.0 where not sampled
    text: str  # all it said, for a person to read
    reply: str  # its last turn, which is graded
    finish: str
    calls: list[dict[str, Any]] = field(default_factory=list)
    score: float | None = None  # as graded
    reward: float | None = None  # with what overlong takes off
    advantage: float = 0.0
    trained: bool = False  # gives a gradient

    @property
    def truncated(self) -> bool:
        """Whether it was cut off instead of coming to an end."""
        return self.finish in ("length", "context")

    @property
    def n_sampled(self) -> int:
        """Tokens the policy drew, the one that ended it included."""
        return sum(self.sampled)


@dataclass
class Group:
    """The answers to one problem."""

    problem: int  # its number among the problems trained on
    prompt: list[int]
    rollouts: list[Rollout]

    @property
    def dead(self) -> bool:
        """Whether nothing can be learned from it: all rewards are equal, or missing."""
        return policy_loss.is_dead([r.reward for r in self.rollouts])


@dataclass(frozen=True)
class Grading:
    """How answers become advantages."""

    judge: Judge
    overlong: str = "none"
    penalty: float = 1.0  # taken off a truncated answer's reward with overlong="penalty"
    scale: str = "group"
    leave_one_out: bool = False


class Sampler:
    """Answers from the live weights: an engine for each lane, the same one as `generate` has."""

    def __init__(
        self,
        model: Transformer,
        format: ChatFormat,
        *,
        dtype: torch.dtype,
        lanes: int,
        max_rows: int = 64,
        kv_bytes: int | None = None,
        tools: ToolBox | None = None,
    ) -> None:
        """max_rows: answers drawn at once, by all lanes together; kv_bytes: memory for their keys
        and values, which may make them fewer. tools: what may be called."""
        rows = max(1, -(-max_rows // lanes))
        self.format, self.lanes = format, Lanes(lanes)
        self.stop_ids = tuple(sorted(format.stop_ids))
        self.engines: list[Engine] = []
        for _ in range(lanes):
            engine = Engine(
                model,
                format.tokenizer,
                max_rows=rows,
                kv_bytes=None if kv_bytes is None else kv_bytes // lanes,
                dtype=dtype,
                runner=self.engines[0].runner if self.engines else None,  # the same weights
                source="the policy",
            )
            self.engines.append(engine)
        self.tools = tools

    def refresh(self) -> None:
        """Take the weights as they are now."""
        first, *others = self.engines
        first.refresh()
        for engine in others:
            engine.runner = first.runner

    def draw(
        self, prompts: Sequence[list[int]], params: dict[str, Any], seed: int
    ) -> list[Rollout]:
        """An answer to each prompt, in order. params: of SamplingParams. Call refresh first."""
        n = len(self.engines)
        each = -(-len(prompts) // n)  # whole runs, since equal prompts stand together
        jobs = [(i, prompts[i * each : (i + 1) * each]) for i in range(n)]

        def run(job: tuple[int, Sequence[list[int]]]) -> list[Completion]:
            i, mine = job
            wanted = SamplingParams(seed=derive(seed, i), stop_ids=self.stop_ids, **params)
            return self.engines[i].generate(mine, wanted, tools=self.tools) if mine else []

        return [self._rollout(c) for done in self.lanes.map(run, jobs) for c in done]

    def close(self) -> None:
        """End its threads."""
        self.lanes.close()

    def _rollout(self, completion: Completion) -> Rollout:
        text = reply = completion.text
        if completion.calls:
            text = self.format.tokenizer.decode(completion.ids)
            reply = self._last_turn(completion)
        return Rollout(
            list(completion.ids),
            list(completion.sampled),
            list(completion.policy_logprobs),
            text,
            reply,
            str(completion.finish_reason),
            [call.as_json() for call in completion.calls],
        )

    def _last_turn(self, completion: Completion) -> str:
        """What was said after the last result; nothing where that is a broken call."""
        turns = completion.turns()
        try:
            return str(self.format.turn(turns[-1])["content"] or "") if turns else ""
        except CallError:
            return ""


def grade(groups: Sequence[Group], problems: Sequence[Problem], grading: Grading) -> None:
    """Fill in score, reward, advantage and what is trained on.

    Raises Diverged (76) when more than a fifth of the answers got no number for a reward.
    """
    answers = [(problems[g.problem], r.reply) for g in groups for r in g.rollouts]
    scores = iter(grading.judge.grade_all(answers))
    missing = 0
    for rollout in (r for g in groups for r in g.rollouts):
        rollout.score = rollout.reward = next(scores)
        missing += rollout.score is None
        if rollout.reward is not None and rollout.truncated and grading.overlong == "penalty":
            rollout.reward -= grading.penalty
    if missing > UNSCORED_LIMIT * max(1, len(answers)):
        raise Diverged(
            f"reward {grading.judge.name}: {missing} of {len(answers)} answers got no finite "
            "number for a reward; mend the reward, the last checkpoint stands"
        )
    spread = 0.0
    if grading.scale == "batch":
        spread = policy_loss.standard_deviation([[r.reward for r in g.rollouts] for g in groups])
    for group in groups:
        found = policy_loss.advantages(
            [r.reward for r in group.rollouts],
            scale=grading.scale,
            leave_one_out=grading.leave_one_out,
            batch_std=spread,
        )
        for rollout, advantage in zip(group.rollouts, found):
            masked = rollout.truncated and grading.overlong == "mask"
            rollout.advantage = advantage
            rollout.trained = not (group.dead or masked or rollout.reward is None)


def write_rollouts(path: Path, groups: Sequence[Group], problems: Sequence[Problem]) -> None:
    """One readable line a rollout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as handle:
        for group in groups:
            problem = problems[group.problem]
            for k, r in enumerate(group.rollouts):
                row = {
                    "prompt": problem.question,
                    "text": r.text,
                    "answer": problem.answer,
                    "reward": r.reward,
                    "advantage": round(r.advantage, 6),
                    "tokens": r.n_sampled,
                    "finish": r.finish,
                    "calls": r.calls,
                    "trained": r.trained,
                    "problem": problem.where or group.problem,
                    "k": k,
                }
                handle.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def measures(groups: Sequence[Group], judge: Judge) -> dict[str, float]:
    """Sums over a batch's answers that ranks can add; see `summary`."""
    rollouts = [r for g in groups for r in g.rollouts]
    scored = [r.score for r in rollouts if r.score is not None]
    sums = {
        "groups": len(groups),
        "dead": sum(g.dead for g in groups),
        "answers": len(rollouts),
        "scored": len(scored),
        "score": sum(scored),
        "tokens": sum(r.n_sampled for r in rollouts),
        "truncated": sum(r.truncated for r in rollouts),
        "calls": sum(len(r.calls) for r in rollouts),
    }
    if judge.verdicts:
        sums["right"] = sum(r.score is not None and r.score >= 1 for r in rollouts)
        sums["solved"] = sum(any((r.score or 0) >= 1 for r in g.rollouts) for g in groups)
    return {name: float(value) for name, value in sums.items()}


def summary(sums: Mapping[str, float]) -> dict[str, Any]:
    """What metrics.jsonl says of a batch's answers."""
    answers, groups = max(1.0, sums["answers"]), max(1.0, sums["groups"])
    row = {
        "reward": sums["score"] / sums["scored"] if sums["scored"] else None,
        "length": sums["tokens"] / answers,
        "truncated": sums["truncated"] / answers,
        "unscored": (sums["answers"] - sums["scored"]) / answers,
        "dead": sums["dead"] / groups,
        "rollouts": int(sums["answers"]),
    }
    if "right" in sums:
        row |= {"pass_1": sums["right"] / answers, "pass_k": sums["solved"] / groups}
    if sums["calls"]:
        row["calls"] = sums["calls"] / answers
    return row
