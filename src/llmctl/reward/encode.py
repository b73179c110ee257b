"""Rankings and conversations as ids for a reward model, cut to what it can read.

All responses of a ranking stand after the same prompt, so what does not fit is cut for all alike:
first the oldest turns of the prompt, then the ends of the longest responses. A cut response keeps
the ids that close its turn: the score is always read at the same kind of token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmctl.core.errors import BadInput, Mismatch
from llmctl.data.preferences.ranking import Message, Pairs, Ranking
from llmctl.tokenizer.chat import ChatFormat

LEAST_ROOM = 32  # tokens left to a response; a prompt that leaves fewer is too long
CLOSING = 4  # ids at the end of a turn, at most: <|im_end|>, a newline
CHUNK = 256  # rankings rendered at a time


@dataclass(frozen=True)
class Encoded:
    """One ranking as ids: `prompt` is what all responses begin with, each has more of its own."""

    prompt: np.ndarray  # (P,) int64
    responses: tuple[np.ndarray, ...]  # each (R,) int64, R >= 1
    pairs: Pairs = ()  # of `responses`
    margin: float = 0.0
    numbers: tuple[int, ...] = ()  # which responses of the ranking these are

    @property
    def n_tokens(self) -> int:
        """Tokens with the prompt once."""
        return len(self.prompt) + sum(len(r) for r in self.responses)

    @property
    def n_repeated(self) -> int:
        """Tokens with the prompt before each response."""
        return len(self.prompt) * len(self.responses) + sum(len(r) for r in self.responses)


def share_prompt(
    sides: Sequence[Sequence[int]],
    pairs: Pairs = (),
    margin: float = 0.0,
    numbers: Sequence[int] | None = None,
) -> Encoded:
    """Whole conversations as one Encoded: the ids all begin with stand once."""
    arrays = [np.asarray(side, dtype=np.int64) for side in sides]
    most = min(len(a) for a in arrays) - 1  # each keeps a token of its own, where its score is read
    same = np.ones(most, dtype=bool)
    for other in arrays[1:]:
        same &= arrays[0][:most] == other[:most]
    n = most if same.all() else int(np.argmin(same))
    if len(arrays) == 1:
        n = 0
    numbers = range(len(arrays)) if numbers is None else numbers
    return Encoded(arrays[0][:n], tuple(a[n:] for a in arrays), pairs, margin, tuple(numbers))


@dataclass
class Encoder:
    """Renders in a model's chat format, at most seq_len tokens a conversation.

    counts: what was cut or dropped, and how often.
    """

    format: ChatFormat
    seq_len: int
    counts: Counter[str] = field(default_factory=Counter)

    def encode(self, rankings: Sequence[Ranking]) -> list[Encoded | None]:
        """Each ranking's ids; None where nothing to compare is left."""
        found: list[Encoded | None] = []
        for start in range(0, len(rankings), CHUNK):
            chunk = rankings[start : start + CHUNK]
            sides = self._rendered([_sides(r, r.prompt) for r in chunk])
            found += [self._fitted(r, s) for r, s in zip(chunk, sides)]
        return found

    def encode_one(self, messages: Sequence[Message]) -> list[int]:
        """One conversation's ids, cut as a ranking's are."""
        turns = list(messages)
        ids = self.format.render(turns).ids
        while len(ids) > self.seq_len and (shorter := _shorter(turns[:-1])) is not None:
            turns = [*shorter, turns[-1]]
            ids = self.format.render(turns).ids
        return self._closed(ids, self.seq_len)

    def _rendered(self, groups: list[list[list[Message]]]) -> list[list[list[int]] | None]:
        """Ids of every side; None for a group that has no place in the format."""
        flat = [side for group in groups for side in group]
        try:
            ids = iter([r.ids for r in self.format.render_many(flat)])
            return [[next(ids) for _ in group] for group in groups]
        except (BadInput, Mismatch):
            if len(groups) == 1:
                return [None]
            return [found for group in groups for found in self._rendered([group])]

    def _fitted(self, ranking: Ranking, sides: list[list[int]] | None) -> Encoded | None:
        prompt = ranking.prompt
        while sides is not None and max(map(len, sides)) > self.seq_len:
            shorter = _shorter(prompt)
            if shorter is None:
                return self._cut(ranking, sides)
            if prompt is ranking.prompt:
                self.counts["prompts that lost their oldest turns"] += 1
            prompt = shorter
            [sides] = self._rendered([_sides(ranking, prompt)])
        if sides is None:
            self.counts["dropped: no place in the chat format"] += 1
            return None
        return share_prompt(sides, ranking.pairs, ranking.margin)

    def _cut(self, ranking: Ranking, sides: list[list[int]]) -> Encoded | None:
        """Responses cut at their ends to what the shortest possible prompt leaves."""
        shared = len(share_prompt(sides).prompt)
        if shared > self.seq_len - LEAST_ROOM:
            self.counts["dropped: a prompt longer than seq_len"] += 1
            return None
        self.counts["responses cut"] += sum(len(side) > self.seq_len for side in sides)
        sides = [self._closed(side, self.seq_len) for side in sides]
        pairs = tuple((a, b) for a, b in ranking.pairs if sides[a] != sides[b])
        if len(pairs) < len(ranking.pairs):
            self.counts["pairs dropped: equal once cut"] += len(ranking.pairs) - len(pairs)
        if not pairs:
            return None
        kept = sorted({i for pair in pairs for i in pair})
        place = {old: new for new, old in enumerate(kept)}
        renamed = tuple((place[a], place[b]) for a, b in pairs)
        return share_prompt([sides[i] for i in kept], renamed, ranking.margin, kept)

    def _closed(self, ids: list[int], length: int) -> list[int]:
        """The first `length` ids, the last of them those that close the turn."""
        if len(ids) <= length:
            return ids
        tail = ids[-CLOSING:]
        at = next((i for i, token in enumerate(tail) if token in self.format.stop_ids), CLOSING - 1)
        return ids[: length - len(tail[at:])] + tail[at:]


def _sides(ranking: Ranking, prompt: list[Message]) -> list[list[Message]]:
    return [[*prompt, *ranking.turns(i)] for i in range(len(ranking.responses))]


def _shorter(prompt: list[Message]) -> list[Message] | None:
    """The prompt without its oldest turns up to the next question; None when it has but one."""
    head = prompt[:1] if prompt and prompt[0]["role"] == "system" else []
    for at in range(len(head) + 1, len(prompt)):
        if prompt[at]["role"] == "user":
            return [*head, *prompt[at:]]
    return None
