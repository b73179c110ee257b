"""Passages found; the two tools as a model meets them."""

import json
import time

import pytest

from llmctl.core.errors import BadInput, Mismatch, NoInput, Refused, UsageError
from llmctl.infer import tools as tools_module
from llmctl.infer.search import Index, passages, read_texts, sentences, terms
from llmctl.infer.tools import PythonTool, SearchTool, open_tools, shortened
from llmctl.sandbox import Limits
from llmctl.tokenizer.chat import ChatFormat, with_chat

needs_walls = pytest.mark.usefixtures("walls")
TEXTS = [
    "Kate Cullier\nThe favourite dish of Kate Cullier is pudding. By trade Kate Cullier is a "
    "fishmonger, or so people say. She lives alone.",
    "Millwick stands beside the Umber. Its mayor, Mr. J. Tabway, sells telescopes.",
    'The dish was cold. "We will do it again!" said Olga. Nobody answered her.',
]


@pytest.fixture(scope="module")
def form(tokenizer):
    return ChatFormat(with_chat(tokenizer))


def test_sentences_end_where_they_do():
    text = 'Mr. J. Tabway came at 3.50. "Really?" she asked. No. 7 was e.g. closed!\nA title'
    assert list(sentences(text)) == [
        "Mr. J. Tabway came at 3.50.",
        '"Really?" she asked.',
        "No. 7 was e.g. closed!",
        "A title",
    ]


def test_sentences_keep_what_closes_them():
    assert list(sentences('He said "Stop." Then he left. (See above.) “No!” Next')) == [
        'He said "Stop."',
        "Then he left.",
        "(See above.)",
        "“No!”",
        "Next",
    ]


def test_passages_are_short_and_lose_nothing():
    text = " ".join(f"Sentence number {i} is here." for i in range(7)) + "\n" + "word " * 150
    found = list(passages(text))
    assert [len(p.split()) for p in found] == [15, 15, 5, 60, 60, 30]
    assert " ".join(found).split() == text.split()
    assert list(passages("")) == list(passages(" \n \n")) == []


def test_the_passage_that_answers_is_found():
    index = Index(TEXTS)
    assert "fishmonger" in index.find("What is the trade of Kate Cullier?", 1)[0]
    assert "Umber" in index.find("Which river flows past Millwick?", 1)[0]
    assert index.find("zebra", 3) == index.find("", 3) == index.find("the of", 3) == []
    assert len(index.find("dish", 3)) == 2 and len(index.find("dish", 1)) == 1
    assert terms("The Dishes' glass, Kate's") == ["dishe", "glass", "kate", "s"]


def test_a_passage_on_many_pages_is_found_once():
    assert len(Index(TEXTS * 3).find("favourite dish", 5)) == len(Index(TEXTS).find("dish dish", 5))


def test_an_index_of_megabytes_is_quick():
    texts = [
        " ".join(f"Word{(i * k) % 7919} stands in {k} of {i}." for k in range(40))
        for i in range(1000)
    ]
    started = time.process_time()
    index = Index(texts)
    assert time.process_time() - started < 5  # 1.2 MB; 5 MB take 1.5 s on a quiet core
    started = time.process_time()
    for i in range(50):
        assert index.find(f"Which Word{i * 31} is it?")
    assert (time.process_time() - started) / 50 < 0.02


def test_documents_of_every_kind_are_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = tmp_path / "d.jsonl"
    lines.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "d.parquet")
    for path in (lines, tmp_path / "d.parquet"):
        assert list(read_texts(path)) == TEXTS
    with pytest.raises(NoInput, match="nowhere"):
        list(read_texts(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="no text"):
        Index(["", "\n"])


def test_the_search_tool_answers_in_lines():
    tool = SearchTool(Index(TEXTS), passages=2, words=12)
    assert tool.run({"query": "Millwick river"}).startswith("Millwick stands beside the Umber.")
    assert tool.run({"query": "dish"}).endswith("… (cut)")
    assert tool.run("zebra") == "(nothing found)"
    assert tool.run({"q": "x"}) == 'error: search takes {"query": text}'
    tool.cancel()


@needs_walls
def test_the_python_tool_says_what_a_program_says():
    tool = PythonTool(limits=Limits(wall_seconds=5.0, output_bytes=2000), words=5)
    assert tool.run({"code": "print('a')\n6 * 7"}) == "a\n42"
    assert tool.run("x = 1") == "(no output)"
    assert (
        tool.run({"code": "print(1)\nnope"})
        == "1\nerror: NameError: name 'nope' is not defined (line 2)"
    )
    assert tool.run({"code": "print(*range(9))"}) == "0 1 2 3 4 … (cut)"
    assert tool.run({"code": 7}) == 'error: python takes {"code": text}'
    assert "more than 1 KiB" in tool.run({"code": "print('x' * 10**6)"})


def test_tools_are_opened_or_refused(form, tmp_path, monkeypatch):
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    box = open_tools(["search"], form, documents=tmp_path / "d.jsonl")
    assert list(box.tools) == ["search"] and box.max_calls == 8
    with pytest.raises(UsageError, match="did you mean 'python'"):
        open_tools(["pyhton"], form)
    with pytest.raises(UsageError, match="--documents"):
        open_tools(["search"], form)
    with pytest.raises(Mismatch, match="sft"):
        open_tools(["search"], None, documents=tmp_path)
    monkeypatch.setattr(tools_module.sandbox, "available", lambda: "no walls")
    with pytest.raises(Refused, match="no walls"):
        open_tools(["python"], form)


def test_results_are_cut_at_words():
    assert shortened("a  b\nc", 3) == "a  b\nc"
    assert shortened("a  b\nc d", 2) == "a  b … (cut)"
    assert shortened("", 2) == ""


@needs_walls
def test_a_model_with_both_tools_end_to_end(form, tokenizer, tmp_path):
    """The engine runs the real tools for a model that asks for both."""
    from test_tools import GREEDY, PYTHON, SEARCH, engine, prompt, spell

    (tmp_path / "d.jsonl").write_text(json.dumps({"text": "Ann keeps a dog. Bob bakes."}) + "\n")
    box = open_tools(["python", "search"], form, documents=tmp_path / "d.jsonl")
    first = [*spell(form, PYTHON, "2**10"), form.end_id]
    second = [*spell(form, SEARCH, "who bakes"), form.end_id]
    last = [*spell(form, "Bob."), form.end_id]
    from dataclasses import replace

    [done] = engine(form, first + second + last).generate(
        [prompt(form)], replace(GREEDY, max_tokens=60), tools=box
    )
    assert [c.result for c in done.calls] == ["1024", "Ann keeps a dog. Bob bakes."]
    assert done.text == "Bob."
