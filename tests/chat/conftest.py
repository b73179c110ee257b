"""Small random models of either kind, and a terminal to talk to a program through."""

import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

import pytest
import torch

VOCAB = {"<|endoftext|>": 0} | {chr(31 + i): i for i in range(2, 95)} | {"Ġ": 1, "Ċ": 95}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def letters():
    """A tokenizer with one id for each printable ASCII character and the newline."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    from llmctl.tokenizer.bpe import Tokenizer

    library = Library(models.BPE(vocab=VOCAB, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(json.dumps(json.loads(library.to_str())).encode())


@pytest.fixture(scope="session")
def chat_letters(letters):
    from llmctl.tokenizer.chat import with_chat

    return with_chat(letters)


@pytest.fixture(scope="session")
def folders(tmp_path_factory, letters, chat_letters):
    """name -> folder: `base` without and `chat` with a chat format, both random; the assistant
    never ends its answer by itself, so that there is time to stop it."""
    from llmctl.model.config import ModelConfig
    from llmctl.model.hf import save_model
    from llmctl.model.transformer import Transformer

    made = {}
    for name, tokenizer in (("base", letters), ("chat", chat_letters)):
        config = ModelConfig(
            family="gpt2",
            vocab_size=tokenizer.vocab_size,
            n_layers=1,
            d_model=32,
            n_heads=4,
            n_kv_heads=4,
            head_dim=8,
            d_ff=64,
            max_seq_len=16384,
            tie_embeddings=False,
            eos_ids=(0,),
        )
        model = Transformer(config)
        model.init_weights(0)
        with torch.no_grad():
            last, head = model.transformer.ln_f, model.lm_head.weight
            last.weight[0], last.bias[0] = 0.0, 10.0  # one channel is always 10 …
            head[1:96] *= 20.0
            head[:, 0] = 0.0
            head[[0, *range(96, tokenizer.vocab_size)], 0] = -10.0  # … and forbids control ids
        made[name] = tmp_path_factory.mktemp("models") / name
        save_model(model, made[name])
        tokenizer.save(made[name])
    return made


@pytest.fixture(scope="session")
def scripted(tmp_path_factory, chat_letters):
    """scripted(question, texts and control tokens …) -> the folder of a model that, asked this and
    told of python, writes that: its next token is a function of the position alone."""
    from llmctl.model.config import ModelConfig
    from llmctl.model.hf import save_model
    from llmctl.model.transformer import Transformer
    from llmctl.tokenizer.chat import chat_format

    def make(question, *pieces):
        tokenizer, width = chat_letters, 128
        message = {"role": "user", "content": question}
        told = chat_format(tokenizer).with_tools(["python"])
        prompt = told.render([message], generation=True).ids
        script = []
        for piece in pieces:
            special = tokenizer.id_of(piece)
            script += tokenizer.encode(piece) if special is None else [special]
        config = ModelConfig(
            family="gpt2",
            vocab_size=tokenizer.vocab_size,
            n_layers=1,
            d_model=width,
            n_heads=4,
            n_kv_heads=4,
            head_dim=32,
            d_ff=64,
            max_seq_len=512,
            tie_embeddings=False,
            eos_ids=(0,),
        )
        model = Transformer(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.transformer.ln_f.weight.fill_(1.0)
            model.lm_head.weight.copy_(10 * torch.eye(tokenizer.vocab_size, width))
            for place, id in enumerate(script, len(prompt) - 1):
                model.transformer.wpe.weight[place, id] = 1.0
        folder = tmp_path_factory.mktemp("models") / "scripted"
        save_model(model, folder)
        tokenizer.save(folder)
        return folder

    return make


READY = "⟩"


def run_here(words):
    """Be the program, in a fork of the tests: torch is not imported once more. Never returns."""
    from llmctl import cli

    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    sys.stderr = open(2, "w", closefd=False)
    code = 99
    try:
        code = cli.main([*words, "--workers", "1"])
        sys.stdout.flush()
    finally:
        os._exit(code)


def be_a_shell():
    """Returns in a child that has the terminal; the parent says when it stops, goes on with it,
    and leaves with its exit code."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    if not (child := os.fork()):
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        return
    while os.WIFSTOPPED(status := os.waitpid(child, os.WUNTRACED)[1]):
        os.tcsetpgrp(0, os.getpid())
        os.tcsetpgrp(0, child)  # before the test hears of it, whose next key is the program's
        os.write(1, b"in the background\n")
        os.killpg(child, signal.SIGCONT)
    os._exit(os.waitstatus_to_exitcode(status))


@pytest.fixture
def as_program():
    return run_here


class Terminal:
    """A program at a pseudo-terminal: `send` keys, `wait` for text. piped: what its stdin brings,
    which is a pipe then, so that only /dev/tty is the terminal. job: as a shell's, which brings it
    back when it has been put into the background."""

    def __init__(self, words, folder, piped=None, job=False, **environment):
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.update(
                {
                    "TERM": "xterm",
                    "NO_COLOR": "1",
                    "PROMPT_TOOLKIT_NO_CPR": "1",
                    "XDG_STATE_HOME": str(folder / "state"),
                    **environment,
                }
            )
            for name in ("EDITOR", "VISUAL"):
                os.environ.pop(name, None)
            if piped is not None:
                read, write = os.pipe()
                os.write(write, piped.encode())
                os.close(write)
                os.dup2(read, 0)
            if job:
                be_a_shell()
            run_here([str(word) for word in words])

    def send(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def type(self, keys: str) -> None:
        """Type once the prompt is there."""
        self.wait(READY)
        self.send(keys)

    def wait(self, text: str, seconds: float = 60.0) -> str:
        """Everything printed up to `text` since the last wait; fails when it does not come."""
        deadline = time.monotonic() + seconds
        while text not in self.plain():
            assert time.monotonic() < deadline, f"no {text!r} in {self.plain()!r}"
            if not self._read(0.1):
                assert text in self.plain(), f"ended without {text!r}: {self.plain()!r}"
        found, _, rest = self.plain().partition(text)
        self.seen = rest
        return found

    def plain(self) -> str:
        """What a person sees, roughly: without the line editor's escape sequences. READY stands
        where it began to wait for a line."""
        seen = self.seen.replace("\x1b[?2004h", READY)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen).replace("\r", "")

    def _read(self, seconds: float) -> bool:
        """Take in what is there; False at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            piece = os.read(self.fd, 65536)
        except OSError as error:
            assert error.errno == errno.EIO
            return False
        self.seen += piece.decode("utf-8", "replace")
        return bool(piece)

    def end(self, seconds: float = 60.0) -> int:
        """Wait for the program to leave; its exit code, negative for a signal."""
        deadline = time.monotonic() + seconds
        while True:
            more = self._read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            assert time.monotonic() < deadline, f"still there: {self.plain()!r}"
            if not more:
                time.sleep(0.05)
        while self._read(0.05) and select.select([self.fd], [], [], 0.05)[0]:
            pass
        assert "Traceback" not in self.seen
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def resize(self, rows: int, columns: int) -> None:
        """Make the window another size; the kernel tells the program."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(tmp_path):
    """Start a program at a terminal: terminal("chat", folder, …) -> Terminal."""
    opened = []

    def start(*words, **how):
        opened.append(Terminal(words, tmp_path, **how))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
