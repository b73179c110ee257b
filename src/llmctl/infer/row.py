"""One request while it is being answered."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmctl.infer.completion import Completion
from llmctl.infer.params import SamplingParams
from llmctl.infer.text import TextStream
from llmctl.tokenizer.chat import ToolCall


@dataclass
class Row:
    """A request that is being answered."""

    completion: Completion
    params: SamplingParams
    stream: TextStream
    n_sampled: int = 0
    turn: list[int] = field(default_factory=list)  # ids of the turn that goes on
    held: list[int] = field(default_factory=list)  # of these, what may be a call: not shown yet
    asked: ToolCall | str | None = None  # the call that ended the turn, or what is wrong with it

    @property
    def context(self) -> list[int]:
        """Every id the next one depends on."""
        return self.completion.prompt_ids + self.completion.ids

    @property
    def length(self) -> int:
        """How many ids that are."""
        return len(self.completion.prompt_ids) + len(self.completion.ids)

    @property
    def leaves(self) -> bool:
        """Whether it takes no further part in the batch for now."""
        return self.completion.finish_reason is not None or self.asked is not None

    def say(self, id: int, markers: frozenset[int]) -> None:
        """Show an id, unless a call began with it or before it."""
        if self.held or id in markers:
            self.held.append(id)
        else:
            self.stream.push(id)

    def end(self) -> None:
        """Nothing more comes: what looked like a call, and was none that is answered, is text."""
        for id in self.held:
            self.stream.push(id)
        self.held = []
        self.stream.finish()
        self.completion.text = self.stream.text

    def force(self, ids: list[int]) -> None:
        """Append ids the model did not draw: a result, and the beginning of the next turn."""
        completion, n = self.completion, len(ids)
        self.asked, self.turn, self.held = None, [], []
        completion.ids += ids
        completion.sampled += [False] * n
        if self.params.logprobs or self.params.probs:
            completion.logprobs += [0.0] * n
            completion.policy_logprobs += [0.0] * n
        if self.params.probs:
            completion.probs += [[] for _ in range(n)]
        self.stream.next_turn()
