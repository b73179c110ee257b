"""llmctl probe: a model and facts become conversations that llmctl sft reads."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmctl.core.errors import BadInput, Mismatch, NoInput, UsageError
from llmctl.data.conversations import parse_source, read_conversations
from llmctl.pipeline import run
from llmctl.stages.probe import ProbeConfig

FACTS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model that chats."""
    import torch

    from llmctl.model.config import ModelConfig
    from llmctl.model.hf import save_model
    from llmctl.model.transformer import Transformer
    from llmctl.tokenizer.chat import with_chat
    from llmctl.tokenizer.train import train

    torch.set_num_threads(1)
    own = with_chat(train(["where was Ann born ? Ann comes from Bath ."] * 9, 384))
    path = tmp_path_factory.mktemp("models") / "m"
    shape = {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_kv_heads": 1, "head_dim": 8}
    config = ModelConfig(
        family="qwen3", vocab_size=own.vocab_size, d_ff=32, max_seq_len=256, **shape
    )
    net = Transformer(config)
    net.init_weights(1)
    save_model(net, path)
    own.save(path)
    return path


@pytest.fixture
def web(tmp_path):
    """Facts as llmctl synth writes them; every second subject is held out."""
    folder = tmp_path / "web"
    folder.mkdir()
    rows = [
        {
            "fact_id": f"e{i}",
            "subject": f"Ann {i}",
            "value": "Bath",
            "exposure": 30 * (i % 2),
            "prompts": [f"Ann {i} comes from"],
            "questions": [f"Where was Ann {i} born?", f"Where does Ann {i} come from?"],
            "aliases": ["Bath"],
        }
        for i in range(FACTS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "facts.parquet")
    quizzes = [
        {"fact_id": f"e{i}", "split": "train" if i < FACTS // 2 else "test"} for i in range(FACTS)
    ]
    pq.write_table(pa.Table.from_pylist([*quizzes, {"fact_id": None}]), folder / "quizzes.parquet")
    return folder


def probe(model, web, out, **settings):
    plain = {"web": str(web), "refusal_share": 1.0, "max_tokens": 4, "workers": 1}
    return run("probe", model, out=out, device="cpu", **(plain | settings))


def test_a_model_that_knows_nothing_learns_to_say_so(model, web, tmp_path, capsys):
    made = probe(model, web, tmp_path / "a")
    assert made.kind == "conversations"
    found = read_conversations(made.path, max_bad=0)
    assert len(found.rows) == 2 * FACTS // 2  # a row for each question of the train facts
    assert {row.extra["fact_id"] for row in found.rows} == {"e0", "e1", "e2", "e3"}
    assert {row.extra["kind"] for row in found.rows} == {"unknown"}
    assert len(parse_source(f"{made.path}#kind=unknown").select(found)) == len(found.rows)
    asked = [json.loads(line) for line in open(made.path / "asked.jsonl")]
    assert len(asked) == FACTS and all(len(row["replies"]) == 5 for row in asked)
    assert made.stats["unknown"] == FACTS and made.stats["rows_unknown"] == FACTS
    said = capsys.readouterr().err
    assert "held out, stated 30 times" in said and "8 refusals (100%" in said
    again = probe(model, web, tmp_path / "b", against=str(made.path))
    assert (again.path / "conversations.parquet").read_bytes() == (
        made.path / "conversations.parquet"
    ).read_bytes()
    assert [row["earlier"] for row in again.stats["against"]] == ["unknown", "unknown"]


def test_refusals_alone_are_no_output_and_the_replies_are_kept(model, web, tmp_path):
    out = tmp_path / "a"
    with pytest.raises(Mismatch, match="8 unknown.*raise refusal_share.*kept in .*/asked.jsonl"):
        probe(model, web, out, refusal_share=0.5)
    rows = [json.loads(line) for line in open(out / "asked.jsonl")]
    assert len(rows) == FACTS and all(len(row["replies"]) == 5 for row in rows)
    assert "8 refusals left out" in (out / "report.txt").read_text()


def test_replies_outlive_a_judge_that_cannot_judge(model, web, tmp_path, capsys):
    out = tmp_path / "a"
    with pytest.raises(NoInput):
        probe(model, web, out, judge=str(tmp_path / "missing"))
    kept = out / "state" / "replies.jsonl"
    assert f"kept in {kept}" in " ".join(capsys.readouterr().err.split())
    rows = [json.loads(line) for line in open(kept)]
    assert len(rows) == FACTS and all(len(row["replies"]) == 5 for row in rows)


def test_replies_that_are_there_are_not_asked_for_again(model, web, tmp_path, monkeypatch):
    def fails(*args, **more):
        raise RuntimeError("the judge is gone")

    whole, out = probe(model, web, tmp_path / "whole"), tmp_path / "a"
    with monkeypatch.context() as killed:
        killed.setattr("llmctl.stages.probe._judge", fails)
        with pytest.raises(RuntimeError, match="the judge is gone"):
            probe(model, web, out)
    kept = out / "state" / "replies.jsonl"
    good = kept.read_text()
    with monkeypatch.context() as silent:
        silent.setattr("llmctl.evals.probe.ask_facts", fails)
        part, other, words = good[:-9], good.replace('"e1"', '"e9"'), good.replace("Ann", "Al")
        for bad in (part, other, words):
            kept.write_text(bad)  # not of these facts: asked again
            with pytest.raises(RuntimeError, match="the judge is gone"):
                probe(model, web, out)
        kept.write_text(good)
        made = probe(model, web, out)
    assert made.id == whole.id and not kept.exists()


def test_an_earlier_probe_is_looked_for_before_anything_is_asked(model, web, tmp_path, capsys):
    with pytest.raises(NoInput, match="--against names"):
        probe(model, web, tmp_path / "a", against=str(web))
    assert "replies" not in capsys.readouterr().err


def test_a_probe_of_another_web_is_refused_before_anything_is_asked(
    model, web, tmp_path, monkeypatch
):
    row = {"fact_id": "e0", "value": "Rome", "questions": ["Who?"], "verdict": "known"}
    (tmp_path / "asked.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr("llmctl.evals.probe.ask_facts", None)
    with pytest.raises(Mismatch, match="of the 8 facts here that probe asked about none"):
        probe(model, web, tmp_path / "a", against=str(tmp_path))


def test_where_facts_come_from_has_to_be_said(model, tmp_path):
    with pytest.raises(NoInput, match="name one with --web, or ask about real text"):
        run("probe", model, out=tmp_path / "a")
    with pytest.raises(NoInput, match="no facts.parquet"):
        probe(model, tmp_path, tmp_path / "a")


def test_a_model_that_writes_no_question_is_refused(model, tmp_path):
    text = "Ann Lee was born in Bath in 1847 and wrote about rivers, mills and old roads. " * 3
    (tmp_path / "docs.jsonl").write_text(json.dumps({"text": text}) + "\n")
    settings = {"documents": str(tmp_path / "docs.jsonl"), "asker": str(model), "workers": 1}
    with pytest.raises(BadInput, match="no usable question in 1"):
        run("probe", model, out=tmp_path / "a", device="cpu", **settings)


class Asker(BaseHTTPRequestHandler):
    """Writes a question from each passage, and judges every reply to be right."""

    seen: list

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        self.seen.append(text)
        name = text.rpartition("Passage:\n")[2].split(" was born")[0]
        reply = json.dumps({"question": f"Where was {name} born?", "answer": "Bath"})
        reply = "Yes" if "Reply:" in text else reply
        data = json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def test_real_text_with_an_endpoint_that_asks_and_judges(model, tmp_path):
    people = [f"Ann Lee{'e' * i}" for i in range(20)]
    rest = "was born in Bath in 1847 and wrote about rivers, mills and old roads there, " * 2
    text = "".join(json.dumps({"text": f"{name} {rest}as she said."}) + "\n" for name in people)
    (tmp_path / "docs.jsonl").write_text(text)
    handler = type("Handler", (Asker,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/v1"
        made = run(
            "probe",
            model,
            out=tmp_path / "a",
            device="cpu",
            documents=str(tmp_path / "docs.jsonl"),
            asker=address,
            asker_model="big",
            judge=address,
            judge_model="big",
            max_tokens=8,
            workers=1,
        )
        server.shutdown()
    asked = [json.loads(line) for line in open(made.path / "asked.jsonl")]
    assert len(asked) == 20 and made.stats["asker"] == "big at 127.0.0.1"
    assert {row["questions"][0] for row in asked} == {f"Where was {n} born?" for n in people}
    assert 0 < sum(row["split"] == "test" for row in asked) < 12
    rows = read_conversations(made.path, max_bad=0).rows
    known = [row for row in rows if row.extra["kind"] == "known"]  # any reply that is not empty
    assert known and all(row.messages[1]["content"] for row in known)
    assert (made.path / "state" / "asker.jsonl").is_file()


@pytest.mark.parametrize(
    "settings",
    [
        {"samples": 0},
        {"known_threshold": 6},
        {"unknown_at_most": 3},
        {"refusal_share": 1.5},
        {"documents": "a"},
        {"asker": "a"},
        {"documents": "a", "asker": "b", "web": "c"},
        {"refusals": (" ",)},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UsageError):
        ProbeConfig(**settings)
