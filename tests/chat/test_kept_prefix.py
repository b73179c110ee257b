"""A talk goes on from what was computed before, and nobody can tell but by the clock."""

import io
from types import SimpleNamespace

import pytest

from llmctl.chat.session import Chat, Tools
from llmctl.chat.show import Show
from llmctl.chat.voice import BaseVoice, ChatVoice
from llmctl.infer import prefix as prefix_module
from llmctl.infer.engine import Engine
from llmctl.infer.kv_cache import KVCache, Step
from llmctl.infer.params import SamplingParams
from llmctl.infer.prefix import Prefix
from llmctl.infer.toolbox import ToolBox
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.chat import chat_format

SIZE = 384  # the context, in characters


class Lines:
    interactive = can_prefill = True
    typed = trouble = ""

    def __init__(self, *lines):
        self.lines = list(lines)

    def read(self, default=""):
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)


class Forgetful(Engine):
    """Keeps nothing from one request to the next."""

    def stream(self, prompts, params, tools=None, prefix=None):
        return super().stream(prompts, params, tools, Prefix())


def python(format):
    tool = SimpleNamespace(name="python", run=lambda arguments: "42", cancel=lambda: None)
    return ToolBox(format.with_tools(["python"]), {"python": tool})


@pytest.fixture
def talk(letters, chat_letters, monkeypatch):
    """talk(engine class, whether it has a chat format, lines …) -> the chat after these lines."""
    monkeypatch.setattr(prefix_module, "BLOCK", 16)

    def make(kind, told, *lines):
        tokenizer = chat_letters if told else letters
        config = ModelConfig(
            family="qwen3",
            vocab_size=tokenizer.vocab_size,
            n_layers=2,
            d_model=32,
            n_heads=4,
            n_kv_heads=2,
            head_dim=8,
            d_ff=64,
            max_seq_len=SIZE,
            eos_ids=(0,),
        )
        model = Transformer(config)
        model.init_weights(0)
        chat = Chat(
            kind(model, tokenizer),
            ChatVoice(chat_format(tokenizer)) if told else BaseVoice(tokenizer, [0]),
            Show(io.StringIO(), io.StringIO(), colour=False),
            SamplingParams(seed=7, max_tokens=24),
            Tools(open=lambda names: python(chat_format(tokenizer))),
        )
        chat.run(Lines(*lines))
        return chat

    return make


def everything(chat):
    """All that was said in it, with the probabilities of each token."""
    answers = [
        (number, done.ids, done.logprobs, done.probs, done.text)
        for number, done in sorted(chat.completions.items())
    ]
    return chat.show.out.getvalue(), chat.conversation.to_row(), answers


LINES = [
    "/system be brief and kind to all who ask",
    "tell me of the sea and of its ships",
    "and of the land?",
    "/probs all",
    "/retry",
    "/retry 99",
    "/undo",
    "and of the land?",
    "/edit and of the air?",
    "/branch 1",
    "what lies beyond it, and who has been there?",
    "/temp 0",
    "is there more to tell of those who never came back?",
    "now the context is full " * 4,
    "and fuller still " * 4,
    "/system be long and rude",
    "once more, then",
]


@pytest.mark.parametrize("told", [True, False], ids=["chat", "base"])
def test_nothing_that_is_said_depends_on_what_was_kept(talk, told):
    kept, fresh = (talk(kind, told, *LINES) for kind in (Engine, Forgetful))
    assert everything(kept) == everything(fresh)
    probs = [
        "".join(line for line in chat.show.talk.getvalue().splitlines(True) if "%" in line)
        for chat in (kept, fresh)
    ]
    assert probs[0] == probs[1] != ""
    assert kept.dropped > 0 and len(kept.completions) >= 10
    assert kept.engine.stats.prefill_tokens < 0.7 * fresh.engine.stats.prefill_tokens
    assert " reused), " in kept.show.talk.getvalue()
    assert " reused), " not in fresh.show.talk.getvalue()


def test_tools_that_come_and_go_change_the_prompt_and_what_is_kept(talk):
    lines = ["six times seven?", "/tools python", "really?", "so?", "/tools off", "thanks"]
    found = []
    for kind in (Engine, Forgetful):
        chat = talk(kind, True, *lines)
        found.append(everything(chat))
        assert len(chat.completions) == 4
    assert found[0] == found[1]


def test_another_conversation_frees_it(talk, tmp_path):
    chat = talk(Engine, True, "tell me of the sea and of its ships", f"/save {tmp_path / 'sea'}")
    for line in ("/new", f"/load {tmp_path / 'sea'}"):
        assert chat.prefix._cache is not None
        chat.run(Lines(line))
        assert chat.prefix._cache is None
        chat.run(Lines("and of the land?"))
        assert chat.show.talk.getvalue().count("reused") == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("calls", [0, 1, 6, 20])
def test_an_answer_that_is_cut_short_harms_none_after_it(talk, monkeypatch, error, calls):
    """Cut short at a layer's attention, so many calls of it after the message was sent."""
    found = []
    for kind in (Engine, Forgetful):
        chat = talk(kind, True, "tell me of the sea and of its ships")
        with monkeypatch.context() as patch:
            left = iter(range(calls))

            def strike(inner, left=left):
                def call(*args):
                    if next(left, None) is None:
                        raise error
                    return inner(*args)

                return call

            for owner, name in ((KVCache, "prefill"), (Step, "attend")):
                patch.setattr(owner, name, strike(getattr(owner, name)))
            chat.run(Lines("and of the land, " * 3))
            assert next(left, None) is None
        chat.conversation.at = 1  # after the first answer, whatever was said before the strike
        chat.run(Lines("and of the land, " * 3 + "go on"))
        done = chat.completions[chat.conversation.at]
        found.append((done.prompt_ids, done.ids, done.logprobs, done.probs))
    assert found[0] == found[1]
