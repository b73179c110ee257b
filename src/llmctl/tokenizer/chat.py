"""Conversations as ids: our chat format, and the door to the formats of others.

    <|im_start|>ROLE<|im_sep|>CONTENT<|im_end|>           ROLE: system, user, assistant, tool

An assistant's turn may end with one call: CONTENT<|python|>CODE<|im_end|>, CONTENT<|search|>QUERY
<|im_end|>, or for any other function <|tool|>{"name": …, "arguments": {…}}<|im_end|>; the result
follows as a tool message. A model that may use tools reads their names in its system message, as
its last line or all of it: "Tools: python, search." No token stands before the first message or
between two. Roles and control tokens are put here by code, contents are encoded as text, so no
text can spell a token.

Messages have the shape of `datasets`, TRL and transformers. TEMPLATE is the same format in Jinja.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from llmctl.core.errors import BadInput
from llmctl.tokenizer.bpe import DOCUMENT_TOKENS, Tokenizer
from llmctl.tokenizer.chat_messages import (
    ROLES,
    CallError,
    Message,
    ToolCall,
    calls_of,
    check_messages,
    parse_call,
    tools_line,
)

__all__ = ["CallError", "ChatFormat", "Message", "Rendered", "ToolCall", "calls_of"]
__all__ += ["chat_format", "check_messages", "with_chat"]

START, SEP, END = "<|im_start|>", "<|im_sep|>", "<|im_end|>"
PYTHON, SEARCH, TOOL = "<|python|>", "<|search|>", "<|tool|>"
SPECIALS = (START, SEP, END, PYTHON, SEARCH, TOOL)
PLAIN_CALLS = {"python": (PYTHON, "code"), "search": (SEARCH, "query")}  # name: token, argument

TEMPLATE = """\
{%- macro call(f) -%}
{%- set a = {} if f.arguments is undefined else f.arguments -%}
{%- if f.name == 'python' and a is mapping and a.code is string and a | length == 1 -%}
{{- '<|python|>' + a.code -}}
{%- elif f.name == 'search' and a is mapping and a.query is string and a | length == 1 -%}
{{- '<|search|>' + a.query -}}
{%- else -%}
{{- '<|tool|>{"name": ' + (f.name | tojson) + ', "arguments": ' -}}
{{- (a if a is string else a | tojson) + '}' -}}
{%- endif -%}
{%- endmacro -%}
{%- if tools -%}
{%- set line = 'Tools: ' + (tools | map(attribute='function.name') | join(', ')) + '.' -%}
{%- if messages[0].role != 'system' -%}
{{- '<|im_start|>system<|im_sep|>' + line + '<|im_end|>' -}}
{%- endif -%}
{%- endif -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '<|im_sep|>' -}}
{%- if m.role == 'assistant' -%}
{%- generation -%}
{{- m.content if m.content is string else '' -}}
{%- if m.tool_calls -%}{{- call(m.tool_calls[0].function or m.tool_calls[0]) -}}{%- endif -%}
{{- '<|im_end|>' -}}
{%- endgeneration -%}
{%- elif tools and loop.first and m.role == 'system' -%}
{{- m.content + ('\\n' if m.content else '') + line + '<|im_end|>' -}}
{%- else -%}
{{- m.content + '<|im_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant<|im_sep|>' -}}{%- endif -%}
"""


@dataclass(frozen=True)
class Rendered:
    """A conversation as ids, and which of them are trained on. Same length."""

    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)

    def add(self, ids: Sequence[int], trained: bool) -> None:
        """Append ids."""
        self.ids.extend(ids)
        self.mask.extend([trained] * len(ids))


class ChatFormat:
    """Our format on a tokenizer that has its control tokens. Subclasses speak other formats."""

    own, name = True, "llmctl"
    tools: tuple[str, ...] = ()  # that the model is told of

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._id = {s: i for s in SPECIALS if (i := tokenizer.id_of(s)) is not None}
        assert len(self._id) == len(SPECIALS), "chat_format() looks before"

    @property
    def template(self) -> str:
        """The format in Jinja."""
        return TEMPLATE

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of the template."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an assistant's turn."""
        return frozenset({self._id[END], self.tokenizer.eot_id})

    @cached_property
    def end_id(self) -> int:
        """The id that is written at the end of an assistant's turn."""
        return self._id[END]

    @cached_property
    def _headers(self) -> dict[str, list[int]]:
        """<|im_start|>ROLE<|im_sep|> of each role."""
        encode = self.tokenizer.encode
        return {r: [self._id[START], *encode(r), self._id[SEP]] for r in ROLES}

    def with_tools(self, names: Sequence[str]) -> ChatFormat:
        """The format for a model that may use these tools: their names join the system message."""
        made = copy.copy(self)
        made.tools = tuple(names)
        return made

    def render(self, messages: Sequence[Message], *, generation: bool = False) -> Rendered:
        """Ids and mask of a conversation; generation: ends with the header of an answer.

        BadInput (65) for a role or a number of calls the format has no place for.
        """
        return self.render_many([messages], generation=generation)[0]

    def render_many(
        self, conversations: Sequence[Sequence[Message]], *, generation: bool = False
    ) -> list[Rendered]:
        """`render` of each, faster than one by one. BadInput (65) for the first that fails."""
        done = []
        for rendered in self.try_many(conversations, generation=generation):
            if isinstance(rendered, str):
                raise BadInput(f"a conversation the chat format cannot hold: {rendered}")
            done.append(rendered)
        return done

    def try_many(
        self, conversations: Sequence[Sequence[Message]], *, generation: bool = False
    ) -> list[Rendered | str]:
        """`render` of each, or why the format has no place for it; one call of the encoder."""
        plans: list[list[tuple[str | list[int], bool]] | str] = []
        for messages in conversations:
            try:
                plans.append(list(self._plan(self._told(messages))))
            except BadInput as error:
                plans.append(str(error))
        texts = [p for plan in plans if isinstance(plan, list) for p, _ in plan]
        encoded = iter(self.tokenizer.encode_batch([t for t in texts if isinstance(t, str)]))
        done: list[Rendered | str] = []
        for plan in plans:
            if isinstance(plan, str):
                done.append(plan)
                continue
            rendered = Rendered()
            for piece, trained in plan:
                rendered.add(next(encoded) if isinstance(piece, str) else piece, trained)
            if generation:
                rendered.add(self._headers["assistant"], False)
            done.append(rendered)
        return done

    def _told(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages with the line that names the tools."""
        if not self.tools:
            return messages
        line = tools_line(self.tools)
        if not messages or messages[0].get("role") != "system":
            return [{"role": "system", "content": line}, *messages]
        first = _content(messages[0])
        told = {**messages[0], "content": f"{first}\n{line}" if first else line}
        return [told, *messages[1:]]

    def _plan(self, messages: Sequence[Message]) -> Iterator[tuple[str | list[int], bool]]:
        """Texts and control ids in order, each with whether it is trained on."""
        for message in messages:
            role = message.get("role")
            if role not in ROLES:
                raise BadInput(f"role {role!r} has no place in a chat; use {', '.join(ROLES)}")
            trained = role == "assistant"
            yield self._headers[role], False
            yield _content(message), trained
            calls = calls_of(message) if trained else []
            if len(calls) > 1:
                raise BadInput(f"{len(calls)} calls in one turn; the format has place for one")
            for call in calls:
                special, text = _written(call)
                yield [self._id[special]], trained
                yield text, trained
            yield [self._id[END]], trained

    def turn(self, ids: Sequence[int]) -> Message:
        """The message that ids of one sampled assistant turn stand for, its end id or not.

        CallError for a call that cannot be run. A control token that has no place is left out.
        """
        ids = self._without_end(ids)
        at = self._call_at(ids)
        content = self.tokenizer.decode(ids if at is None else ids[:at], skip_special=True)
        message: Message = {"role": "assistant", "content": content}
        if at is not None:
            message["tool_calls"] = [self._parsed(ids[at], ids[at + 1 :]).as_message()]
        return message

    def call_of(self, ids: Sequence[int]) -> ToolCall | None:
        """The call that a turn's ids end with; None without one. CallError as in `turn`."""
        ids = self._without_end(ids)
        at = self._call_at(ids)
        return None if at is None else self._parsed(ids[at], ids[at + 1 :])

    def result_ids(self, name: str, text: str) -> list[int]:
        """What follows a call whose end id was sampled: its result, and an answer's header."""
        content = self.tokenizer.encode(text)
        headers = self._headers
        return [*headers["tool"], *content, self._id[END], *headers["assistant"]]

    def _without_end(self, ids: Sequence[int]) -> list[int]:
        """A turn's ids up to the first that ends it."""
        ids = list(ids)
        return ids[: next((n for n, i in enumerate(ids) if i in self.stop_ids), len(ids))]

    def _call_at(self, ids: Sequence[int]) -> int | None:
        tokens = {self._id[PYTHON], self._id[SEARCH], self._id[TOOL]}
        return next((n for n, i in enumerate(ids) if i in tokens), None)

    def _parsed(self, token: int, ids: list[int]) -> ToolCall:
        """The call of a call token and the ids after it."""
        if not self.tokenizer.special_ids.isdisjoint(ids):
            raise CallError("a control token inside a tool call")
        text = self.tokenizer.decode(ids)
        if not text.strip():
            raise CallError("a tool call without content")
        for name, (special, argument) in PLAIN_CALLS.items():
            if token == self._id[special]:
                return ToolCall(name, {argument: text})
        return parse_call(text)


def _content(message: Message) -> str:
    """A message's text; a call may come without."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and message.get("role") == "assistant":
        return ""
    raise BadInput(f"content of a {message.get('role')} message is no text")


def _written(call: ToolCall) -> tuple[str, str]:
    """(control token, text) that a call is written as."""
    arguments = call.arguments
    if call.name in PLAIN_CALLS and isinstance(arguments, dict):
        special, key = PLAIN_CALLS[call.name]
        if list(arguments) == [key] and isinstance(arguments[key], str):
            return special, arguments[key]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    name = json.dumps(call.name, ensure_ascii=False)
    return TOOL, f'{{"name": {name}, "arguments": {arguments}}}'


def chat_format(tokenizer: Tokenizer) -> ChatFormat | None:
    """The format a tokenizer brings: ours, its own template's, or None: a base model's.

    Mismatch (78) for a template that cannot be used.
    """
    template = tokenizer.config.get("chat_template")
    if not template:
        return None
    if template == TEMPLATE and all(tokenizer.id_of(s) is not None for s in SPECIALS):
        return ChatFormat(tokenizer)
    from llmctl.tokenizer.chat_foreign import ForeignFormat

    return ForeignFormat(tokenizer)


def with_chat(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with our format: missing control tokens take the next free ids.

    One that has a format is returned as it is.
    """
    if tokenizer.config.get("chat_template"):
        return tokenizer
    parts = json.loads(tokenizer.raw)
    added, vocab = list(parts.get("added_tokens") or []), parts["model"]["vocab"]
    free = tokenizer.n_ids
    for special in SPECIALS:
        if tokenizer.id_of(special) is not None:
            continue
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        i = vocab.get(special, free)
        free += i == free
        added.append({"id": i, "content": special, **flags, "special": True})
    parts["added_tokens"] = sorted(added, key=lambda t: t["id"])
    config = {**tokenizer.config, "chat_template": TEMPLATE}
    document = next((t for t in DOCUMENT_TOKENS if t in vocab or tokenizer.id_of(t)), None)
    if document is not None:  # padding is never what ends a turn, or ending is never learned
        config |= {"eos_token": END, "pad_token": document}
    raw = json.dumps(parts, ensure_ascii=False).encode()
    return Tokenizer(raw, config, tokenizer.source)
