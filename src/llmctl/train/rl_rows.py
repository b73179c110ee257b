"""Rollouts as micro-batches, and the loss of one.

A micro-batch is one flat row of N tokens. On a CPU the answers to a problem stand behind one copy
of its prompt (model/group_attention.py), which for eight answers as long as the prompt saves nearly
half the tokens; on CUDA each answer has its own copy and is a segment, as the variable-length
kernel wants it. Only tokens that the policy drew are targets, its end token among them; what a tool
said is context and no more.

Axes: N tokens of a flat row, M of them drawn by the policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from llmctl.model.group_attention import attention_over
from llmctl.model.shared_prefix import positions_of, segments_of
from llmctl.model.transformer import Transformer
from llmctl.train.policy_loss import ALL, Drawable, Objective, k3, policy_head, token_losses
from llmctl.train.rollouts import Group, Rollout


@dataclass
class Note:
    """What the passes over a micro-batch leave behind; shared by its copies on other devices."""

    number: int  # of the micro-batch in its step
    old: Tensor | None = None  # (M,) log-probabilities before the first update
    reference: Tensor | None = None  # (M,) under the start model, where it was asked
    sums: dict[str, float] = field(default_factory=dict)
    drift: Tensor | None = None  # (M,) |sampler's - trainer's log-probability|


@dataclass(frozen=True)
class RolloutBatch:
    """One flat row. ids, positions (1, N) int64; layout: of group_attention, or else segments
    (1, N) with bounds. source (M,): which position predicts each target (M,) int64; advantages,
    weights, sampler (M,) fp32; answer (M,) int64: number of the answer a token belongs to."""

    ids: Tensor
    positions: Tensor
    layout: list[tuple[int, list[int]]] | None
    segments: Tensor | None
    bounds: Tensor | None
    source: Tensor
    targets: Tensor
    advantages: Tensor
    weights: Tensor
    sampler: Tensor
    answer: Tensor
    n_answers: int
    count: float  # the loss sum's divisor, as far as this micro-batch adds to it
    note: Note

    def to(self, device: torch.device) -> RolloutBatch:
        """The same on another device."""
        if device.type == "cpu":
            return self
        tensors: dict[str, Any] = {
            k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)
        }
        return replace(self, **tensors)


def micro_batches(
    groups: Sequence[Group], objective: Objective, *, budget: int, shared: bool
) -> Iterator[RolloutBatch]:
    """Flat rows of at most about `budget` tokens over what is trained on, in order.

    A group that does not fit is split, its prompt standing in both rows. shared: one copy of the
    prompt for all answers behind it.
    """
    row: list[tuple[list[int], list[Rollout]]] = []
    size = number = 0
    for group in groups:
        for rollout in group.rollouts:
            if not rollout.trained:
                continue
            joins = shared and bool(row) and row[-1][0] == group.prompt
            cost = len(rollout.ids) - 1 + (0 if joins else len(group.prompt))
            if row and size + cost > budget:
                yield _flat(row, objective, number, shared)
                row, size, number, joins = [], 0, number + 1, False
                cost = len(rollout.ids) - 1 + len(group.prompt)
            if not joins:
                row.append((group.prompt, []))
            row[-1][1].append(rollout)
            size += cost
    if row:
        yield _flat(row, objective, number, shared)


def _flat(
    row: Sequence[tuple[list[int], list[Rollout]]], objective: Objective, number: int, shared: bool
) -> RolloutBatch:
    ids: list[int] = []
    columns: dict[str, list[Any]] = {
        k: [] for k in ("source", "target", "advantage", "weight", "sampler", "answer")
    }
    layout: list[tuple[int, list[int]]] = []
    sizes: list[int] = []
    for prompt, rollouts in row:
        ids += prompt
        last = len(ids) - 1  # the prompt's last token predicts every answer's first
        layout.append((len(prompt), [len(r.ids) - 1 for r in rollouts if len(r.ids) > 1]))
        for rollout in rollouts:
            at = len(ids)  # where its first token stands, so that ids[j] is predicted at at + j - 1
            ids += rollout.ids[:-1]
            drawn = [j for j, own in enumerate(rollout.sampled) if own]
            columns["source"] += [at + j - 1 if j else last for j in drawn]
            columns["target"] += [rollout.ids[j] for j in drawn]
            columns["advantage"] += [rollout.advantage] * len(drawn)
            columns["weight"] += [objective.weight(len(drawn))] * len(drawn)
            columns["sampler"] += [rollout.logprobs[j] for j in drawn]
            columns["answer"] += [len(sizes)] * len(drawn)
            sizes.append(len(drawn))
    integer = {k: torch.tensor(columns[k]) for k in ("source", "target", "answer")}
    real = {
        k: torch.tensor(columns[k], dtype=torch.float32) for k in ("advantage", "weight", "sampler")
    }
    segments, bounds = (None, None) if shared else segments_of(layout)
    return RolloutBatch(
        ids=torch.tensor(ids)[None],
        positions=positions_of(layout)[None],
        layout=layout if shared else None,
        segments=segments,
        bounds=bounds,
        source=integer["source"],
        targets=integer["target"],
        advantages=real["advantage"],
        weights=real["weight"],
        sampler=real["sampler"],
        answer=integer["answer"],
        n_answers=len(sizes),
        count=objective.count(sizes),
        note=Note(number),
    )


class PolicyLoss:
    """The loss function of a run: (sum, count) of a micro-batch, with what is measured noted."""

    def __init__(
        self,
        model: Transformer,
        reference: Transformer,
        objective: Objective,
        *,
        dtype: torch.dtype,
        drawable: Drawable = ALL,
        old_from_sampler: bool = False,
        ask_reference: bool = False,
    ) -> None:
        """ask_reference: the start model is asked about every micro-batch; else about the first of
        a step, which is enough to watch KL by."""
        self.model, self.reference, self.objective = model, reference, objective
        self.dtype, self.drawable = dtype, drawable
        self.old_from_sampler, self.ask_reference = old_from_sampler, ask_reference

    def __call__(self, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
        note = batch.note
        first = note.old is None  # of the updates made with these rollouts
        if note.reference is None and (self.ask_reference or note.number == 0):
            note.reference = self.logprobs(self.reference, batch)
        old = batch.sampler if self.old_from_sampler else note.old

        def rule(logprobs: Tensor, rows: slice) -> Tensor:
            before = logprobs.detach() if old is None else old[rows]
            reference = note.reference[rows] if note.reference is not None else None
            losses = token_losses(
                logprobs, before, batch.advantages[rows], self.objective, reference
            )
            return losses * batch.weights[rows]

        loss, found = policy_head(
            self._states(self.model, batch),
            self.model.head_weight,
            batch.targets,
            rule,
            self.drawable,
        )
        note.drift = (found.logprobs - batch.sampler).abs() if first else None
        note.old = found.logprobs if first else note.old
        note.sums = {"tokens": float(len(batch.targets)), "entropy": float(found.entropy.sum())}
        note.sums["clipped"] = float(self._clipped(found.logprobs, old, batch.advantages))
        if note.reference is not None:
            kl = k3(found.logprobs, note.reference)
            note.sums |= {"kl": float(kl.sum()), "kl_tokens": float(len(kl))}
            note.sums["kl_answers"] = float(batch.n_answers)
        return loss, torch.tensor(batch.count)

    def _clipped(self, logprobs: Tensor, old: Tensor | None, advantages: Tensor) -> Tensor:
        """Tokens whose ratio has gone past the clip, so that they give no gradient any more."""
        if old is None:
            return torch.zeros(())
        log_ratio = logprobs - old
        up = (log_ratio.exp() > 1 + self.objective.clip_high) & (advantages > 0)
        down = (log_ratio.exp() < 1 - self.objective.clip_low) & (advantages < 0)
        return (up | down).sum()

    @torch.no_grad()
    def logprobs(self, model: Transformer, batch: RolloutBatch) -> Tensor:
        """(M,) log-probabilities of the drawn tokens under a model."""
        hidden = self._states(model, batch)
        _, found = policy_head(
            hidden,
            model.head_weight,
            batch.targets,
            None,
            self.drawable,
        )
        return found.logprobs

    def _states(self, model: Transformer, batch: RolloutBatch) -> Tensor:
        """(M, D): the states that predict the drawn tokens, in the dtype of products."""
        extra: dict[str, Any] = {"segments": batch.segments, "bounds": batch.bounds}
        if batch.layout is not None:
            extra = {"attend": attention_over(batch.layout, model.config.n_heads)}
        device = batch.ids.device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            out = model.hidden(batch.ids, positions=batch.positions, **extra)
        return out[0].index_select(0, batch.source).to(self.dtype)
