"""A small base model, conversations and folders for the tests of tuning."""

import json
import random

from llmctl.model.config import ModelConfig
from llmctl.model.hf import save_model
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.chat import chat_format, with_chat
from llmctl.tokenizer.train import train

WORDS = "the river ran past a mill where old men told tales of rain and bread to children".split()
CHATML = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SHAPE = dict(n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=64, max_seq_len=64)


def say(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, n)))


def conversations(n=60, seed=0, turns=2, words=8):
    """Messages: sometimes a system message, one or two exchanges."""
    rng, made = random.Random(seed), []
    for _ in range(n):
        messages = []
        if rng.random() < 0.3:
            messages.append({"role": "system", "content": say(rng, 4)})
        for _ in range(rng.randint(1, turns)):
            messages.append({"role": "user", "content": say(rng, words)})
            messages.append({"role": "assistant", "content": say(rng, words)})
        made.append(messages)
    return made


def write_jsonl(path, chats):
    path.write_text("".join(json.dumps({"messages": m}) + "\n" for m in chats))
    return path


def base_tokenizer():
    rng = random.Random(1)
    return train([say(rng, 40) for _ in range(300)], 384)


def base_model(folder, family="qwen3", tokenizer=None, seed=0, **options):
    """A folder with a random model and a tokenizer that has no chat format."""
    tokenizer = tokenizer or base_tokenizer()
    shape = {"vocab_size": tokenizer.vocab_size, **SHAPE, "family": family, **options}
    if family == "gpt2":
        shape["n_kv_heads"] = shape["n_heads"]
    eot = tokenizer.eot_id
    model = Transformer(ModelConfig(**shape, bos_id=eot, eos_ids=(eot,), pad_id=eot))
    model.init_weights(seed)
    save_model(model, folder, tokenizer)
    return folder


def chat_model(folder, family="llama", template=CHATML, **options):
    """A folder with a random model that brings a chat template of its own."""
    tokenizer = base_tokenizer()
    ours = with_chat(tokenizer)  # its control tokens, another template
    base_model(folder, family, ours, **options)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"chat_template": template, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def our_format():
    return chat_format(with_chat(base_tokenizer()))
