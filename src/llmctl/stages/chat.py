"""llmctl chat: a model -> a conversation at the terminal, or one answer with -p.

Reads a model: ours, or any GPT-2, Llama, Qwen2 or Qwen3 folder from Hugging Face. Writes no
artifact. stdout: the answers; everything else is said on stderr. At the end of a pipe it talks
through the terminal itself. Conversations are kept under ~/.local/state/llmctl/chat (or
$XDG_STATE_HOME), readable by their owner alone; --no-keep keeps none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from llmctl.core.config import setting
from llmctl.core.errors import Cancelled, NoInput, UsageError
from llmctl.core.stage import Stage
from llmctl.core.tool_names import NAMES, tool_names

if TYPE_CHECKING:
    from llmctl.artifacts.store import Artifact
    from llmctl.chat.conversation import Conversation
    from llmctl.chat.session import Chat, Tools
    from llmctl.chat.store import Transcript
    from llmctl.chat.voice import Voice
    from llmctl.infer.engine import Engine
    from llmctl.infer.params import SamplingParams
    from llmctl.infer.toolbox import ToolBox


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """Talk with a model."""

    prompt: tuple[str, ...] = setting(
        (), "ask this, print the answer and leave; - reads it from stdin", flag="-p"
    )
    system: str = setting("", "system prompt: what the model is told before the conversation")
    tools: tuple[str, ...] = setting((), f"what the model may call: {', '.join(NAMES)}")
    documents: str = setting(
        "", "parquet or JSONL that search looks in; empty: the documents the model was made from"
    )
    load: str = setting("", "go on with this saved conversation (JSON with `messages`)")
    resume: bool = setting(False, "go on with the last conversation with this model")
    keep: bool = setting(True, "write a transcript after each turn, and a history of lines typed")
    max_tokens: int = setting(512, "longest answer", unit="tokens")
    temperature: float = setting(0.7, "0: always the most likely token; 1: as the model has it")
    top_k: int = setting(50, "draw from so many most likely tokens only; 0: from all")
    top_p: float = setting(1.0, "draw from the fewest tokens that together have this probability")
    min_p: float = setting(0.0, "drop tokens below this fraction of the most likely one's")
    repetition_penalty: float = setting(
        1.0, "above 1: tokens that came before are made less likely"
    )
    stop: tuple[str, ...] = setting((), "text that ends an answer; \\n stands for a newline")
    stop_repeats: int = setting(
        0, "end an answer that ends with the same piece so many times (200 characters); 0: never"
    )
    seed: int = setting(1337, "decides every draw: same seed and messages, same answer")
    raw: bool = setting(False, "with -p: let control characters in the text through to a terminal")
    bos: bool | None = setting(None, "a base model's start token; none: as in training")
    dtype: str = setting("auto", "number format; auto: as stored", choices=("auto", "fp32", "bf16"))
    device: str = setting("auto", "where to run", choices=("auto", "cpu", "cuda"))
    workers: int = setting(0, "CPU threads; 0: one for each core that is idle", payload=False)

    def __post_init__(self) -> None:
        """Refuse impossible settings (2) before a model is loaded."""
        self.sampling()
        self.tool_names()
        if self.load and self.resume:
            raise UsageError("--load and --resume were both given; give one of them")
        for name in ("workers", "stop_repeats"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be at least 0; got {getattr(self, name)}")

    def tool_names(self) -> tuple[str, ...]:
        """The tools asked for; a word may hold several with commas between."""
        return tool_names(self.tools)

    def sampling(self) -> SamplingParams:
        """The sampling half of the settings."""
        from llmctl.infer.params import sampling_of

        return sampling_of(self)


def run(config: ChatConfig, inputs: list[Artifact], draft: None = None) -> None:
    """Open the model, then answer the prompts given, or talk until the user leaves."""
    [artifact] = inputs
    questions = _questions(config)
    reader = None
    talk = sys.stdout if sys.stdout.isatty() and not sys.stderr.isatty() else sys.stderr
    talk = sys.stderr if questions else talk
    kept = _state_folder(config) if not questions or config.resume else None
    if not questions:  # a missing terminal is found before a model is loaded
        from llmctl.chat.store import History
        from llmctl.chat.terminal import open_reader

        reader = open_reader(History(kept / "history" if kept and config.keep else None), talk)
    chat = _open(config, artifact, talk, kept, once=bool(questions))
    try:
        if reader is None:
            _answer(chat, questions)
        else:
            _greet(chat, artifact)
            chat.run(reader)
    except BrokenPipeError:  # caught here, since typer would make it exit code 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    finally:
        chat.save()
        if reader is not None and chat.transcript is not None and chat.transcript.path:
            chat.show.note(f"kept in {chat.transcript.path}; --resume goes on")


def _questions(config: ChatConfig) -> list[str]:
    """What -p asks; [] without -p. NoInput (66) for an empty question."""
    found = []
    for text in config.prompt:
        if text == "-":
            text = sys.stdin.buffer.read().decode("utf-8", "replace").strip("\n")
            if not text.strip():
                raise NoInput("-p -: nothing on stdin to ask")
        elif not text.strip():
            raise UsageError("-p: the question is empty")
        found.append(text)
    return found


def _state_folder(config: ChatConfig) -> Path | None:
    """Where transcripts lie; None, with a warning, where there can be none."""
    from llmctl.chat.store import state_folder
    from llmctl.core import console

    try:
        return state_folder()
    except (OSError, RuntimeError) as error:  # RuntimeError: no home
        if config.keep or config.resume:
            console.warn(f"no transcript is kept: {error}; set XDG_STATE_HOME to a folder of yours")
        return None


def _open(
    config: ChatConfig, artifact: Artifact, talk: TextIO, kept: Path | None, *, once: bool
) -> Chat:
    from llmctl.chat.session import Chat
    from llmctl.chat.show import Show
    from llmctl.core import console
    from llmctl.infer.opening import open_engine
    from llmctl.infer.printer import stdout

    transcript, conversation = _conversation(config, artifact, kept, once=once)
    engine = open_engine(
        artifact.path, dtype=config.dtype, device=config.device, workers=config.workers
    )
    voice = _voice(config, artifact, engine)
    tools = _tools(config, artifact, voice)
    out = stdout()
    raw = once and (config.raw or not out.isatty())
    return Chat(
        engine,
        voice,
        Show(out, talk, raw=raw, colour=console.colours()),
        config.sampling(),
        tools,
        conversation=conversation,
        transcript=transcript,
        stop_repeats=config.stop_repeats,
        about={"path": str(artifact.path.absolute()), "id": artifact.id},
    )


def _voice(config: ChatConfig, artifact: Artifact, engine: Engine) -> Voice:
    from llmctl.chat.voice import BaseVoice, ChatVoice
    from llmctl.infer.prompts import start_ids
    from llmctl.tokenizer.chat import chat_format

    format = chat_format(engine.tokenizer)
    if format is not None:
        return ChatVoice(format)
    start = start_ids(artifact.path, engine.tokenizer, bos=config.bos)
    return BaseVoice(engine.tokenizer, start)


def _tools(config: ChatConfig, artifact: Artifact, voice: Voice) -> Tools:
    """The tools asked for. Refused (77) for python where nothing can isolate it."""
    from llmctl.chat.session import Tools
    from llmctl.infer.tools import documents_of, open_tools

    documents = documents_of(artifact, config.documents)

    def box(names: Sequence[str]) -> ToolBox:
        return open_tools(names, voice.format, documents=documents)

    tools = Tools(open=box, known=NAMES if documents else ("python",))
    tools.choose(config.tool_names())
    return tools


def _conversation(
    config: ChatConfig, artifact: Artifact, kept: Path | None, *, once: bool
) -> tuple[Transcript | None, Conversation]:
    """Where to begin, and the file it is kept in (a single answer is not kept)."""
    from llmctl.chat.conversation import Conversation
    from llmctl.chat.keeping import load_conversation
    from llmctl.chat.store import Transcript, latest

    path = Path(config.load) if config.load else None
    if config.resume:
        path = latest(kept, artifact.id) if kept else None
        if path is None:
            raise NoInput(f"no conversation with {artifact.path} was kept; start one without it")
    conversation = load_conversation(path)[0] if path else Conversation()
    conversation.system = config.system or conversation.system
    if once or not config.keep or kept is None:
        return None, conversation
    resumed = path if config.resume else None
    return Transcript(kept, str(artifact.path), resumed), conversation


def _greet(chat: Chat, artifact: Artifact) -> None:
    """Which model this is, and how to leave."""
    from llmctl.infer.opening import model_line

    show = chat.show
    size = chat.engine.config.max_seq_len
    show.note(f"{model_line(chat.engine)}; context {size:,} tokens")
    if chat.voice.is_base:
        show.note(
            "This is a base model: it goes on with text and was never taught to talk. What you "
            "write is put to it\nas “User: …”, and what it writes after “Assistant:” is its answer."
            " `llmctl sft` makes an assistant of it."
        )
    if chat.tools.names:
        show.note(f"tools: {', '.join(chat.tools.names)}")
    if chat.conversation.turns:
        from llmctl.chat.keeping import recall

        recall(chat)
    show.note("/help lists commands; Ctrl-C stops an answer, Ctrl-D leaves")


def _answer(chat: Chat, questions: list[str]) -> None:
    """The questions of -p as one conversation, the answers with a line --- between them."""
    for number, question in enumerate(questions):
        if number:
            chat.show.out.write("---\n")
        answer = chat.ask(question)
        if answer.stopped:
            raise Cancelled("stopped by Ctrl-C; what was answered stands above")


STAGE = Stage(
    name="chat",
    version=1,
    summary="model -> a conversation",
    config=ChatConfig,
    run=run,
    reads=("model", "foreign"),
    writes=None,
    upstream="sft",
)
