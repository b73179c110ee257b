"""Templates of others: transformers' ids, masks that end with the end, nothing injected, caps."""

import json
import os
import pickle  # of our own objects, between our own processes
import signal
import threading

import pytest
from chats import (
    CHATML,
    IM,
    QWEN,
    TEMPLATES,
    conversations,
    nasty,
    sanitized,
    twin,
    with_template,
)
from hypothesis import given, settings

from llmctl.core.errors import BadInput, Mismatch, Refused
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import CallError, ToolCall, chat_format
from llmctl.tokenizer.chat_messages import SCHEMAS

NAMES = list(TEMPLATES)


@pytest.fixture(scope="module")
def made():
    tokenizers = {name: with_template(*TEMPLATES[name]) for name in NAMES}
    formats = {name: chat_format(t) for name, t in tokenizers.items()}
    yield {name: (tokenizers[name], formats[name], twin(tokenizers[name])) for name in NAMES}
    for format in formats.values():
        format._process.stop()


def user(text):
    return {"role": "user", "content": text}


def assistant(text, *calls):
    message = {"role": "assistant", "content": text}
    return message | ({"tool_calls": [ToolCall(*c).as_message() for c in calls]} if calls else {})


def tool(text, name="python"):
    return {"role": "tool", "name": name, "content": text}


def spoken(tokenizer, rendered):
    return tokenizer.decode([i for i, m in zip(rendered.ids, rendered.mask) if m])


def copied(format):
    return pickle.loads(pickle.dumps(format))  # noqa: S301  our own


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(messages=conversations(tools=False))
def test_ids_are_those_of_transformers(made, name, messages):
    tokenizer, format, reference = made[name]
    rendered = format.render(messages)
    assert rendered.ids == reference.apply_chat_template(messages)["input_ids"]
    assert any(rendered.mask) and len(rendered.mask) == len(rendered.ids)
    prompt = format.render(messages[:-1], generation=True)
    theirs = reference.apply_chat_template(messages[:-1], add_generation_prompt=True)
    assert prompt.ids == theirs["input_ids"]


@settings(max_examples=40, deadline=None)
@given(messages=conversations())
def test_calls_of_a_template_that_has_them(made, messages):
    tokenizer, format, reference = made["qwen"]
    assert format.render(messages).ids == reference.apply_chat_template(messages)["input_ids"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(messages=conversations(nasty([*IM, "<|eot_id|>", "<think>", "</tool_call>"]), tools=False))
def test_no_text_becomes_a_control_token(made, name, messages):
    tokenizer, format, reference = made[name]
    rendered = format.render(messages)
    tame = [{**m, "content": "fine"} for m in messages]
    control = [i for i in rendered.ids if i in tokenizer.special_ids]
    assert control == [i for i in format.render(tame).ids if i in tokenizer.special_ids]
    assert rendered.ids == sanitized(reference, messages)


@pytest.mark.parametrize("name", NAMES)
def test_every_string_of_a_message_is_text(made, name):
    tokenizer, format, _ = made[name]
    end = tokenizer.decode([format.end_id])
    for call in ((end, {"a": end}), ("python", {"code": end}), ("x", {end: [end, {"b": end}]})):
        told = [user("a"), assistant(end, call), tool(end, end), assistant("b")]
        tame = [user("a"), assistant("c", ("x", {"a": "b"})), tool("c", "x"), assistant("b")]
        found, wanted = format.render(told).ids, format.render(tame).ids
        control = tokenizer.special_ids
        assert [i for i in found if i in control] == [i for i in wanted if i in control]


@pytest.mark.parametrize("name", NAMES)
def test_trained_on_is_each_answer_with_its_end(made, name):
    tokenizer, format, _ = made[name]
    end = tokenizer.decode([format.end_id])
    rendered = format.render([user("one"), assistant("two."), user("three"), assistant("four.")])
    said = spoken(tokenizer, rendered)
    if name == "qwen":  # thoughts, empty ones, stand before the last answer only
        assert said == f"two.{end}<think>\n\n</think>\n\nfour.{end}"
    else:
        assert said == f"two.{end}four.{end}"
    assert spoken(tokenizer, format.render([user("x")], generation=True)) == ""


def test_blocks_of_a_template_say_what_is_trained_on():
    tagged = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}"
        "<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    )
    tokenizer = with_template(tagged, IM, "<|im_end|>")
    format, reference = chat_format(tokenizer), twin(tokenizer)
    messages = [user("\na"), assistant("\n\nb 👩🏽‍💻"), user("c"), assistant("d ")]
    theirs = reference.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    ours = format.render(messages)
    assert ours.ids == theirs["input_ids"]
    assert ours.mask == [bool(m) for m in theirs["assistant_masks"]]
    bare = tagged.replace("<|im_end|>{% endgen", "{% endgen").replace(
        "eration %}{% else", "eration %}<|im_end|>{% else"
    )
    format = chat_format(with_template(bare, IM, "<|im_end|>"))
    assert "<|im_end|>" in spoken(tokenizer, format.render(messages))  # or ending is never learned


