"""Problems of every known shape, and what cannot be used."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmctl.core.errors import BadInput, NoInput
from llmctl.data.problems import read_problems, right_answers
from llmctl.synth.problems import problem_rows

CALLS = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_our_own_parquet_with_its_splits(tmp_path):
    [rows] = problem_rows(0, 40)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "problems.parquet")
    found = read_problems(tmp_path)
    assert [p.split for p in found] == [r["split"] for r in rows]
    assert found[0].prompt == [{"role": "user", "content": rows[0]["prompt"]}]
    assert found[0].verifier == "math" and found[0].answer == rows[0]["answer"]
    assert found[3].meta["difficulty"] == 4


def test_gsm8k_mbpp_and_plain_rows(tmp_path):
    mixed = [
        {"question": "1 + 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"},
        {"text": "Add one.", "test_list": ["assert f(1) == 2"], "test_setup_code": "import math"},
        {"prompt": "Where?", "answer": ["Leeds", "the city of Leeds"]},
        {"prompt": [{"role": "user", "content": "3?"}], "answer": 3, "split": "test"},
    ]
    gsm, mbpp, plain, chat = read_problems(write(tmp_path / "p.jsonl", *mixed))
    assert (gsm.answer, gsm.verifier, gsm.meta["solution"]) == ("2", "math", "1 + 1 = <<1+1=2>>2")
    assert mbpp.verifier == "python-tests" and mbpp.meta["setup"] == "import math"
    assert "assert f(1) == 2" in mbpp.question
    assert (plain.verifier, plain.meta["aliases"]) == ("exact", ["the city of Leeds"])
    assert (chat.verifier, chat.answer, chat.split) == ("math", "3", "test")


@pytest.mark.parametrize(
    "aliases, right",
    [
        (["Lutetia"], ("Paris", "Lutetia")),
        ("City", ("Paris", "City")),
        (["Paris", 75, None, True], ("Paris", "75")),
        ({"a": 1}, ("Paris",)),
        (True, ("Paris",)),
    ],
)
def test_aliases_are_texts_however_they_are_given(aliases, right):
    assert right_answers({"answer": "Paris", "aliases": aliases}) == right
    assert right_answers({"answer": ["Paris"], "aliases": aliases}) == right


def test_rows_without_a_split_are_held_out_by_their_prompt(tmp_path):
    rows = [{"prompt": f"{i}?", "answer": str(i)} for i in range(500)]
    first = {p.question: p.split for p in read_problems(write(tmp_path / "a.jsonl", *rows))}
    again = {p.question: p.split for p in read_problems(write(tmp_path / "b.jsonl", *rows[::-1]))}
    assert first == again
    assert 25 < list(first.values()).count("test") < 80
    assert {p.split for p in read_problems(write(tmp_path / "test.jsonl", *rows[:5]))} == {"test"}


def test_a_separator_inside_a_text_does_not_end_its_line(tmp_path):
    path = write(tmp_path / "p.jsonl", {"prompt": "a\u2028b\x85c", "answer": "1"})
    path.write_text(path.read_text().replace("\\u2028", "\u2028"), encoding="utf-8")
    assert read_problems(path)[0].question == "a\u2028b\x85c"


@pytest.mark.parametrize(
    "row, why",
    [
        ({"prompt": "x"}, "wanted prompt and answer"),
        ({"prompt": "", "answer": "1"}, "neither text nor messages"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "answer": "1"}, "neither text nor"),
        ({"prompt": "x", "answer": True}, "neither text nor a number"),
        ({"prompt": [CALLS | {"tool_calls": ["x"]}], "answer": "1"}, "no list of objects"),
        ({"prompt": [CALLS | {"tool_calls": [{"function": {}}]}], "answer": "1"}, "without a name"),
        ({"prompt": [CALLS | {"role": "user"}], "answer": "1"}, "a call in a user message"),
        ({"question": "x", "answer": "no mark"}, "does not end with"),
        ({"text": "x", "test_list": []}, "holds no tests"),
        (["x"], "no JSON object"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, why):
    good = [{"prompt": f"{i}", "answer": "1"} for i in range(3)]
    path = write(tmp_path / "p.jsonl", *good, row)
    with pytest.raises(BadInput, match=f"line 4: .*{why}"):
        read_problems(path)
    assert len(read_problems(path, max_bad=0.5)) == 3


def test_nothing_to_read(tmp_path):
    with pytest.raises(NoInput, match="neither a file of problems"):
        read_problems(tmp_path)
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(NoInput, match="no problem in it"):
        read_problems(tmp_path / "p.jsonl")
    (tmp_path / "p.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(BadInput, match="damaged"):
        read_problems(tmp_path / "p.parquet")


def test_real_files(shared):
    post = shared / "data" / "post"
    gsm = read_problems(post / "gsm8k" / "train.jsonl")
    assert len(gsm) > 1000 and {p.verifier for p in gsm} == {"math"}
    mbpp = read_problems(post / "code" / "mbpp_train.jsonl")
    assert len(mbpp) > 100 and {p.verifier for p in mbpp} == {"python-tests"}
