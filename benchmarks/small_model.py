"""The model that both sides of a tuning benchmark start from: four layers of Llama, random weights,
a tokenizer of the benchmark's own texts with llmctl's chat template, in a folder both can open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmctl.model import hf
from llmctl.model.config import ModelConfig
from llmctl.model.reward import RewardModel, save_reward_model
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import chat_format, with_chat
from llmctl.tokenizer.train import train


def make_model(
    folder: Path, texts: Sequence[str], vocab: int, *, reward: bool = False
) -> Tokenizer:
    """Write the folder. vocab: rows of the embedding; reward: with a score for a head."""
    tokenizer = with_chat(train(texts, vocab - 128))
    found = chat_format(tokenizer)
    assert found is not None
    shape = ModelConfig(
        vocab_size=vocab,
        n_layers=4,
        d_model=256,
        n_heads=4,
        n_kv_heads=2,
        head_dim=64,
        d_ff=768,
        max_seq_len=2048,
        eos_ids=tuple(sorted(found.stop_ids)),
        pad_id=tokenizer.eot_id,
    )
    model = Transformer(shape)
    model.init_weights(0)
    if reward:
        state = RewardModel(model).state_dict()
        save_reward_model(state, shape, folder, tokenizer, pad_id=tokenizer.eot_id)
    else:
        hf.save_state(model.state_dict(), shape, folder, tokenizer)
    return tokenizer
