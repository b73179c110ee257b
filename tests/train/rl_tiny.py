"""A chat model so small that RL on it takes seconds: it adds two digits, and errs half the time."""

import functools
import json
import random

import torch
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from llmctl.data.problems import Problem
from llmctl.model import hf
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import ChatFormat, chat_format, with_chat

PAIRS = [(a, b) for a in range(10) for b in range(1, 5)]

STEPS = 150  # of supervised training


@functools.cache
def tiny_format() -> ChatFormat:
    """96 ids for bytes and the end of text, then the chat's own."""
    vocab = {"<|endoftext|>": 0} | {chr(31 + i): i for i in range(2, 95)} | {"Ġ": 1, "Ã": 95}
    library = Library(models.BPE(vocab=vocab, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|endoftext|>"])
    raw = json.dumps(json.loads(library.to_str())).encode()
    found = chat_format(with_chat(Tokenizer(raw)))
    assert found is not None
    return found


def shape(**changes) -> ModelConfig:
    """Qwen3's, one layer of 64; 26 rows of the embedding stand for nothing."""
    format = tiny_format()
    facts = dict(
        vocab_size=128, n_layers=1, d_model=64, n_heads=2, n_kv_heads=1, head_dim=32, d_ff=128,
        max_seq_len=64, tie_embeddings=True, eos_ids=tuple(sorted(format.stop_ids)), pad_id=0,
    )  # fmt: skip
    return ModelConfig(**(facts | changes))


def problems(pairs=PAIRS) -> list[Problem]:
    return [
        Problem([{"role": "user", "content": f"{a}+{b}"}], str(a + b), "math", split)
        for (a, b), split in zip(pairs, split_of(pairs))
    ]


def split_of(pairs) -> list[str]:
    return ["test" if (3 * a + b) % 5 == 0 else "train" for a, b in pairs]


@functools.cache
def _weights(seed: int, steps: int) -> dict[str, torch.Tensor]:
    """After some supervised steps on answers of which a part is wrong by one."""
    format, model = tiny_format(), Transformer(shape())
    model.init_weights(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    rng = random.Random(seed)
    for _ in range(steps):
        chats = []
        for a, b in rng.choices(PAIRS, k=32):
            said = a + b + (rng.choice((1, 2, 3)) if rng.random() < 0.5 else 0)
            chats.append(
                [
                    {"role": "user", "content": f"{a}+{b}"},
                    {"role": "assistant", "content": str(said)},
                ]
            )
        rendered = format.render_many(chats)
        longest = max(len(r.ids) for r in rendered)
        ids = torch.tensor([r.ids + [0] * (longest - len(r.ids)) for r in rendered])
        mask = torch.tensor([r.mask + [False] * (longest - len(r.mask)) for r in rendered])
        logits = model(ids[:, :-1])
        targets = ids[:, 1:].masked_fill(~mask[:, 1:], -100)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def tiny_policy(seed: int = 0, steps: int = STEPS) -> Transformer:
    """The model; steps 0: untrained."""
    model = Transformer(shape())
    if steps:
        model.load_state_dict(_weights(seed, steps))
    else:
        model.init_weights(seed)
    return model


def write_policy(folder, steps: int = STEPS):
    """As a folder that `llmctl rl` takes."""
    model = tiny_policy(steps=steps)
    hf.save_state(model.state_dict(), model.config, folder, tiny_format().tokenizer)
    return folder


def write_problems(path, rows=None):
    """As JSONL with prompt, answer and split."""
    rows = problems() if rows is None else rows
    lines = [{"prompt": p.prompt, "answer": p.answer, "split": p.split} for p in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
