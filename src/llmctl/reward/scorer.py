"""A reward model as a judge of conversations, in its own tokens and format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from llmctl.core.errors import Mismatch
from llmctl.core.hardware import cpu_has_fast_bf16
from llmctl.data.preferences.ranking import Message
from llmctl.model.reward import RewardModel, load_reward_model
from llmctl.reward.encode import Encoder, share_prompt
from llmctl.reward.flat import score_all
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import ChatFormat, chat_format


class Scorer:
    """Scores whole conversations; higher is better, differences are log odds.

    Text is rendered and tokenized anew with the reward model's own tokenizer, so the policy may
    have another.
    """

    def __init__(
        self,
        model: RewardModel,
        format: ChatFormat,
        *,
        dtype: torch.dtype = torch.float32,
        seq_len: int = 0,
    ) -> None:
        """seq_len: longer conversations lose their oldest turns, then their end; 0: the model's."""
        self.model, self.dtype = model, dtype
        self.encoder = Encoder(format, seq_len or model.config.max_seq_len)

    @classmethod
    def open(cls, folder: Path | str, device: torch.device | str = "cpu") -> Scorer:
        """From a folder that `llmctl rm` wrote, or another one-label classifier with a chat format.

        Mismatch (78) for a language model, for one without a tokenizer or chat format.
        """
        model = load_reward_model(folder, torch.float32, device)
        format = chat_format(Tokenizer.of_model(Path(folder)))
        if format is None:
            raise Mismatch(f"{folder}: its tokenizer has no chat template; make one with llmctl rm")
        on_cpu = torch.device(device).type == "cpu"
        half = cpu_has_fast_bf16() if on_cpu else torch.cuda.is_bf16_supported()
        return cls(model, format, dtype=torch.bfloat16 if half else torch.float32)

    def score(self, conversations: Sequence[Sequence[Message]]) -> list[float]:
        """One score for each; conversations that share a beginning share its computation."""
        ids = [self.encoder.encode_one(c) for c in conversations]
        groups: dict[str, list[int]] = {}
        for number, messages in enumerate(conversations):
            groups.setdefault(repr(messages[:-1]), []).append(number)
        numbers = list(groups.values())
        scores = score_all(
            self.model, [share_prompt([ids[i] for i in group]) for group in numbers], self.dtype
        )
        found = [0.0] * len(ids)
        for group, values in zip(numbers, scores):
            for number, value in zip(group, values):
                found[number] = value
        return found
