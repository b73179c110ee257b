"""Our chat format: the same ids and mask as its Jinja template, no token from text, turns back."""

import pickle

import pytest
from chats import CHATML, IM, ORDINARY, base, conversations, nasty, sanitized, twin, with_template
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadInput
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import (
    SPECIALS,
    TEMPLATE,
    CallError,
    ToolCall,
    chat_format,
    check_messages,
    with_chat,
)
from llmctl.tokenizer.chat_messages import SCHEMAS, tools_line


@pytest.fixture(scope="module")
def tokenizer():
    return with_chat(base())


@pytest.fixture(scope="module")
def chat(tokenizer):
    return chat_format(tokenizer)


@pytest.fixture(scope="module")
def reference(tokenizer):
    return twin(tokenizer)


def user(text):
    return {"role": "user", "content": text}


def assistant(text, *calls):
    message = {"role": "assistant", "content": text}
    return message | ({"tool_calls": [ToolCall(*c).as_message() for c in calls]} if calls else {})


def tool(text, name="python"):
    return {"role": "tool", "name": name, "content": text}


@settings(max_examples=150, deadline=None)
@given(messages=conversations())
def test_code_and_template_give_the_same_ids_and_mask(chat, reference, messages):
    theirs = reference.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    ours = chat.render(messages)
    assert ours.ids == theirs["input_ids"]
    assert ours.mask == [bool(m) for m in theirs["assistant_masks"]]


@settings(max_examples=30, deadline=None)
@given(messages=conversations(), data=st.data())
def test_a_prompt_ends_with_the_header_of_an_answer(chat, reference, messages, data):
    prompt = messages[: data.draw(st.integers(1, len(messages)))]
    theirs = reference.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    ours = chat.render(prompt, generation=True)
    assert ours.ids == theirs
    assert len(ours.mask) == len(ours.ids) and not any(ours.mask[-2:])


@settings(max_examples=60, deadline=None)
@given(messages=conversations(), names=st.sampled_from([("search",), ("python", "search")]))
def test_tools_are_told_in_the_system_message(chat, reference, messages, names):
    schemas = [SCHEMAS[name] for name in names]
    theirs = reference.apply_chat_template(messages, tools=schemas)["input_ids"]
    told = chat.with_tools(names).render(messages)
    assert told.ids == theirs
    assert chat.tokenizer.decode(told.ids).count(tools_line(names)) == 1
    assert chat.with_tools(()).render(messages) == chat.render(messages)


@settings(max_examples=120, deadline=None)
@given(messages=conversations(nasty(SPECIALS + ("<|endoftext|>",))))
def test_no_text_becomes_a_control_token(chat, tokenizer, messages):
    rendered = chat.render(messages)
    n_calls = sum("tool_calls" in m for m in messages)
    control = [i for i in rendered.ids if i in tokenizer.special_ids]
    assert len(control) == 3 * len(messages) + n_calls
    for message in messages:
        assert message["content"] in tokenizer.decode(rendered.ids)


@settings(max_examples=50, deadline=None)
@given(messages=conversations(nasty(SPECIALS), tools=False))
def test_text_that_spells_tokens_has_the_ids_that_transformers_can_give_it(
    chat, reference, messages
):
    assert chat.render(messages).ids == sanitized(reference, messages)


def test_trained_on_is_what_the_assistant_says(chat, tokenizer):
    messages = [
        {"role": "system", "content": "Be brief."},
        user("1+1?"),
        assistant("Let me see. ", ("python", {"code": "1+1"})),
        tool("2"),
        assistant("It is 2."),
    ]
    rendered = chat.render(messages)
    trained = [i for i, m in zip(rendered.ids, rendered.mask) if m]
    assert tokenizer.decode(trained) == "Let me see. <|python|>1+1<|im_end|>It is 2.<|im_end|>"
    assert tokenizer.decode(rendered.ids).startswith("<|im_start|>system<|im_sep|>Be brief.<|im_en")


TEXT = ORDINARY.filter(str.strip)


@settings(max_examples=80, deadline=None)
@given(content=ORDINARY, code=TEXT, name=TEXT, ended=st.booleans(), kind=st.integers(0, 3))
def test_a_turn_reads_back_as_it_was_written(chat, content, code, name, ended, kind):
    call = [None, ("python", {"code": code}), ("search", {"query": code}), (name, {name: code})]
    message = assistant(content, *([call[kind]] if call[kind] else []))
    rendered = chat.render([message])
    ids = [i for i, m in zip(rendered.ids, rendered.mask) if m]
    ids = ids if ended else ids[:-1]
    assert chat.turn(ids) == message
    assert chat.call_of(ids) == (ToolCall(*call[kind]) if call[kind] else None)


def test_a_result_goes_on_from_the_call(chat):
    before = [user("1+1?"), assistant("", ("python", {"code": "1+1"}))]
    whole = [*before, tool("2 <|im_end|>")]
    forced = chat.result_ids("python", "2 <|im_end|>")
    assert chat.render(before).ids + forced == chat.render(whole, generation=True).ids


