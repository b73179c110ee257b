"""Chat formats of others: their Jinja template, rendered away from us, and read back by its marks.

Ids equal those of transformers' `apply_chat_template` on texts that spell no control token; on
texts that do, no control id comes from them. Trained on is what stands between {% generation %}
and {% endgeneration %}, or else what a template adds for an assistant's turn to the header of an
answer; up to the token that ends the turn in both cases, or ending would never be learned.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from llmctl.core.errors import BadInput, Mismatch
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.call_text import as_text, is_call, told_of
from llmctl.tokenizer.chat import ChatFormat, Rendered
from llmctl.tokenizer.chat_messages import (
    SCHEMAS,
    CallError,
    Message,
    ToolCall,
    calls_of,
    parse_call,
)
from llmctl.tokenizer.pieces import Splitter
from llmctl.tokenizer.template import Harmless, Painted, TemplateProcess, free_marks

NAMES = (("<|im_start|>", "chatml"), ("<|start_header_id|>", "llama3"), ("[INST]", "mistral"))
TOKEN_KEYS = ("bos_token", "eos_token", "pad_token", "unk_token")
PROBE = ToolCall("probe_name", {"probe_key": "probe_value"})
_PROBED = re.compile(
    r'\{\s*"name":\s*"probe_name",\s*"(\w+)":\s*\{\s*"probe_key":\s*"probe_value"\s*\}\s*\}'
)
THOUGHT = "</think>"


class ForeignFormat(ChatFormat):
    """The chat template that a tokenizer brings."""

    own = False
    _tools: list[dict[str, Any]] = []  # that the model is told of

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Mismatch (78), Refused (77) for a template that cannot be used."""
        self.tokenizer = tokenizer
        self._template = chosen(tokenizer)
        self.name = next((name for mark, name in NAMES if mark in self._template), "template")
        tokens = {k: t for k in TOKEN_KEYS if (t := _token(tokenizer, k)) is not None}
        self._process = TemplateProcess(self._template, tokens)
        self._splitter = Splitter(tokenizer)
        self._harmless = Harmless(self._splitter.specials)
        self._bos = tokenizer.id_of(tokens.get("bos_token", ""))
        self._eos = tokenizer.id_of(tokens.get("eos_token", ""))

    def with_tools(self, names: Sequence[str]) -> ForeignFormat:
        """The format with these tools told to the model: by the template, or else by a message.

        A template that has no place for them gets them in the system message.
        """
        made = copy.copy(self)
        made._tools = [SCHEMAS[name] for name in names]
        return made

    @property
    def template(self) -> str:
        """The template's source."""
        return self._template

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an assistant's turn: what the template writes there, and the eos token."""
        ids = {self.end_id, self._eos, self.tokenizer.id_of("<|eom_id|>")}
        for name in ("<|endoftext|>", "<|end_of_text|>"):
            ids.add(self.tokenizer.id_of(name))
        return frozenset(i for i in ids if i is not None)

    @cached_property
    def end_id(self) -> int:
        """The control token that the template writes after an answer. Mismatch (78) without."""
        told = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "fine"}]
        painted = self._painted([told], False, spans=False)[0]
        if isinstance(painted, str):
            raise Mismatch(f"the chat template cannot hold a question and an answer: {painted}")
        _, found, after = painted[0].text.rpartition("fine")
        for piece in self._splitter.split(after, painted[1]) if found else []:
            if piece.id is not None:
                return piece.id
        raise Mismatch("the chat template ends no answer with a control token; no way to stop")

    def try_many(
        self, conversations: Sequence[Sequence[Message]], *, generation: bool = False
    ) -> list[Rendered | str]:
        """As for our format. What the template refuses comes back in its own words."""
        tried = [self._try_written(messages) for messages in conversations]
        written = [messages for messages in tried if not isinstance(messages, str)]
        painted = self._painted(written, generation, spans=True)
        turns = [sum(m["role"] == "assistant" for m in messages) for messages in written]
        done = iter(self._splitter.rendered(painted, turns, self.stop_ids, self._bos))
        return [found if isinstance(found, str) else next(done) for found in tried]

    def _painted(
        self, conversations: Sequence[Sequence[Message]], generation: bool, *, spans: bool
    ) -> list[tuple[Painted, str] | str]:
        """Each conversation's rendering with its breaker, or why there is none."""
        jobs, breakers = [], []
        for messages in conversations:
            marks = free_marks(messages, self._template)
            safe = [self._safe(message, marks[3]) for message in messages]
            tools = self._tools if self._tools and self._tells_tools else None
            job = {"messages": safe, "generation": generation, "spans": spans, "tools": tools}
            jobs.append({**job, "chars": marks[:3]})
            breakers.append(marks[3])
        rendered = self._process.render(jobs)
        return [p if isinstance(p, str) else (p, b) for p, b in zip(rendered, breakers)]

    def _safe(self, message: Message, breaker: str) -> Message:
        role = message.get("role")
        if role not in ("system", "user", "assistant", "tool"):
            raise BadInput(f"role {str(role)[:40]!r} has no place in a chat")
        safe = {k: self._harmless.value(v, breaker) for k, v in message.items() if k != "role"}
        return {"role": role, **safe}

    def _try_written(self, messages: Sequence[Message]) -> list[Message] | str:
        try:
            return self._written(messages)
        except CallError as error:
            return str(error)

    def _written(self, messages: Sequence[Message]) -> list[Message]:
        """Messages as the template wants them: calls it has no place for become text."""
        done: list[Message] = []
        if self._tools and not self._tells_tools:
            messages = told_of(self._tools, messages)
        for message in messages:
            calls = calls_of(message) if message.get("role") == "assistant" else []
            content = message.get("content")
            message = {**message, "content": "" if content is None else content}
            if calls and self._syntax is None:
                texts = [message["content"], *(as_text(call) for call in calls)]
                message = {"role": "assistant", "content": "\n".join(t for t in texts if t)}
            elif calls:
                message["tool_calls"] = [self._call_entry(call) for call in calls]
            elif message.get("role") == "tool" and not self._takes_results:
                text = f"<tool_response>\n{message['content']}\n</tool_response>"
                message = {"role": "user", "content": text}
            done.append(message)
        return done

    def _call_entry(self, call: ToolCall) -> dict[str, Any]:
        """A call as the template takes it: arguments as an object, or as JSON in a text.

        OpenAI writes "" for none. CallError for other text that is no JSON object.
        """
        arguments = call.arguments
        if isinstance(arguments, str):
            inner = arguments.strip() or "{}"
            arguments = parse_call(f'{{"name": "x", "arguments": {inner}}}').arguments
        assert self._syntax is not None
        if self._syntax[3]:
            arguments = json.dumps(arguments, ensure_ascii=False)
        return ToolCall(call.name, arguments).as_message()

    @cached_property
    def _syntax(self) -> tuple[str, str, str, bool] | None:
        """(before, after, key of the arguments, arguments are text) of a call in the template.

        None when it writes no calls, or in a way we cannot read back: then calls are text in the
        way that Hermes, Qwen and SmolLM2 write them.
        """
        for as_json in (False, True):
            call = PROBE.as_message()
            if as_json:
                call["function"]["arguments"] = json.dumps(PROBE.arguments)
            turn: Message = {"role": "assistant", "content": "", "tool_calls": [call]}
            told: list[Message] = [{"role": "user", "content": "Hi"}, turn]
            painted = self._painted([told], False, spans=True)[0]
            if isinstance(painted, str) or not painted[0].spans:
                continue
            start = painted[0].spans[0][0]
            text = painted[0].text[start:].replace(painted[1], "")
            if found := _PROBED.search(text):
                end = self.tokenizer.decode([self.end_id])
                after = text[found.end() :].partition(end)[0].strip()
                before = text[: found.start()].rpartition(THOUGHT)[2].strip()
                return before, after, found[1], as_json
        return None

    @cached_property
    def _tells_tools(self) -> bool:
        """Whether the template tells the model of tools it is given."""
        job = {"messages": [{"role": "user", "content": "Hi"}], "generation": True, "spans": False}
        schema = SCHEMAS["search"]
        painted = self._process.render(
            [{**job, "tools": [schema], "chars": free_marks([], "")[:3]}]
        )
        return isinstance(painted[0], Painted) and '"query"' in painted[0].text

    @cached_property
    def _takes_results(self) -> bool:
        """Whether the template writes tool messages."""
        told: list[Message] = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hm", "tool_calls": [PROBE.as_message()]},
            {"role": "tool", "name": PROBE.name, "content": "probe_result"},
        ]
        if self._syntax is None:
            told[1].pop("tool_calls")
        else:
            told[1]["tool_calls"] = [self._call_entry(PROBE)]
        painted = self._painted([told], True, spans=False)[0]
        return not isinstance(painted, str) and "probe_result" in painted[0].text

    def turn(self, ids: Sequence[int]) -> Message:
        """The message that a turn's ids stand for; reasoning goes into `reasoning_content`."""
        text, thought = self._said(ids)
        content, call = self._split_call(text)
        message: Message = {"role": "assistant", "content": content}
        if thought:
            message["reasoning_content"] = thought
        if call is not None:
            message["tool_calls"] = [call.as_message()]
        return message

    def call_of(self, ids: Sequence[int]) -> ToolCall | None:
        """The call of a turn. CallError when there are several, or one that cannot be read."""
        return self._split_call(self._said(ids)[0])[1]

    def _said(self, ids: Sequence[int]) -> tuple[str, str]:
        """(text, reasoning before it) of a turn's ids."""
        text = self.tokenizer.decode(self._without_end(ids))
        if THOUGHT not in self._template or THOUGHT not in text:
            return text, ""
        thought, _, text = text.rpartition(THOUGHT)
        return text.lstrip("\n"), thought.removeprefix("<think>").strip()

    def _split_call(self, text: str) -> tuple[str, ToolCall | None]:
        """(content, call) of a turn's text."""
        before, after, key, _ = self._syntax or ("<tool_call>", "</tool_call>", "arguments", False)
        if not before:  # the turn as a whole is the call, as Llama has it
            return ("", parse_call(text, key)) if is_call(text, key) else (text, None)
        content, found, rest = text.partition(before)
        if not found:
            return text, None
        inner, ended, tail = rest.rpartition(after) if after else (rest, "yes", "")
        if not ended or tail.strip() or before in inner:
            raise CallError(f"a turn has one call, between {before} and {after}, and ends with it")
        return content.rstrip(), parse_call(inner.strip(), key)

    def result_ids(self, name: str, text: str) -> list[int]:
        """What the template writes between a call's end token and the next answer."""
        call: Message = {"role": "assistant", "content": "", "tool_calls": [PROBE.as_message()]}
        told: list[Message] = [{"role": "user", "content": "Hi"}, call]
        result: Message = {"role": "tool", "name": name, "content": text}
        whole = self._written([*told, result])
        painted = self._painted([whole], True, spans=False)[0]
        if isinstance(painted, str):
            raise Mismatch(f"the chat template has no place for a tool's result: {painted}")
        pieces = self._splitter.split(painted[0].text, painted[1])
        after = self._after_call(painted[0].text)
        return self._splitter.encoded([p for p in pieces if p.start >= after])

    def _after_call(self, text: str) -> int:
        """Where the first turn of the assistant ends in a rendering, after its end token."""
        end = self.tokenizer.decode([self.end_id])
        at = text.find(end, text.find(PROBE.name))
        if at < 0:
            raise Mismatch("the chat template does not end a tool call with its end token")
        return at + len(end)


def _token(tokenizer: Tokenizer, key: str) -> str | None:
    """A named token of tokenizer_config.json, as text."""
    named = tokenizer.config.get(key)
    named = named.get("content") if isinstance(named, dict) else named
    return named if isinstance(named, str) else None


def chosen(tokenizer: Tokenizer) -> str:
    """The template to use: the one there is, or of several the one named default."""
    given = tokenizer.config.get("chat_template")
    if isinstance(given, str):
        return given
    named = {t.get("name"): t.get("template") for t in given or [] if isinstance(t, dict)}
    template = named.get("default") or next(iter(named.values()), None)
    if not isinstance(template, str):
        raise Mismatch(f"{tokenizer.source}: chat_template is no text and no list of named ones")
    return template