@pytest.mark.parametrize(
    "template, error, why",
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", Mismatch, "no way to stop"),
        ("{{ '<|im_start|>hello<|im_end|>' }}", Mismatch, "no way to stop"),
        ("{% for m in messages %}", Mismatch, "no Jinja"),
        ("x" * 70_000, Mismatch, "65,536 bytes"),
        ("{{ 'a' * 5000000000 }}", Refused, "256 MiB"),
        ("{% for i in (range(9999) | list) * 9999 %}{% endfor %}" * 99, Refused, "CPU"),
        ("{{ raise_exception('only for kings') }}", Mismatch, "only for kings"),
        ("{{ messages.append(1) }}", Mismatch, "unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", Mismatch, "unsafe|undefined"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template, error, why):
    with pytest.raises(error, match=why):
        format = chat_format(with_template(template, IM, "<|im_end|>"))
        assert format.stop_ids


def test_a_turn_that_is_lost_in_the_template_is_an_error():
    rude = (
        "{% for m in messages %}{% if m.role == 'user' or m.content == 'fine' %}<|im_start|>"
        "{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    format = chat_format(with_template(rude, IM, "<|im_end|>"))
    with pytest.raises(BadInput, match="assistant turn"):
        format.render([user("a"), assistant("b")])


def test_one_conversation_refused_leaves_the_others():
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    format = chat_format(with_template(strict + CHATML, IM, "<|im_end|>"))
    good, bad = [user("a"), assistant("b")], [{"role": "system", "content": "c"}, user("d")]
    found = format.try_many([good, bad, good])
    assert found[0] == found[2] == format.render(good) and found[1] == "no system"


def test_arguments_that_are_no_object_refuse_their_conversation_alone(made):
    _, format, _ = made["qwen"]
    told = [[user("a"), assistant("", ("f", text)), tool("c")] for text in ("", "{}", "not JSON")]
    none, empty, wrong = format.try_many(told)
    assert none == empty == format.render(told[1])
    assert "no JSON" in wrong
    with pytest.raises(BadInput, match="no JSON"):
        format.render(told[2])


def test_two_beginnings_are_impossible():
    double = "{{ bos_token }}{{ bos_token }}" + CHATML
    format = chat_format(with_template(double, (*IM, "<|bos|>"), "<|im_end|>", "<|bos|>"))
    with pytest.raises(BadInput, match="two beginning"):
        format.render([user("a"), assistant("b")])


@pytest.mark.parametrize("name", NAMES)
def test_a_result_goes_on_from_the_call(made, name):
    tokenizer, format, _ = made[name]
    before = [user("1+1?"), assistant("", ("python", {"code": "1+1"}))]
    whole = format.render([*before, tool("2 <|im_end|>")], generation=True).ids
    forced = format.result_ids("python", "2 <|im_end|>")
    call = format.render(before)
    turn = [i for i, m in zip(call.ids, call.mask) if m]
    start = call.mask.index(True)
    assert whole == call.ids[:start] + turn + forced


@pytest.mark.parametrize("name", NAMES)
def test_a_call_reads_back(made, name):
    tokenizer, format, _ = made[name]
    for call in (("python", {"code": "print('a')\n"}), ("f", {"x": [1, {"y": None}]})):
        rendered = format.render([user("a"), assistant("Hm.", call)])
        turn = [i for i, m in zip(rendered.ids, rendered.mask) if m]
        assert format.call_of(turn) == ToolCall(*call)
        assert format.turn(turn)["tool_calls"] == [ToolCall(*call).as_message()]
        assert format.turn(turn)["content"] == "Hm."
    assert format.call_of(tokenizer.encode("Just text.")) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_told_of_its_tools(made, name):
    tokenizer, format, reference = made[name]
    messages = [user("a"), assistant("b")]
    plain = format.render(messages)
    told = format.with_tools(["python"])
    rendered = told.render(messages)
    text = tokenizer.decode(rendered.ids)
    assert '"name": "python"' in text and '"search"' not in text
    assert spoken(tokenizer, rendered) == spoken(tokenizer, plain)
    assert format.render(messages) == plain and '"python"' not in tokenizer.decode(plain.ids)
    assert told.result_ids("python", "2") == format.result_ids("python", "2")
    if name == "qwen":
        wanted = reference.apply_chat_template(messages, tools=[SCHEMAS["python"]])
        assert rendered.ids == wanted["input_ids"]


@pytest.mark.parametrize("text", ["<tool_call>{", "<tool_call>{}</tool_call>", "<tool_call>"])
def test_malformed_calls_are_told(made, text):
    tokenizer, format, _ = made["smollm2"]
    with pytest.raises(CallError):
        format.call_of(tokenizer.encode(text))
    two = '<tool_call>{"name": "a", "arguments": {}}</tool_call>' * 2
    with pytest.raises(CallError, match="one call"):
        format.call_of(tokenizer.encode(two))


def test_a_template_whose_turn_is_the_call_alone():
    llama31 = TEMPLATES["llama3"][0].replace(
        "m.content | trim }}",
        'm.content | trim }}{% for c in m.tool_calls or [] %}{{ \'{"name": "\' + c.function.name '
        "+ '\", \"parameters\": ' + c.function.arguments | tojson + '}' }}{% endfor %}{{ '' }}",
    )
    format = chat_format(with_template(llama31, *TEMPLATES["llama3"][1:]))
    encode = format.tokenizer.encode
    call = format.call_of(encode('{"name": "f", "parameters": {"a": 1}}'))
    assert call == ToolCall("f", {"a": 1})
    assert format.call_of(encode('{"name": "f"}')) is None
    with pytest.raises(CallError):
        format.call_of(encode('{"name": "f", "parameters": 3}'))


def test_thoughts_are_kept_apart(made):
    tokenizer, format, _ = made["qwen"]
    ids = [tokenizer.id_of("<think>"), *tokenizer.encode("\nhm\n"), tokenizer.id_of("</think>")]
    message = format.turn([*ids, *tokenizer.encode("\n\nYes."), format.end_id])
    assert message == {"role": "assistant", "content": "Yes.", "reasoning_content": "hm"}


def test_named_templates_and_a_file_beside(tmp_path):
    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": CHATML}]
    tokenizer = with_template(named, IM, "<|im_end|>")
    assert chat_format(tokenizer).template == CHATML
    tokenizer.save(tmp_path)
    assert chat_format(Tokenizer.load(tmp_path)).template == CHATML
    (tmp_path / "chat_template.jinja").write_text(QWEN)
    assert chat_format(Tokenizer.load(tmp_path)).template == QWEN


def test_a_killed_process_is_replaced_and_every_process_has_its_own(made):
    _, format, _ = made["chatml"]
    wanted = format.render([user("a"), assistant("b")])
    os.kill(format._process._process.pid, signal.SIGKILL)
    with pytest.raises(Refused):
        format.render([user("a"), assistant("b")])
    assert format.render([user("a"), assistant("b")]) == wanted
    assert copied(format).render([user("a"), assistant("b")]) == wanted
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(format.render([user("a"), assistant("b")])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_a_vocabulary_that_puts_spaces_before_words(scheme):
    letters = sorted({*"▁abcdefghijklmnopqrstuvwxyz.,:\n"})
    vocab = {letter: n for n, letter in enumerate(["<unk>", *letters, "▁a", "▁b"])}
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    parts = {
        "version": "1.0",
        "added_tokens": [
            {"id": len(vocab) + n, "content": token, **flags, "special": True}
            for n, token in enumerate(IM)
        ],
        "normalizer": None,
        "pre_tokenizer": space,
        "post_processor": None,
        "decoder": space,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "vocab": vocab,
            "merges": [["▁", "a"], ["▁", "b"]],
        },
    }
    template = "begin: " + CHATML
    config = {"chat_template": template, "eos_token": "<|im_end|>", "unk_token": "<unk>"}
    tokenizer = Tokenizer(json.dumps(parts).encode(), config)
    messages = [user("a b"), assistant("b  a"), user("c"), assistant("a")]
    rendered = chat_format(tokenizer).render(messages)
    assert rendered.ids == twin(tokenizer).apply_chat_template(messages)["input_ids"]
    assert spoken(tokenizer, rendered).replace(" ", "") == "ba<|im_end|>a<|im_end|>"
