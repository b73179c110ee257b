"""The talk itself: reads a line, does what it says, shows the answer, keeps the transcript.

Ctrl-C during an answer ends the answer, a running tool with it, and keeps what was said; nothing
said yet means that the message is taken back. At the prompt it clears the line; twice at an empty
one it leaves, as Ctrl-D does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.chat import commands
from llmctl.chat.answer import Answer, ctrl_c_once, ending, repeats, status_line, unanswered
from llmctl.chat.context import Fit, fit
from llmctl.chat.conversation import Conversation, Turn
from llmctl.chat.show import Show
from llmctl.chat.store import Transcript
from llmctl.chat.terminal import Reader
from llmctl.chat.voice import Voice
from llmctl.core.errors import Diverged, LlmctlError, from_exception
from llmctl.infer.completion import Completion
from llmctl.infer.engine import Engine
from llmctl.infer.params import MASK64, SamplingParams
from llmctl.infer.prefix import Prefix
from llmctl.infer.toolbox import ToolBox
from llmctl.tokenizer.bpe import clean_text
from llmctl.tokenizer.chat import Message

PROBS = 5  # likeliest tokens kept for /probs at each place


@dataclass
class Tools:
    """The tools in use. open: makes a box of tools by name; LlmctlError says why it cannot.
    known: those that could be used here."""

    open: Callable[[Sequence[str]], ToolBox]
    known: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    box: ToolBox | None = None

    def choose(self, names: Sequence[str]) -> None:
        """Use these tools from now on; none: no tools."""
        self.box = self.open(names) if names else None
        self.names = tuple(names)


class Chat:
    """A conversation with one model. about: what a transcript says of the model."""

    def __init__(
        self,
        engine: Engine,
        voice: Voice,
        show: Show,
        params: SamplingParams,
        tools: Tools,
        *,
        conversation: Conversation | None = None,
        transcript: Transcript | None = None,
        about: dict[str, Any] | None = None,
        stop_repeats: int = 0,
    ) -> None:
        self.engine, self.voice, self.show = engine, voice, show
        self.params, self.tools = params, tools
        self.conversation = conversation or Conversation()
        self.transcript, self.about = transcript, about or {}
        self.stop_repeats = stop_repeats
        self.completions: dict[int, Completion] = {}  # by turn, of this session: for /probs
        self.prefix = Prefix()  # of this conversation, what the engine need not compute again
        self.draft = ""  # what the next line begins with
        self.dropped = 0  # exchanges left out of the last prompt
        self.left = False  # /quit was said
        self.saved_as: set[str] = set()  # files this conversation may write again

    def run(self, reader: Reader) -> None:
        """Talk until the user leaves. Whatever ends it, the conversation is kept."""
        from llmctl.chat.actions import do

        while not self.left:
            line = self._next_line(reader)
            if line is None:
                return
            meant = commands.parse(clean_text(line))
            try:
                if isinstance(meant, commands.Say):
                    self.ask(meant.text, reader)
                elif isinstance(meant, commands.Do):
                    do(self, reader, meant.name, meant.argument)
                elif isinstance(meant, commands.Unknown):
                    self.show.error(
                        f"no command {meant.word}; {meant.hint} (// sends a message that begins "
                        "with /)"
                    )
            except KeyboardInterrupt:
                self.show.note("stopped")
            except Exception as error:
                self._survive(error)

    def _survive(self, error: Exception) -> None:
        """Say what went wrong and go on; what cannot be mended here goes up."""
        known = from_exception(error)
        if known is None or isinstance(known, Diverged) or known.code in (75, 130):
            raise error
        if isinstance(error, BrokenPipeError):
            raise error
        self.show.error(str(known))

    def _next_line(self, reader: Reader) -> str | None:
        """The next line; None when the user leaves."""
        hinted = False
        while True:
            try:
                draft, self.draft = self.draft, ""
                line = reader.read(draft)
                if reader.trouble:
                    self.show.error(reader.trouble)
                    reader.trouble = ""
                return line
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not reader.interactive:
                    raise
                if hinted and not reader.typed:
                    return None
                hinted = not reader.typed
                try:
                    if hinted:
                        self.show.note("Ctrl-C again, or Ctrl-D, leaves")
                except KeyboardInterrupt:  # the second one came while it was said
                    return None

    def ask(self, text: str, reader: Reader | None = None) -> Answer:
        """Say something and show the answer. Without an answer the message is taken back."""
        conversation = self.conversation
        before = conversation.at
        conversation.say(text.strip("\n"))
        try:
            answer = self.reply()
        finally:
            said = conversation.last_answer() is not None
            if not said:
                self._take_back(before, text, reader)
        if not said:
            why = "stopped before its first word" if answer.stopped else "no answer to keep"
            self.show.note(f"[{why}; your message is taken back]")
        return answer

    def _take_back(self, before: int | None, text: str, reader: Reader | None) -> None:
        """Forget the message that was just said; it may stand in the line again."""
        self.conversation.turns.pop()
        self.conversation.at = before
        if reader is not None and reader.can_prefill:
            self.draft = text

    def reply(self, seed: int | None = None) -> Answer:
        """Answer the message we are at: by the session's seed, and the next one for each further
        answer to the same message. What was said is kept, whatever ends it."""
        user = self.conversation.at
        tries = len(self.conversation.children(user))
        answer = Answer(seed=(self.params.seed + tries) & MASK64 if seed is None else seed)
        fitted = self._fit()
        with ctrl_c_once():
            try:
                self._stream(fitted.ids, answer)
            except KeyboardInterrupt:
                answer.stopped = True
            finally:
                turn = self._keep(answer)
                self.show.end_answer()
        self._status(answer)
        if turn is not None:
            self.save()
        return answer

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt of messages, as the model is given it: told of the tools in use."""
        box = self.tools.box
        return self.voice.ids(messages, box.format if box else None)

    def _fit(self) -> Fit:
        context, said = self.engine.config.max_seq_len, self.conversation.messages()
        fitted = fit(said, self.prompt_ids, context, self.params.max_tokens)
        if fitted.dropped and fitted.dropped != self.dropped:
            self.show.note(
                f"[context full: the {fitted.dropped:,} oldest of {fitted.exchanges:,} exchanges "
                "are not sent any more; they stay in the transcript]"
            )
        self.dropped = fitted.dropped
        return fitted

    def _stream(self, ids: list[int], answer: Answer) -> None:
        """Draw the answer and show it as it comes."""
        params = dataclasses.replace(
            self.params,
            seed=answer.seed,
            stop=(*self.params.stop, *self.voice.stop),
            stop_ids=self.voice.stop_ids,
            probs=PROBS,
            logprobs=True,
        )
        stats = self.engine.stats
        tokens, spent = stats.decode_tokens, stats.decode_seconds
        started = time.perf_counter()
        text = ""
        events = self.engine.stream([ids], params, self.tools.box, self.prefix)
        with contextlib.closing(events):
            try:
                for event in events:
                    if answer.completion is None:
                        answer.completion = event.completion
                        answer.first = time.perf_counter() - started
                        answer.reused = self.prefix.reused
                    self.show.answer(event.text)
                    if event.asked is not None:
                        self.show.asked(event.asked)
                    if event.call is not None:
                        self.show.result(event.call)
                    text += event.text
                    if event.text and repeats(text, self.stop_repeats):
                        answer.repeated = True
                        return
            finally:
                drawn = stats.decode_tokens - tokens
                answer.rate = drawn / max(stats.decode_seconds - spent, 1e-9)

    def _keep(self, answer: Answer) -> Turn | None:
        """Put what was said into the conversation; None when nothing was."""
        completion = answer.completion
        if completion is None:
            return None
        messages = self.voice.messages(completion, unanswered(answer, completion))
        if not messages:
            return None
        facts = {
            "seed": answer.seed,
            "temperature": self.params.temperature,
            "tokens": sum(completion.sampled),
            "finish_reason": ending(answer, completion),
        }
        turn = self.conversation.answer(messages, facts)
        self.completions[turn.number] = completion
        return turn

    def _status(self, answer: Answer) -> None:
        """One line under the answer: tokens, speed, context."""
        completion = answer.completion
        if completion is None:
            return
        self._say_unused_call(completion)
        self.show.note(status_line(answer, completion, self.engine.config.max_seq_len))

    def _say_unused_call(self, completion: Completion) -> None:
        """An answer that ended with a call to a tool that is off: say so."""
        last = self.conversation.last_answer()
        if last is None or completion.finish_reason != "stop":
            return
        if last.messages[-1]["role"] == "tool":
            name = last.messages[-1]["name"]
            self.show.note(f"[it called {name}, which is not in use: /tools {name}]")

    def save(self) -> None:
        """Write the transcript; a disk that is full is said once, and the talk goes on."""
        if self.transcript is None or not self.conversation.turns:
            return
        try:
            self.transcript.write(self.row())
        except (OSError, LlmctlError) as error:
            known = from_exception(error) or error
            self.show.error(f"the transcript is not kept any more: {known}")
            self.transcript = None

    def row(self) -> dict[str, Any]:
        """The conversation as it is written to a file."""
        settings = {
            key: getattr(self.params, key)
            for key in ("temperature", "top_k", "top_p", "max_tokens", "seed")
        }
        return self.conversation.to_row(model=self.about, settings=settings)
