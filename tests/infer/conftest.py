import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices: a second thread costs more than it brings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer():
    """96 ids: the end of text, then bytes 0x20 .. 0x7d, then one id that is the byte 0xc3."""
    import json

    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    from llmctl.tokenizer.bpe import Tokenizer

    vocab = {"<|endoftext|>": 0} | {chr(31 + i): i for i in range(2, 95)} | {"Ġ": 1, "Ã": 95}
    library = Library(models.BPE(vocab=vocab, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(json.dumps(json.loads(library.to_str())).encode())
