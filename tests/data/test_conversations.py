"""Conversations of anybody: each shape read, each bad row counted, each other thing sent away."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadInput, LlmctlError, Mismatch, NoInput, UsageError
from llmctl.data.conversations import parse_source, read_conversations
from llmctl.data.conversations.rows import read_rows


def told(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def called(name, arguments, content=""):
    function = {"name": name, "arguments": arguments}
    calls = [{"type": "function", "function": function}]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def lines(*rows):
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def read(tmp_path, *rows, max_bad=0.0):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(*rows))
    return read_conversations(path, max_bad=max_bad)


def only(tmp_path, row, format):
    found = read(tmp_path, row)
    assert found.format == format and len(found.rows) == 1
    assert found.rows[0].where == "rows.jsonl:1"
    return found.rows[0].messages


SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


@pytest.mark.parametrize(
    "row, format, messages",
    [
        ({"messages": told("a", "b")}, "messages", told("a", "b")),
        ({"conversations": told("a", "b")}, "messages", told("a", "b")),
        ({"conversations": SHAREGPT}, "sharegpt", told("a", "b")),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca", told("a", "b")),
        ({"instruction": "a", "input": "x", "response": "b"}, "alpaca", told("a\n\nx", "b")),
        (
            {"instruction": "c", "output": "d", "history": [["a", "b"]]},
            "alpaca",
            told("a", "b", "c", "d"),
        ),
        ({"prompt": "a", "completion": "b"}, "prompt/completion", told("a", "b")),
        ({"prompt": "a", "response": "b"}, "prompt/response", told("a", "b")),
        ({"question": "a", "answer": "b"}, "question/answer", told("a", "b")),
        (
            {"prompt": told("a"), "completion": [{"role": "assistant", "content": "b"}]},
            "prompt/completion",
            told("a", "b"),
        ),
    ],
)
def test_each_shape_is_known_by_its_columns(tmp_path, row, format, messages):
    assert only(tmp_path, row, format) == messages


def test_a_system_column_comes_first(tmp_path):
    wanted = [{"role": "system", "content": "s"}, *told("a", "b")]
    assert only(tmp_path, {"system": "s", "conversations": SHAREGPT}, "sharegpt") == wanted
    assert only(tmp_path, {"system": "s", "instruction": "a", "output": "b"}, "alpaca") == wanted
    assert only(tmp_path, {"system": "", "messages": told("a", "b")}, "messages") == told("a", "b")


def test_gsm8k_keeps_its_steps_without_the_calculators_marks(tmp_path):
    answer = "He has 3+4 = <<3+4=7>>7 cats.\nHalf are <<7/2=3.5>>3.5.\n#### 3.5"
    messages = only(tmp_path, {"question": "How many?", "answer": answer}, "gsm8k")
    said = "He has 3+4 = 7 cats.\nHalf are 3.5.\nThe answer is 3.5."
    assert messages == told("How many?", said)


def test_the_wrapping_of_an_instruction_is_taken_off(tmp_path):
    head = "Below is an instruction that describes a task. Write a response that fits.\n\n"
    row = {"prompt": f"{head}### Instruction:\nSay a.\n\n### Response:\n", "response": "a"}
    assert only(tmp_path, row, "prompt/response") == told("Say a.", "a")
    more = "### Instruction:\nSay a.\n\n### Input:\nb\n\n### Response:\n"
    row = {"prompt": head + more, "response": "a"}
    assert only(tmp_path, row, "prompt/response") == told("Say a.\n\nb", "a")


def node(role, text, *replies, **more):
    return {"message_id": text, "role": role, "text": text, "replies": list(replies), **more}


def test_of_a_tree_the_best_answers_and_every_question(tmp_path):
    tree = node(
        "prompter",
        "q",
        node("assistant", "worse", node("prompter", "no", node("assistant", "x")), rank=1),
        node(
            "assistant",
            "best",
            node("prompter", "q1", node("assistant", "unranked"), node("assistant", "a1", rank=0)),
            node("prompter", "q2", node("assistant", "a2"), node("assistant", "d", deleted=True)),
            node("prompter", "q3"),
            rank=0,
        ),
    )
    found = read(tmp_path, {"message_tree_id": "t", "prompt": tree})
    assert found.format == "oasst"
    paths = [[m["content"] for m in row.messages] for row in found.rows]
    assert paths == [["q", "best", "q1", "a1"], ["q", "best", "q2", "a2"]]
    assert {row.extra["tree"] for row in found.rows} == {"t"}


def test_a_tree_in_rows_of_messages_is_put_together(tmp_path):
    rows = [
        {"message_id": "1", "parent_id": None, "role": "prompter", "text": "q"},
        {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "bad", "rank": 1},
        {"message_id": "3", "parent_id": "1", "role": "assistant", "text": "good", "rank": 0},
        {"message_id": "4", "parent_id": "lost", "role": "assistant", "text": "x"},
    ]
    found = read(tmp_path, *rows, max_bad=0.5)
    assert [row.messages for row in found.rows] == [told("q", "good")]
    assert found.skipped == {"a reply whose question is missing": 1}
    assert [*found.first.values()][0].endswith(":4")


def test_calls_in_every_spelling(tmp_path):
    result = {"role": "tool", "content": "2"}
    wanted = [told("a")[0], called("f", {"x": 1}), result, told("", "b")[1]]
    arguments = [{"x": 1}, '{"x": 1}']
    entries = [{"name": "f", "arguments": a} for a in arguments]
    entries += [{"type": "function", "function": e} for e in entries]
    for entry in entries:
        call = {"role": "assistant", "content": None, "tool_calls": [entry]}
        row = {"messages": [wanted[0], call, result, wanted[3]]}
        assert only(tmp_path, row, "messages") == wanted
    text = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
    turns = [("human", "a"), ("gpt", text), ("tool", "<tool_response>\n2\n</tool_response>")]
    row = {"conversations": [{"from": f, "value": v} for f, v in [*turns, ("gpt", "b")]]}
    assert only(tmp_path, row, "sharegpt") == wanted
    turns = [("human", "a"), ("function_call", json.dumps(entries[0])), ("observation", "2")]
    row = {"conversations": [{"from": f, "value": v} for f, v in [*turns, ("gpt", "b")]]}
    assert only(tmp_path, row, "sharegpt") == wanted
    parts = [{"type": "reasoning", "value": "hm"}, {"type": "tool_call", "value": entries[1]}]
    row = {"messages": [wanted[0], {"role": "assistant", "content": parts}, result, wanted[3]]}
    assert only(tmp_path, row, "messages") == wanted


def test_a_call_after_words_is_one_turn(tmp_path):
    call = json.dumps({"name": "python", "arguments": {"code": "1"}})
    turns = [("human", "a"), ("gpt", "Let me."), ("function_call", call), ("observation", "1")]
    row = {"conversations": [{"from": f, "value": v} for f, v in [*turns, ("gpt", "b")]]}
    messages = only(tmp_path, row, "sharegpt")
    assert messages[1] == called("python", {"code": "1"}, "Let me.")


def test_calls_made_at_once_are_put_in_a_row(tmp_path):
    calls = [{"name": n, "arguments": {}} for n in "fg"]
    both = {"role": "assistant", "content": "Hm.", "tool_calls": calls}
    results = [{"role": "tool", "content": text} for text in "12"]
    end = {"role": "assistant", "content": "b"}
    wanted = [called("f", {}, "Hm."), results[0], called("g", {}), results[1], end]
    found = read(tmp_path, {"messages": [*told("a"), both, *results, end]})
    assert found.rows[0].messages[1:] == wanted
    joined = {"role": "tool", "content": "[1, 2]"}
    found = read(tmp_path, {"messages": [*told("a"), both, joined, end]})
    assert found.rows[0].messages[1:] == wanted
    found = read(tmp_path, {"messages": [*told("a"), both]})
    assert found.rows[0].messages[1:] == [called("f", {}, "Hm.")]
    with pytest.raises(BadInput, match="told apart"):
        read(tmp_path, {"messages": [*told("a"), both, results[0], end]})


def test_functions_of_a_row_are_told_in_its_system_message(tmp_path):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    wanted = 'You can call these functions:\n{"name": "f", "parameters": {}}'
    for column in (tools, json.dumps(tools)):
        messages = only(tmp_path, {"conversations": SHAREGPT, "tools": column}, "sharegpt")
        assert messages[0] == {"role": "system", "content": wanted}
    row = {"messages": [{"role": "system", "content": "s"}, *told("a", "b")], "tools": tools}
    assert only(tmp_path, row, "messages")[0]["content"] == f"s\n\n{wanted}"


HEAD = "toolformer: enabled\ntoolformer access: python, weather\nRuns code.\npython(code)\n"
HEAD += "Tells the weather.\nweather(place)\n"


@pytest.mark.parametrize(
    "answer, content, name, arguments",
    [
        ("It is python('1+1').", "It is", "python", {"code": "1+1"}),
        ("It is python(len('a(b'))!", "It is", "python", {"code": "len('a(b')"}),
        ("weather('Rome, today's') now", "", "weather", {"place": "Rome, today's"}),
        ('a weather("Rome", "Bern") b', "a", "weather", {"place": "Rome, Bern"}),
        ("a python('print(\\'x\\')') b", "a", "python", {"code": "print('x')"}),
        ("a weather('A') b python('c')", "a", "weather", {"place": "A"}),
        ("a python({[1]: 2}) b", "a", "python", {"code": "{[1]: 2}"}),
    ],
)
def test_calls_written_as_text_become_calls(tmp_path, answer, content, name, arguments):
    row = {"instruction": HEAD + "Do it.", "input": "x", "response": answer}
    system, ask, reply = only(tmp_path, row, "toolformer")
    assert system["content"].endswith("python: Runs code.\nweather: Tells the weather.")
    assert ask["content"] == "Do it.\n\nx" and reply == called(name, arguments, content)


def test_a_call_in_text_that_does_not_end_is_refused(tmp_path):
    row = {"instruction": HEAD + "Do it.", "input": "", "response": "It is python('1"}
    with pytest.raises(BadInput, match="does not end"):
        read(tmp_path, row)


@pytest.mark.parametrize(
    "good, bad",
    [
        ({"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b", "history": 1}),
        (
            {"prompt": node("prompter", "a", node("assistant", "b"))},
            {"prompt": node("prompter", "a") | {"replies": 5}},
        ),
    ],
)
def test_a_row_that_breaks_its_shape_is_counted(tmp_path, good, bad):
    found = read(tmp_path, good, bad, max_bad=0.5)
    assert [row.messages for row in found.rows] == [told("a", "b")]
    assert found.skipped == {f"not as {found.format} has it": 1}


def test_bad_rows_are_counted_with_the_first_of_each_kind(tmp_path):
    path = tmp_path / "rows.jsonl"
    bad = [{"messages": told("a", "b", "c")[1:] + told("d")}, {"messages": told("a")}, {"x": 1}]
    good = {"messages": told("a", "b")}
    path.write_bytes(lines(good, *bad) + b"{torn\n\n[1]\n" + lines({"messages": told("a")}, good))
    found = read_conversations(path, max_bad=0.75)
    assert (len(found.rows), found.n_rows) == (3, 8)
    assert found.skipped["no assistant turn"] == 2 and found.first["no assistant turn"].endswith(
        ":3"
    )
    assert found.first["no JSON"] == "rows.jsonl:5" and found.first["no JSON object"].endswith(":7")
    assert "3 conversations (messages)" in found.summary()
    with pytest.raises(BadInput, match=r"5 of 8 rows.*rows.jsonl:3.*--max-bad 0.625"):
        read_conversations(path, max_bad=0.6)


def test_lines_end_at_newlines_only(tmp_path):
    text = "one\u2028two\u2029three\u0085four\x1cfive"
    assert only(tmp_path, {"messages": told("a", text)}, "messages")[1]["content"] == text


def test_json_arrays_and_packed_files(tmp_path):
    rows = [{"messages": told("a", "b"), "kind": "x"}, {"messages": told("c", "d")}]
    for name, raw in {
        "a.json": json.dumps(rows).encode(),
        "b.json": json.dumps(rows, indent=2).encode(),
        "c.json": json.dumps({"data": rows}, indent=1).encode(),
        "d.jsonl": b"\xef\xbb\xbf" + lines(*rows),
        "e.jsonl.gz": gzip.compress(lines(*rows)),
        "f.jsonl": lines(*rows).replace(b"\n", b"\r\n"),
    }.items():
        (tmp_path / name).write_bytes(raw)
        found = read_conversations(tmp_path / name, max_bad=0)
        assert [r.messages for r in found.rows] == [told("a", "b"), told("c", "d")], name
        assert found.rows[0].extra == {"kind": "x"} and found.rows[1].where == f"{name}:2"


def test_our_parquet_keeps_other_columns_and_drops_what_a_schema_adds(tmp_path):
    rows = [
        {"messages": told("a", "b"), "kind": "known", "fact_id": "f1"},
        {
            "messages": [*told("a"), called("python", {"code": "1"})],
            "kind": "tool",
            "fact_id": None,
        },
        {"messages": [*told("a"), called("search", {"query": "x"})], "kind": "tool"},
    ]
    folder = tmp_path / "web"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "conversations.parquet")
    pq.write_table(pa.table({"text": ["x"]}), folder / "truth.parquet")
    found = read_conversations(folder, max_bad=0)
    assert [r.messages for r in found.rows] == [r["messages"] for r in rows]
    assert found.rows[0].extra == {"kind": "known", "fact_id": "f1"}
    assert found.rows[1].extra == {"kind": "tool"}
    source = parse_source(f"{folder}#kind=tool=0.5")
    assert (source.path, source.weight) == (folder, 0.5)
    assert [r.where for r in source.select(found)] == [f"conversations.parquet:{n}" for n in (2, 3)]
    for text in ("#kind=know", "#knd=known", "#kind=known&fact_id=f2"):
        with pytest.raises(UsageError, match="did you mean|no row"):
            parse_source(f"{folder}{text}").select(found)


def test_a_folder_of_files(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(lines({"messages": told(name, "x")}))
    (tmp_path / "info.json").write_text('{"about": "this"}')
    found = read_conversations(tmp_path, max_bad=0)
    assert [r.messages[0]["content"] for r in found.rows] == ["a", "b"]
    with pytest.raises(NoInput):
        read_conversations(tmp_path / "none", max_bad=0)


def test_artifacts_of_another_kind_are_sent_away(tmp_path):
    manifest = {"kind": "tokens", "format": 1, "id": "x", "files": [], "stats": {}, "inputs": []}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Mismatch):
        read_conversations(tmp_path, max_bad=0)


@pytest.mark.parametrize(
    "row, command",
    [
        ({"text": "t", "code": "c", "test_list": ["assert 1"]}, "rl --data"),
        ({"prompt": "a", "answer": "1", "verifier": "math"}, "rl --data"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "rm --data"),
        ({"messages": told("a"), "ranked": ["b", "c"]}, "rm --data"),
        ({"query": "a", "choices": ["b"], "gold": 0}, "eval --tasks"),
        ({"question": "a", "answer": ["b", "c"]}, "eval --tasks"),
        ({"text": "a page"}, "tokenize"),
        ({"foo": 1}, "no conversations that llmctl knows"),
        ({"instruction": "a", "output": "I am {{name}}."}, "{{name}}"),
    ],
)
def test_what_holds_no_conversation_names_the_command_for_it(tmp_path, row, command):
    with pytest.raises(BadInput, match=command):
        read(tmp_path, row)


def test_damaged_files(tmp_path):
    for name, raw in {"a.parquet": b"PAR1xx", "b.jsonl": b"", "c.json": b"[1, 2"}.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(BadInput):
            read_conversations(tmp_path / name, max_bad=1)


@pytest.mark.parametrize(
    "text, path, weight, keep",
    [
        ("a", "a", 1.0, {}),
        ("a=0.5", "a", 0.5, {}),
        ("d/a.jsonl#kind=x", "d/a.jsonl", 1.0, {"kind": {"x"}}),
        ("a#kind=x,y=2", "a", 2.0, {"kind": {"x", "y"}}),
        ("a#kind=3", "a", 1.0, {"kind": {"3"}}),
        ("a#kind=x&split=train=1e-1", "a", 0.1, {"kind": {"x"}, "split": {"train"}}),
    ],
)
def test_a_source_is_path_rows_and_weight(text, path, weight, keep):
    source = parse_source(text)
    assert source.path == Path(path) and source.weight == weight
    assert {k: set(v) for k, v in source.keep.items()} == keep


@pytest.mark.parametrize("text", ["a=x", "a=0", "a=-1", "a=nan", "a#", "a#kind", "#k=v", "=1", ""])
def test_nonsense_for_a_source_is_refused(text):
    with pytest.raises(UsageError):
        parse_source(text)


def test_a_name_with_an_equals_sign_is_a_path_when_it_is_there(tmp_path):
    (tmp_path / "a=2#x").write_text("")
    assert parse_source(str(tmp_path / "a=2#x")).path == tmp_path / "a=2#x"


WORDS = "messages conversations role content from value system tools instruction input output "
WORDS += "response history prompt completion question answer tool_calls function name arguments "
WORDS += "replies text rank message_id parent_id type assistant user gpt human tool function_call "
WORDS += "toolformer:x ####"
KEYS = st.sampled_from(WORDS.split())
ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-9, 9) | KEYS | st.just(""),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.dictionaries(KEYS, ANY, max_size=5), min_size=1, max_size=3))
def test_no_row_breaks_the_reader(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_bytes(lines(*rows))
    try:
        found = read_conversations(path, max_bad=1)
    except LlmctlError as error:
        assert error.code == 65
    else:
        assert found.rows


SHARED = Path(os.environ.get("LLMCTL_SHARED", "/nonexistent")) / "data" / "post"
READ = {
    "conversations/dolly_hhrlhf_small.jsonl": ("prompt/response", 903),
    "conversations/fastchat_dummy_conversation.jsonl": ("sharegpt", 500),
    "conversations/gpteacher_codegen-instruct.jsonl": ("alpaca", 4097),
    "conversations/gpteacher_roleplay-simple-deduped-roleplay-instruct.jsonl": ("alpaca", 1725),
    "conversations/llamafactory_alpaca_en_demo.jsonl": ("alpaca", 886),
    "conversations/oasst_en_100_trees.jsonl": ("oasst", 75),
    "identity/nanochat_identity_conversations.jsonl": ("messages", 895),
    "gsm8k/train.jsonl": ("gsm8k", 7002),
    "tools/gpteacher_toolformer.jsonl": ("toolformer", 4799),
    "tools/llamafactory_glaive_toolcall_en_demo.jsonl": ("sharegpt", 244),
    "tools/llamafactory_reason_tool_use_50.jsonl": ("messages", 50),
}
REFUSED = {
    "code/mbpp_train.jsonl": "rl --data",
    "identity/llamafactory_identity.jsonl": "{{name}}",
    "preferences/hh_harmless_base_test.jsonl": "rm --data",
    "preferences/oasst_rankings.jsonl": "rm --data",
    "preferences/tulu1_paired_outputs_unlabelled.jsonl": "rm --data",
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="LLMCTL_SHARED names no folder with data/post")
@pytest.mark.parametrize("name", [*READ, *REFUSED])
def test_real_files_are_read_or_refused(name):
    if name in REFUSED:
        with pytest.raises(BadInput, match=REFUSED[name]):
            read_conversations(SHARED / name, max_bad=0.01)
        return
    found = read_conversations(SHARED / name, max_bad=0)
    assert (found.format, found.n_rows) == READ[name]
    assert not any("toolformer" in m["content"] for row in found.rows[:50] for m in row.messages)
    assert sum(1 for _ in read_rows(SHARED / name)) == found.n_rows
