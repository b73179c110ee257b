"""A reward model: a language model's trunk and one number read off each response's last token.

As a folder it is a Hugging Face …ForSequenceClassification with one label, so that transformers,
TRL and vLLM open it with the same scores. They find the last token of a padded row as the last one
that is not `pad_token_id`: with pad = eos, and rows that end in eos, that is the token before it,
and the score another number. So the pad id recorded here never ends a response (see pad_id_for).

Axes: B rows, T tokens, D width, S responses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.core.errors import Mismatch
from llmctl.model import hf, rope
from llmctl.model.attention import Attend
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer

ARCHITECTURES = {
    "gpt2": "GPT2ForSequenceClassification",
    "llama": "LlamaForSequenceClassification",
    "qwen2": "Qwen2ForSequenceClassification",
    "qwen3": "Qwen3ForSequenceClassification",
}


class RewardModel(nn.Module):
    """One score a response. Takes over the trunk; its language head goes."""

    def __init__(self, trunk: Transformer) -> None:
        """The score's weights start at zero: every response is worth the same, the loss is ln 2."""
        super().__init__()
        if hasattr(trunk, "lm_head"):
            del trunk.lm_head
        self.trunk = trunk
        like = trunk.embedding.weight
        self.score = nn.Linear(trunk.config.d_model, 1, bias=False)
        self.score.weight = nn.Parameter(torch.zeros(1, trunk.config.d_model).to(like))

    @property
    def config(self) -> ModelConfig:
        """The trunk's shape."""
        return self.trunk.config

    def forward(
        self,
        ids: Tensor,
        segments: Tensor | None = None,
        bounds: Tensor | None = None,
        ends: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Scores (S,) fp32, one for each of `ends`.

        ids (B, T), segments, bounds, positions, attend: as of Transformer.hidden. ends (S,) int64:
        where responses end in the flattened batch; by default each row's last token.
        """
        hidden = self.trunk.hidden(
            ids, positions=positions, segments=segments, bounds=bounds, attend=attend
        )
        last = hidden[:, -1] if ends is None else hidden.flatten(0, 1)[ends]
        with torch.autocast(ids.device.type, enabled=False):
            return (last.float() @ self.score.weight.float().T)[:, 0]

    def n_params(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self.parameters())


def pad_id_for(candidates: Iterable[int | None], ending: Iterable[int]) -> int:
    """The first candidate that no response ends with: only such a pad keeps scores in place."""
    taken = frozenset(ending)
    for candidate in candidates:
        if candidate is not None and candidate not in taken:
            return candidate
    raise Mismatch(
        "the tokenizer has no control token besides those that end a turn, so none can pad; add "
        "a <|pad|> token to its tokenizer.json"
    )


def _wanted(model: RewardModel) -> dict[str, tuple[int, ...]]:
    return {
        name.removeprefix("trunk."): tuple(value.shape)
        for name, value in model.state_dict().items()
    }


def load_reward_model(
    folder: Path | str,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> RewardModel:
    """The reward model of a folder, in eval mode. Errors as of hf.load_model; 78 for others."""
    config = hf.load_config(hf.check_folder(folder), reward=True)
    with torch.device("meta"):
        model = RewardModel(Transformer(config))
    state = hf.read_state(folder, config, _wanted(model), dtype, device)
    named = {n if n == "score.weight" else f"trunk.{n}": t for n, t in state.items()}
    model.load_state_dict(named, assign=True)
    if config.family != "gpt2":
        model.trunk.rope_frequencies = rope.inverse_frequencies(config).to(device)
    return model.eval()


def save_reward_model(
    state: Mapping[str, Tensor],
    config: ModelConfig,
    folder: Path | str,
    tokenizer: hf.SavesItself | Path | str | None = None,
    *,
    pad_id: int,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the folder; `state` is a RewardModel's state dict, perhaps gathered from ranks."""
    keys: dict[str, Any] = {
        "architectures": [ARCHITECTURES[config.family]],
        "num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "problem_type": "regression",  # without it vLLM puts a sigmoid on the score
        "use_cache": False,
    }
    tensors = {name.removeprefix("trunk."): tensor for name, tensor in state.items()}
    config = dataclasses.replace(config, pad_id=pad_id)
    hf.save_state(tensors, config, folder, tokenizer, dtype=dtype, classifier=keys)
