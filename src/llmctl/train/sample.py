"""A few words from the model in training, by the engine that serves it later."""

from __future__ import annotations

from llmctl.infer.engine import Engine
from llmctl.infer.sampling import SamplingParams
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.bpe import Tokenizer


def sample_text(model: Transformer, tokenizer: Tokenizer, prompt: str, max_tokens: int) -> str:
    """The prompt and what the model makes of it; the same seed at every call."""
    engine = Engine(model, tokenizer)
    ids = [tokenizer.eot_id, *tokenizer.encode(prompt)]
    params = SamplingParams(max_tokens=max_tokens, temperature=0.7, top_k=50, seed=0)
    [completion] = engine.generate([ids], params)
    return prompt + completion.text
