"""llmctl generate: a model and prompts -> text on stdout.

Reads a model: ours, or any GPT-2, Llama, Qwen2 or Qwen3 folder from Hugging Face. Writes no
artifact. stdout: the text as it is generated, the prompt before it where stdout is a terminal (or
--echo); several results are separated by a line `---`. --jsonl: one object a result instead:
prompt, text, finish_reason (stop, length, context, calls), prompt_tokens, tokens, ids, index,
sample, and logprobs and probs where asked for; with --tools also calls (name, arguments, result)
and sampled (false for ids that a result forced). stderr: one line on the model and its speed.

A prompt is text to go on with; with --chat it is a question, put as the model's chat format has it.
--tools: what the model may call while it answers. Calls are no part of the text: they are shown
between its lines, dimmed, on a terminal only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core.config import setting
from llmctl.core.errors import Cancelled, Mismatch, NoInput, UsageError
from llmctl.core.stage import Stage
from llmctl.core.tool_names import tool_names

if TYPE_CHECKING:
    from llmctl.artifacts.store import Artifact
    from llmctl.infer.engine import Engine
    from llmctl.infer.params import SamplingParams
    from llmctl.infer.printer import TextPrinter
    from llmctl.infer.toolbox import ToolBox
    from llmctl.tokenizer.bpe import Tokenizer

MAX_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Continue prompts with a language model."""

    prompt: tuple[str, ...] = setting((), "text to continue; none: the model begins", flag="-p")
    prompts: str = setting("", "file of prompts, - for stdin: one a line, or JSONL with `prompt`")
    max_tokens: int = setting(128, "longest continuation", unit="tokens")
    temperature: float = setting(0.8, "0: always the most likely token; 1: as the model has it")
    top_k: int = setting(50, "draw from so many most likely tokens only; 0: from all")
    top_p: float = setting(1.0, "draw from the fewest tokens that together have this probability")
    min_p: float = setting(0.0, "drop tokens below this fraction of the most likely one's")
    repetition_penalty: float = setting(
        1.0, "above 1: tokens that came before are made less likely"
    )
    chat: bool | None = setting(
        None, "the prompt is a user's message in the model's chat format; none: only with --tools"
    )
    system: str = setting("", "with --chat: what the model is told before the message")
    tools: tuple[str, ...] = setting((), "what the model may call: python, search (repeatable)")
    documents: str = setting(
        "", "what search looks in: parquet, JSONL; empty: what the model was made from"
    )
    passages: int = setting(3, "passages that a search gives back")
    result_words: int = setting(120, "longest result of a tool that the model reads", unit="words")
    stop: tuple[str, ...] = setting((), "text that ends the continuation; \\n stands for a newline")
    n: int = setting(1, "continuations of each prompt", flag="-n")
    seed: int = setting(1337, "decides every draw: the same seed gives the same text")
    stream: bool = setting(True, "show text as it comes, not when it is complete")
    jsonl: bool = setting(False, "one JSON object a result instead of text")
    logprobs: bool = setting(False, "with jsonl: the log-probability of each token")
    probs: int = setting(0, "show this many most likely tokens at each place, with probabilities")
    echo: bool | None = setting(None, "print the prompt too; none: only on a terminal")
    raw: bool = setting(False, "let control characters in the text through to the terminal")
    bos: bool | None = setting(None, "start token before each prompt; none: as in training")
    dtype: str = setting("auto", "number format; auto: as stored", choices=("auto", "fp32", "bf16"))
    device: str = setting("auto", "where to run", choices=("auto", "cpu", "cuda"))
    workers: int = setting(0, "CPU threads; 0: one for each core that is idle", payload=False)

    def __post_init__(self) -> None:
        """Refuse impossible sampling (2) before a model is loaded."""
        self.sampling()
        if not 1 <= self.n <= MAX_SAMPLES:
            raise UsageError(f"n must be from 1 to {MAX_SAMPLES:,}; got {self.n}")
        if self.workers < 0:
            raise UsageError(f"workers must be at least 0; got {self.workers}")
        if self.prompt and self.prompts:
            raise UsageError("-p and --prompts were both given; give one of them")
        if self.chat is False and self.tools:
            raise UsageError("--tools needs the model's chat format; leave --no-chat out")
        if self.system and not self.chats:
            raise UsageError("--system is said in a chat; add --chat")
        tool_names(self.tools)
        if self.passages < 1 or self.result_words < 1:
            raise UsageError("passages and result_words must be at least 1")

    @property
    def chats(self) -> bool:
        """Whether prompts are messages."""
        return bool(self.tools) if self.chat is None else self.chat

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The tools asked for; a word may hold several with commas between."""
        return tool_names(self.tools)

    def sampling(self) -> SamplingParams:
        """The sampling half of the settings."""
        from llmctl.infer.params import sampling_of

        return sampling_of(self, logprobs=self.logprobs, probs=self.probs)


def run(config: GenerateConfig, inputs: list[Artifact], draft: None = None) -> None:
    """Load the model, continue every prompt, print."""
    from llmctl.core import console
    from llmctl.infer.opening import model_line, open_engine
    from llmctl.infer.prompts import read_prompts

    [artifact] = inputs
    texts = read_prompts(config.prompts) if config.prompts else list(config.prompt or [""])
    _check_tools(config)
    engine = open_engine(
        artifact.path, dtype=config.dtype, device=config.device, workers=config.workers
    )
    prompts, params, tools = _asked(config, artifact, engine, texts)
    texts = [text for text in texts for _ in range(config.n)]
    prompts = [ids for ids in prompts for _ in range(config.n)]
    printer = _printer(config, engine.tokenizer, texts)
    try:
        engine.generate(prompts, params, printer.take, tools)
    except KeyboardInterrupt:
        printer.end_line()
        printer.out.flush()
        raise Cancelled("stopped by Ctrl-C; what was generated stands above") from None
    except BrokenPipeError:  # caught here, since typer would make it exit code 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), printer.out.fileno())
        raise SystemExit(141) from None
    console.info(f"{model_line(engine)}; {engine.stats.line()}")


def _check_tools(config: GenerateConfig) -> None:
    """Refused (77) or NoInput (66) before a model is loaded, where a tool cannot be had."""
    from pathlib import Path

    if config.documents and not Path(config.documents).exists():
        raise NoInput(f"{config.documents}: no such documents; check the path")
    if "python" in config.tool_names:
        from llmctl.infer.tools import PythonTool

        PythonTool()


def _asked(
    config: GenerateConfig, artifact: Artifact, engine: Engine, texts: Sequence[str]
) -> tuple[list[list[int]], SamplingParams, ToolBox | None]:
    """The prompts' ids, how to go on from them, and what the model may call."""
    from dataclasses import replace

    from llmctl.infer.prompts import start_ids
    from llmctl.tokenizer.chat import chat_format

    tokenizer, params = engine.tokenizer, config.sampling()
    if not config.chats:
        start = start_ids(artifact.path, tokenizer, bos=config.bos)
        prompts = [start + ids for ids in tokenizer.encode_batch(texts)]
        if not all(prompts):
            raise UsageError(f"{artifact.path}: this model has no start token: give a prompt, -p")
        return prompts, params, None
    if not all(text.strip() for text in texts):
        raise UsageError("a message must not be empty; ask something with -p")
    form = chat_format(tokenizer)
    if form is None:
        raise Mismatch(f"{artifact.path}: a base model, it has no chat format; run sft first")
    tools = None
    if names := config.tool_names:
        from llmctl.infer.tools import documents_of, open_tools

        documents = documents_of(artifact, config.documents)
        words = config.result_words
        tools = open_tools(names, form, documents=documents, passages=config.passages, words=words)
    system = [{"role": "system", "content": config.system}] if config.system else []
    talks = [[*system, {"role": "user", "content": text}] for text in texts]
    told = tools.format if tools else form
    prompts = [told.render(talk, generation=True).ids for talk in talks]
    return prompts, replace(params, stop_ids=tuple(sorted(form.stop_ids))), tools


def _printer(config: GenerateConfig, tokenizer: Tokenizer, texts: Sequence[str]) -> TextPrinter:
    from llmctl.infer import printer

    out = printer.stdout()
    echo = out.isatty() if config.echo is None else config.echo
    plain: dict[str, Any] = {  # with a question before it an answer begins on its own line
        "gap": "\n" if config.chats else "",
        "echo": echo,
        "stream": config.stream,
        "raw": config.raw,
        "out": out,
    }
    if config.jsonl:
        return printer.JsonPrinter(tokenizer, config.n, texts, tools=bool(config.tools), **plain)
    if config.probs:
        return printer.ProbsPrinter(tokenizer, texts, **plain)
    return printer.TextPrinter(texts, **plain)


STAGE = Stage(
    name="generate",
    version=1,
    summary="model (+ prompts) -> text",
    config=GenerateConfig,
    run=run,
    reads=("model", "foreign"),
    writes=None,
    upstream="pretrain",
)
