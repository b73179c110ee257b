"""Small folders of every family with one learned vocabulary, and one that chats."""

import random
from pathlib import Path

import pytest
import torch

from llmctl.artifacts.store import open_artifact
from llmctl.evals.tasks.several import Opening, open_subject

WORDS = (
    "the river runs past a mill and into Dunmore where it's 1847 or 2026 they'll don't I'M "
    "naïve façade Question: Answer: yes no Who was born in Bath ? . , \n\n A B 12 + 4 ="
).split(" ")
SHAPE = {
    "n_layers": 2,
    "d_model": 32,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 8,
    "d_ff": 64,
    "max_seq_len": 64,
}


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices: a second thread costs more than it brings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer():
    from llmctl.tokenizer.train import train

    draw = random.Random(7)
    return train([" ".join(draw.choices(WORDS, k=20)) for _ in range(400)], 512)


@pytest.fixture(scope="session")
def make_folder(tokenizer, tmp_path_factory):
    """make_folder(family, chat=False): a random model's folder."""

    def make(family: str, *, chat: bool = False, max_seq_len: int = 64, seed: int = 3) -> Path:
        from llmctl.model.config import ModelConfig
        from llmctl.model.hf import save_model
        from llmctl.model.transformer import Transformer
        from llmctl.tokenizer.chat import chat_format, with_chat

        own = with_chat(tokenizer) if chat else tokenizer
        shape = SHAPE | ({"n_kv_heads": 4} if family == "gpt2" else {})
        shape["max_seq_len"] = max_seq_len
        format = chat_format(own)
        ends = (own.eot_id, format.end_id) if format else (own.eot_id,)
        config = ModelConfig(family=family, vocab_size=own.vocab_size, eos_ids=ends, **shape)
        model = Transformer(config)
        model.init_weights(seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        path = tmp_path_factory.mktemp("models") / family
        save_model(model, path)
        own.save(path)
        return path

    return make


@pytest.fixture(scope="session")
def folders(make_folder) -> dict[str, Path]:
    """One folder of each family, and `chat`, with a chat format."""
    made = {family: make_folder(family) for family in ("gpt2", "llama", "qwen3")}
    return made | {"chat": make_folder("qwen3", chat=True, max_seq_len=256)}


@pytest.fixture
def subject(folders):
    """subject(name): a folder opened to be asked."""

    def open_(name: str, **opening):
        artifact = open_artifact(folders[name], ("model", "foreign"))
        return open_subject(name, artifact, Opening(workers=1, **opening))

    return open_
