"""llmctl eval --tasks: models side by side, every item kept; what it refuses."""

import json

import pytest

from llmctl.core.errors import BadInput, NoInput, Refused, UsageError
from llmctl.pipeline import Request, dry_run, run

CHOICES = [
    {"query": "the river runs", "choices": ["past a mill", "into", "Bath"], "gold": i % 3}
    for i in range(7)
]
OPEN = [{"question": "Who was born in Bath ?", "answer": ["Ann"]}]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two random folders: a/m, a base model, and b/m, which chats."""
    import torch

    from llmctl.model.config import ModelConfig
    from llmctl.model.hf import save_model
    from llmctl.model.transformer import Transformer
    from llmctl.tokenizer.chat import with_chat
    from llmctl.tokenizer.train import train

    torch.set_num_threads(1)
    tokenizer = train(["the river runs past a mill and into Bath. Question: Answer:"] * 9, 384)
    found = []
    for number, name in enumerate("ab"):
        path = tmp_path_factory.mktemp(name) / "m"
        own = with_chat(tokenizer) if name == "b" else tokenizer
        shape = {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_kv_heads": 1, "head_dim": 8}
        config = ModelConfig(
            family="qwen3", vocab_size=own.vocab_size, d_ff=32, max_seq_len=128, **shape
        )
        model = Transformer(config)
        model.init_weights(number)
        save_model(model, path)
        own.save(path)
        found.append(path)
    return found


@pytest.fixture
def tasks(tmp_path):
    for name, rows in (("choices", CHOICES), ("asked", OPEN)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


def evaluate(models, tasks, out, **settings):
    return run("eval", models, out=out, tasks=tasks, workers=1, device="cpu", **settings)


def test_models_side_by_side(models, tasks, capsys):
    words = (str(tasks / "*.jsonl"),)
    made = evaluate(models, words, tasks / "out", limit=5, answer_tokens=4)
    said = capsys.readouterr()
    assert said.out == "" and "a guess" in said.err and "guesses taken out" in said.err
    report = json.loads((made.path / "report.json").read_text())
    names = list(report["models"])
    assert names == [str(path) for path in models]  # both folders are called m
    by_task = {task["task"]: task for task in report["tasks"]}
    assert by_task["choices"]["items"] == 7 and by_task["choices"]["asked"] == 5
    for name in names:
        acc = by_task["choices"]["results"][name]["acc"]
        assert acc["low"] <= acc["value"] <= acc["high"]
        assert "right" in by_task["asked"]["results"][name]
    lines = (made.path / "items.jsonl").read_text().split("\n")[:-1]
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 2 * (5 + 1)
    choices = [row for row in rows if row["task"] == "choices"]
    assert [r["where"] for r in choices[:5]] == [r["where"] for r in choices[5:]]
    right = sum(row["answer"] == row["gold"] for row in choices[:5])
    assert by_task["choices"]["results"][names[0]]["acc"]["value"] == right / 5


def test_the_same_command_gives_the_same_bytes_and_other_tasks_another_run(models, tasks):
    path = tasks / "choices.jsonl"
    a = evaluate(models[:1], (str(path),), tasks / "a")
    b = evaluate(models[:1], (str(path),), tasks / "b")
    assert a.id == b.id
    path.write_text(json.dumps(CHOICES[0]) + "\n")
    with pytest.raises(Exception, match="holds another run"):
        evaluate(models[:1], (str(path),), tasks / "a")


def test_a_pattern_is_another_run_when_a_file_changes(models, tasks):
    words = (str(tasks / "choi*.jsonl"),)
    a = evaluate(models[:1], words, tasks / "a")
    named = evaluate(models[:1], (str(tasks / "choices.jsonl"),), tasks / "b")
    assert a.manifest["fingerprint"] == named.manifest["fingerprint"]
    assert evaluate(models[:1], words, tasks / "a").id == a.id
    (tasks / "choices.jsonl").write_text(json.dumps(CHOICES[0]) + "\n")
    with pytest.raises(Exception, match="holds another run"):
        evaluate(models[:1], words, tasks / "a")


@pytest.fixture
def nothing_asked(monkeypatch):
    """An item that is asked fails the test; code has no isolation here."""

    def refuse(*_, **__):
        raise AssertionError("a model was asked")

    monkeypatch.setattr("llmctl.evals.tasks.several.ask", refuse)
    monkeypatch.setattr("llmctl.evals.abilities.measure", refuse)
    monkeypatch.setattr("llmctl.sandbox.available", lambda: "none")


@pytest.mark.parametrize(
    ("words", "settings", "error", "says"),
    [
        (("choices", "code"), {}, Refused, "python-tests"),
        (("choices", "maths"), {}, UsageError, "no verifier 'maths'"),
        (("asked",), {"chat": True}, UsageError, "--chat needs a chat format"),
        (("asked",), {"tools": ("python",)}, Refused, "the python tool"),
        (("asked",), {"tools": ("search",)}, UsageError, "made from no documents"),
    ],
)
def test_what_a_later_task_or_model_needs_is_looked_at_first(
    models, tasks, words, settings, error, says, nothing_asked
):
    code = {"text": "Add.", "code": "def f(): 1", "test_list": ["assert f()"]}
    (tasks / "code.jsonl").write_text(json.dumps(code) + "\n")
    odd = {"prompt": "1+1?", "answer": "2", "verifier": "maths"}
    (tasks / "maths.jsonl").write_text(json.dumps(odd) + "\n")
    paths = tuple(str(tasks / f"{word}.jsonl") for word in words)
    order = models[::-1] if "chat" in settings else models[1:]  # the one that chats comes first
    with pytest.raises(error, match=says):
        evaluate(order, paths, tasks / "out", **settings)


def test_what_a_later_ability_needs_is_looked_at_first(models, tasks, nothing_asked):
    plain = {"out": tasks / "out", "web": str(tasks), "device": "cpu", "workers": 1}
    with pytest.raises(Refused, match="the python tool"):
        run("eval", models[1:], abilities=("known", "python"), **plain)
    with pytest.raises(NoInput, match="was not made from a documents artifact"):
        run("eval", models[1:], abilities=("known", "search"), **plain)
    with pytest.raises(AssertionError, match="a model was asked"):  # a base model takes no tools
        run("eval", models[:1], abilities=("known", "python"), **plain)


def test_what_is_refused(models, tasks):
    out = tasks / "out"
    with pytest.raises(UsageError, match="name the tasks"):
        run("eval", models, out=out)
    with pytest.raises(UsageError, match="training data is not known"):
        run("eval", models[:1], out=out)
    with pytest.raises(UsageError, match="--chat needs a chat format"):
        evaluate(models[:1], (str(tasks / "asked.jsonl"),), out, chat=True)
    with pytest.raises(UsageError, match="no tool 'pyton'; did you mean 'python'"):
        evaluate(models[1:], (str(tasks / "asked.jsonl"),), out, tools=("pyton,search",))
    (tasks / "other.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(BadInput, match="no known kind of task"):
        evaluate(models[:1], (str(tasks / "other.jsonl"),), out)
    made = evaluate(models[:1], (str(tasks),), out, answer_tokens=2)  # a folder: the others stay
    assert [t["task"] for t in json.loads((made.path / "report.json").read_text())["tasks"]] == [
        "asked",
        "choices",
    ]


def test_dry_run_counts_answers(models, tasks, capsys):
    settings = {"tasks": (str(tasks / "choices.jsonl"),), "limit": 3}
    dry_run(Request(stage="eval", inputs=[str(models[0])], overrides=settings))
    said = capsys.readouterr()
    assert said.out == "" and said.err.rstrip().endswith("9")  # 3 items, 3 choices each
