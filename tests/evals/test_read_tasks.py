"""Task files as they come: the kind is found, what cannot be used is counted with its line."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmctl.core.errors import BadInput, NoInput
from llmctl.data.problems import read_problems
from llmctl.evals.tasks import core
from llmctl.evals.tasks.kinds import Choice, Open
from llmctl.evals.tasks.read import find_files, read_tasks

CHOICE = {"query": "Q: a?\nA: ", "choices": ["yes", "no"], "gold": 1}
ROWS = {
    "choice": CHOICE,
    "schema": {"context_options": ["he", "she"], "continuation": "ran.", "gold": 0},
    "completion": {"context": "1 + 1 =", "continuation": " 2"},
    "core open": {"context": "Who?\nAnswer:", "answer": "Bath", "aliases": ["bath"]},
    "thought": {"context": "1+1?", "answer": "2", "chain_of_thought": "Easy."},
    "gsm8k": {"question": "1+1?", "answer": "one <<1+1=2>>\n#### 2"},
    "number": {"question": "3-8?", "answer": "-5"},
    "nq year": {"question": "when", "answer": ["1988"]},
    "nq": {"question": "who", "answer": ["Ann", "Ann Lee"]},
    "trivia": {"question": "who", "answer": {"value": "Ann", "aliases": ["Ann Lee"]}},
    "code": {"text": "Add.", "code": "def f(): 1", "test_list": ["assert f()"]},
    "problem": {"prompt": "1+1?", "answer": "2", "verifier": "math"},
}


CODE = Open(
    "t.jsonl:1",
    "Add.\nYour code must pass this test:\nassert f()",
    ("assert f()",),
    "python-tests",
    "```python\ndef f(): 1\n```",
    {"tests": ["assert f()"], "setup": ""},
)


def lines(path, *rows):
    path.write_bytes(b"".join(json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in rows))
    return path


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("choice", "choice", Choice("t.jsonl:1", ("Q: a?\nA:",), ("yes", "no"), 1)),
        ("schema", "schema", Choice("t.jsonl:1", ("he", "she"), ("ran.",), 0)),
        ("completion", "completion", Choice("t.jsonl:1", ("1 + 1 =",), ("2",), 0)),
        ("core open", "open", Open("t.jsonl:1", "Who?\nAnswer:", ("Bath", "bath"))),
        ("thought", "open", Open("t.jsonl:1", "1+1?", ("2",), "math", "Easy. The answer is 2.")),
        ("gsm8k", "open", Open("t.jsonl:1", "1+1?", ("2",), "math", "one <<1+1=2>>\n#### 2")),
        ("number", "open", Open("t.jsonl:1", "3-8?", ("-5",), "math")),
        ("nq", "open", Open("t.jsonl:1", "who", ("Ann", "Ann Lee"))),
        ("nq year", "open", Open("t.jsonl:1", "when", ("1988",))),
        ("trivia", "open", Open("t.jsonl:1", "who", ("Ann", "Ann Lee"))),
        ("code", "open", CODE),
        ("problem", "open", Open("t.jsonl:1", "1+1?", ("2",), "math")),
    ],
)
def test_kinds(name, kind, wanted, tmp_path):
    [task] = read_tasks(lines(tmp_path / "t.jsonl", ROWS[name]))
    assert (task.kind, task.items) == (kind, (wanted,))


@pytest.mark.parametrize("answer", ["72", 72, "Leeds", ["Leeds", "the city of Leeds"]])
def test_a_problem_without_a_verifier_is_graded_as_in_training(answer, tmp_path):
    path = lines(tmp_path / "t.jsonl", {"prompt": "Which?", "answer": answer, "aliases": ["x"]})
    [problem], [task] = read_problems(path), read_tasks(path)
    [item] = task.items
    assert (item.verifier, item.answers) == (
        problem.verifier,
        (problem.answer, *problem.meta["aliases"]),
    )


def test_one_alias_as_a_text_is_one_answer(tmp_path):
    row = {"question": "Capital?", "answer": {"value": "Paris", "aliases": "City"}}
    [task] = read_tasks(lines(tmp_path / "t.jsonl", row))
    assert task.items[0].answers == ("Paris", "City")


def test_line_separators_inside_strings_end_no_row(tmp_path):
    row = CHOICE | {"query": "a\u2028b\u0085c\x0bd"}
    [task] = read_tasks(lines(tmp_path / "t.jsonl", row, row))
    assert [i.where for i in task.items] == ["t.jsonl:1", "t.jsonl:2"]
    assert task.items[0].contexts == ("a\u2028b\u0085c\x0bd",)


def test_bad_rows_are_counted_and_too_many_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    good = [json.dumps(CHOICE)] * 60
    bad = ['{"query": 1', "[]", json.dumps(CHOICE | {"gold": 2}), json.dumps(CHOICE | {"gold": 2})]
    path.write_text("\n".join([*good, *bad[:3]]) + "\n\n")
    [task] = read_tasks(path)
    assert dict(task.skipped) == {
        "no JSON": (1, "t.jsonl:61"),
        "no JSON object": (1, "t.jsonl:62"),
        "gold is no number below that of the options (2)": (1, "t.jsonl:63"),
    }
    path.write_text("\n".join([*good[:10], *bad]))
    with pytest.raises(BadInput, match="4 rows cannot be used.*t.jsonl:11"):
        read_tasks(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"text": "a"}\n', "no known kind of task; it has text"),
        (b"", "no usable row"),
        (b"\xff\xfe\n", "no usable row"),
        (b'{"query": "a", "choices": ["b", true], "gold": 0}\n', "choices holds what is no text"),
    ],
)
def test_what_is_no_task_is_refused(content, says, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=says):
        read_tasks(path)
    with pytest.raises(BadInput, match="not a task file"):
        read_tasks(tmp_path / "t.csv")


def test_quizzes_hold_two_tasks_and_a_split(tmp_path):
    row = {"kind": "open", "topic": "fact", "query": "Who?", "answer": "Ann", "aliases": ["Ann"]}
    row |= {"choices": [], "gold": -1, "fact_id": "e1", "exposure": 3, "split": "test"}
    choice = row | {"kind": "choice", "choices": ["Ann", "Ben"], "gold": 0}
    path = tmp_path / "quizzes.parquet"
    pq.write_table(pa.Table.from_pylist([row, choice, choice | {"split": "train"}]), path)
    asked, chosen = read_tasks(path, split="test")
    assert (asked.name, asked.kind, len(asked.items)) == ("quizzes: fact", "open", 1)
    assert (chosen.name, len(chosen.items), chosen.chance) == ("quizzes: choice", 1, 0.5)
    assert asked.items[0].meta == {"fact_id": "e1", "exposure": 3, "topic": "fact"}
    assert len(read_tasks(path)[1].items) == 2
    unnamed = {k: v for k, v in row.items() if k != "kind"}
    rows = lines(tmp_path / "q.jsonl", *[row] * 19, unnamed)
    assert len(read_tasks(rows)[0].items) == 20
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadInput, match="damaged parquet"):
        read_tasks(path)


def test_files_of_words(tmp_path):
    web = tmp_path / "web"
    web.mkdir()
    for name in ("truth.parquet", "quizzes.parquet", "problems.parquet"):
        (web / name).touch()
    a = lines(tmp_path / "a.jsonl", CHOICE)
    assert [p.name for p in find_files((str(web),))] == ["quizzes.parquet", "problems.parquet"]
    assert find_files((str(a), str(tmp_path / "*.jsonl"))) == [a]
    with pytest.raises(NoInput, match="no file matches"):
        find_files((str(tmp_path / "*.txt"),))
    with pytest.raises(NoInput, match="no such file"):
        find_files((str(tmp_path / "b"),))


def test_centred_accuracy():
    assert core.centred(0.25, 0.25) == 0 and core.centred(1, 0.62) == 1
    assert core.centred(0.5, 0.25) == pytest.approx(1 / 3)
    assert core.chance("boolq", [2]) == 0.62 and core.chance("x", [2, 4]) == 0.375


def test_real_files_are_read(shared):
    """Every file of tasks that others made, every row of it."""
    post = shared / "data" / "post"
    folders = ("core_eval", "knowledge", "gsm8k", "code")
    files = find_files(tuple(str(post / name) for name in folders))
    assert len(files) > 50
    rows = 0
    for path in files:
        for task in read_tasks(path):
            assert not task.skipped, path
            rows += len(task.items)
    assert rows > 50_000
