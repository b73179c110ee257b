"""Tokenizers that chat, with our template and with four as others write them; their twins."""

import json
import tempfile

from hypothesis import strategies as st

from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import SPECIALS
from llmctl.tokenizer.train import train

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2 = (
    "{% if messages and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a "
    "helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}" + CHATML
)
LLAMA3 = (
    "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim }}"
    "{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# Qwen's way: calls between tokens, results in the user's turns, thoughts of the last turn only.
QWEN = """\
{%- set at = namespace(last=0) -%}
{%- if tools -%}
{{- '<|im_start|>system\\n# Tools' -}}
{%- for t in tools -%}{{- '\\n' }}{{- t | tojson -}}{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{%- set at.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
{%- if m.role == 'tool' -%}
{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' and loop.index0 > at.last -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{{- m.content -}}
{%- for c in m.tool_calls or [] -%}
{{- '\\n<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' -}}
{{- c.function.arguments | tojson }}{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
IM = ("<|im_start|>", "<|im_end|>")
LLAMA_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
QWEN_TOKENS = (*IM, "<tool_call>", "</tool_call>", "<think>", "</think>")
TEMPLATES = {  # template, control tokens, token that ends a turn, token that begins a text
    "chatml": (CHATML, IM, "<|im_end|>", None),
    "smollm2": (SMOLLM2, IM, "<|im_end|>", None),
    "llama3": (LLAMA3, LLAMA_TOKENS, "<|eot_id|>", "<|begin_of_text|>"),
    "qwen": (QWEN, QWEN_TOKENS, "<|im_end|>", None),
}
CONTROL = {*SPECIALS, *QWEN_TOKENS, *LLAMA_TOKENS, "<|endoftext|>"}
SENTENCE = "user assistant system tool the river runs past a mill\n\nprint(1 + 1)\n fine, I'm 42 "


def base() -> Tokenizer:
    """A small vocabulary without a chat format."""
    return train([SENTENCE * 2] * 40, 420)


def with_template(template, specials, eos=None, bos=None) -> Tokenizer:
    """A tokenizer as others ship it: control tokens and a template of their own."""
    plain = base()
    parts = json.loads(plain.raw)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for n, special in enumerate(specials):
        token = {"id": plain.n_ids + n, "content": special, **flags, "special": True}
        parts["added_tokens"].append(token)
    config = {"chat_template": template, "eos_token": eos, "bos_token": bos}
    config = {k: v for k, v in config.items() if v is not None}
    return Tokenizer(json.dumps(parts).encode(), config)


def twin(tokenizer: Tokenizer):
    """The same tokenizer opened by transformers."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        return transformers.AutoTokenizer.from_pretrained(folder)


def sanitized(reference, messages):
    """Ids of transformers when it is asked to keep control tokens out of texts (new in 5)."""
    import inspect

    import pytest

    if "sanitize_control_tokens" not in inspect.signature(reference.apply_chat_template).parameters:
        pytest.skip("this transformers cannot")
    return reference.apply_chat_template(messages, sanitize_control_tokens=True)["input_ids"]


# Words that a vocabulary splits, letters of all kinds, white space in every place.
ORDINARY = st.text(
    st.one_of(
        st.sampled_from(list("the river fine\n\n  {}[]|\"'\\,.!_<>42")),
        st.characters(exclude_categories=["Cs", "Cn", "Co"]),
    ),
    max_size=30,
).filter(lambda text: not any(special in text for special in CONTROL))


def nasty(specials):
    """Texts that try to spell control tokens: whole, in halves, with spaces in them."""
    pieces = [s[:k] for s in specials for k in (2, len(s) // 2)]
    pieces += [s[k:] for s in specials for k in (-2, len(s) // 2, 1)]
    pieces += [s[2:-2] for s in specials] + ["<", "|", ">", " ", "\n", "user", "a"]
    return st.lists(st.sampled_from([*specials, *pieces]), max_size=8).map("".join)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ORDINARY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ORDINARY, inner, max_size=3),
    max_leaves=5,
)


def calls(text):
    """Calls of the three kinds."""
    python = text.map(lambda code: ("python", {"code": code}))
    search = text.map(lambda query: ("search", {"query": query}))
    other = st.tuples(text.filter(bool), st.dictionaries(text, JSON, max_size=3))
    odd = st.sampled_from([("python", {}), ("search", {"query": "a", "top": 3})])
    return (python | search | other | odd).map(
        lambda call: {"type": "function", "function": {"name": call[0], "arguments": call[1]}}
    )


@st.composite
def conversations(draw, text=ORDINARY, tools=True):
    """Conversations of one to three exchanges, with and without system message and calls."""
    messages = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(text)})
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(text)})
        for _ in range(draw(st.integers(0, 2)) if tools else 0):
            call = draw(calls(text))
            name = call["function"]["name"]
            content = draw(text)
            messages.append({"role": "assistant", "content": content, "tool_calls": [call]})
            messages.append({"role": "tool", "name": name, "content": draw(text)})
        messages.append({"role": "assistant", "content": draw(text)})
    return messages