def test_malformed_calls_are_told(chat, tokenizer):
    call, end = tokenizer.id_of("<|tool|>"), [chat.end_id]
    for text in ("{", "[]", '{"name": "a"}', '{"name": 1, "arguments": {}}', " "):
        with pytest.raises(CallError):
            chat.call_of([call, *tokenizer.encode(text), *end])
    with pytest.raises(CallError, match="'?arguments"):
        chat.turn([call, *tokenizer.encode('{"name": "a", "arguments": [1]}')])
    python = tokenizer.id_of("<|python|>")
    with pytest.raises(CallError, match="control token"):
        chat.call_of([python, *tokenizer.encode("1"), call, *tokenizer.encode("2")])


def test_what_follows_the_end_of_a_turn_is_not_part_of_it(chat, tokenizer):
    ids = [*tokenizer.encode("Yes."), chat.end_id, *tokenizer.encode("No."), chat.end_id]
    assert chat.turn(ids)["content"] == "Yes."
    assert chat.turn([*tokenizer.encode("Yes."), tokenizer.eot_id])["content"] == "Yes."


def test_a_base_tokenizer_gets_the_tokens_it_lacks(tmp_path):
    plain = base()
    assert chat_format(plain) is None
    chatty = with_chat(plain)
    assert [chatty.id_of(s) for s in SPECIALS] == [plain.n_ids + n for n in range(6)]
    assert chatty.encode("river <|im_end|>") == plain.encode("river <|im_end|>")
    assert chatty.eot_id == plain.eot_id and with_chat(chatty) is chatty
    chatty.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.hash == chatty.hash and again.config["chat_template"] == TEMPLATE
    format = chat_format(again)
    assert format.own and format.hash == chat_format(chatty).hash
    assert format.stop_ids == {chatty.id_of("<|im_end|>"), plain.eot_id}
    assert again.config["eos_token"] != again.config["pad_token"]


def test_a_tokenizer_that_has_some_tokens_keeps_their_ids():
    some = with_template(None, IM)
    chatty = with_chat(some)
    assert chatty.id_of("<|im_end|>") == some.id_of("<|im_end|>")
    assert chatty.n_ids == some.n_ids + 4 and chat_format(chatty).own
    other = with_template(CHATML, IM, "<|im_end|>")
    assert with_chat(other) is other and not chat_format(other).own


def test_what_the_format_has_no_place_for_is_refused(chat):
    call = ("python", {"code": "1"})
    with pytest.raises(BadInput, match="2 calls"):
        chat.render([user("a"), assistant("", call, call)])
    with pytest.raises(BadInput, match="narrator"):
        chat.render([{"role": "narrator", "content": "x"}])
    good, bad = chat.try_many([[user("a"), assistant("b")], [{"role": "user", "content": 3}]])
    assert good == chat.render([user("a"), assistant("b")]) and "no text" in bad


def test_formats_travel_to_other_processes(chat):
    again = pickle.loads(pickle.dumps(chat))  # noqa: S301  our own
    assert again.render([user("a"), assistant("b")]) == chat.render([user("a"), assistant("b")])


CALL = ("python", {"code": "1"})


@pytest.mark.parametrize(
    "messages, why",
    [
        ([user("a"), assistant("b")], None),
        ([assistant("b"), user("c")], None),
        ([user("a"), assistant("", CALL), tool(""), assistant("b")], None),
        ([user("a"), assistant("", CALL)], None),
        ([user("a"), assistant(None, CALL)], None),
        ([], "no messages"),
        ("text", "no messages"),
        (["a"], "no object"),
        ([user("a")], "no assistant"),
        ([user("a"), assistant("b"), assistant("c")], "two assistant"),
        ([user(" "), assistant("b")], "empty"),
        ([user("a"), assistant("")], "empty"),
        ([user(["a"]), assistant("b")], "no text"),
        ([{"role": "narrator", "content": "a"}, assistant("b")], "unknown role 'narrator'"),
        ([user("a"), assistant("b"), {"role": "system", "content": "c"}], "not the first"),
        ([user("a"), tool("b"), assistant("c")], "result without a call"),
        ([user("a"), assistant("", CALL), user("b"), assistant("c")], "call without result"),
        ([{**user("a"), "tool_calls": [{"name": "x"}]}, assistant("c")], "in a user message"),
        ([user("a"), {**assistant(""), "tool_calls": [{"id": 1}]}], "without a name"),
        ([user("a"), {**assistant(""), "tool_calls": "x"}], "no list"),
    ],
)
def test_conversations_that_cannot_be_learned_from(messages, why):
    found = check_messages(messages)
    assert found is None if why is None else why in found


def test_a_prompt_ends_before_an_answer():
    assert check_messages([user("a")], prompt=True) is None
    assert check_messages([user("a"), assistant("b")], prompt=True)
