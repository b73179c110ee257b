"""What an engine computed of one conversation, kept from one request to the next.

Each prompt of a conversation begins as the last one did, so only what is new needs to go through
the model. But the last bits of a token's keys and values depend on how many tokens went through the
layers beside it, and in bf16 they decide draws: continued just where two prompts part, a 135M model
gave another answer than a fresh one in six cases of six. So prompts are taken in here in blocks of
BLOCK tokens, each beginning at a multiple of it, and what is kept are their whole blocks. The same
ids are then computed in the same pieces whatever was said before, and an answer is, bit for bit,
the one that an empty Prefix gives. What a model drew is computed again when it comes back as
part of a prompt; that costs as much as the last answer is long, not the conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from llmctl.infer.kv_cache import KVCache
from llmctl.infer.runner import Runner

BLOCK = 128  # tokens; on a CPU a new prompt takes 3 to 7% longer than in one piece, 15% with 64


class Prefix:
    """Keys and values of the last prompt. Give it to each request of a conversation, one at a time;
    `free` it for another conversation. It holds one row's cache, which goes when it goes.

    reused: tokens of the last prompt that were not computed again.
    """

    def __init__(self) -> None:
        self.reused = 0
        self._ids: list[int] = []  # whose keys and values the cache's first columns hold
        self._cache: KVCache | None = None
        self._runner: Runner | None = None

    def free(self) -> None:
        """Keep nothing any more."""
        self.reused, self._ids, self._cache, self._runner = 0, [], None, None

    def open(self, runner: Runner, new_cache: Callable[[], KVCache]) -> KVCache:
        """The cache of a request, without rows: a new one where none is kept, or one that was
        computed with other weights."""
        if self._cache is None or self._runner is not runner:
            self.free()
            self._cache, self._runner = new_cache(), runner
        self._cache.lengths.clear()
        return self._cache

    def prefill(
        self, cache: KVCache, rows: Sequence[int], prompts: Sequence[Sequence[int]]
    ) -> Tensor:
        """As Runner.prefill, for the one row of `open`'s cache: logits (1, V) after its prompt.

        Wherever a signal strikes, _ids are no more than what went through all layers and nobody
        writes over: drawn tokens stand behind the prompt, and lengths count finished pieces.
        """
        [row], [ids] = rows, prompts
        assert self._runner is not None
        start = min(_common(self._ids, ids), len(ids) - 1) // BLOCK * BLOCK
        self._ids = list(ids[:start])
        cache.lengths[row] = self.reused = start
        try:
            return self._runner.prefill(cache, rows, [ids[start:]], BLOCK)
        finally:
            self._ids = list(ids[: cache.lengths[row]])


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    pairs = enumerate(zip(a, b))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
