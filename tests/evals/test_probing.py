"""A probe: who knows what, what is written, and that questions and endpoints are checked."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llmctl.core.errors import BadInput, IoError_, Mismatch, Refused, UsageError
from llmctl.evals import endpoint, probe_report
from llmctl.evals.endpoint import Endpoint, Journal
from llmctl.evals.probe import REFUSALS, Fact, Found, ask_facts, conversations, verdict
from llmctl.evals.probe_judge import judge_by_match, judge_by_model
from llmctl.evals.probe_text import checked, draw_passages, write_questions
from llmctl.evals.tasks.match import is_refusal

PASSAGE = "Ann Lee was born in Bath in 1847. She wrote about rivers, mills and the old roads there."
GOOD = {"question": "Where was Ann Lee born?", "answer": "Bath"}


def found(fact_id, right, n=5, *, split="train", questions=("Who is it?",), replies=None, **more):
    fact = Fact(fact_id, questions, ("Bath", "the Bath"), split, **more)
    return Found(fact, list(questions) * n, replies or ["Bath"] * n, [i < right for i in range(n)])


def write(rows, **settings):
    plain = {"known_at": 3, "unknown_at": 1, "refusal_share": 0.5, "phrasings": REFUSALS}
    return conversations(rows, **(plain | {"own_words": True, "seed": 1} | settings))


def test_verdicts():
    assert [verdict(n, 3, 1) for n in range(5)] == [
        "unknown", "unknown", "unsure", "known", "known",
    ]  # fmt: skip


def test_every_refusal_of_ours_is_one():
    assert all(is_refusal(text) for text in REFUSALS)


def test_known_facts_are_answered_unknown_ones_refused_held_out_ones_left():
    rows = [found("a", 5), found("b", 2), found("c", 0), found("d", 5, split="test")]
    written = write(rows)
    assert [(r["fact_id"], r["kind"], r["right"]) for r in written.rows] == [
        ("a", "known", 5),
        ("c", "unknown", 0),
    ]
    known, unknown = (r["messages"] for r in written.rows)
    assert known[0] == {"role": "user", "content": "Who is it?"} and known[1]["content"] == "Bath"
    assert unknown[1]["content"] in REFUSALS


def test_answers_are_a_sentence_or_the_models_own_words():
    a = found("a", 5, prompts=("Ann comes from",))
    assert write([a]).rows[0]["messages"][1]["content"] == "Ann comes from Bath."
    said = ["In Bath.", "Bath!", "Bath!", "Paris", "In Bath"]
    own = Found(a.fact.__class__("b", ("Q?",), ("bath",)), ["Q?"] * 5, said, [1, 1, 1, 0, 1])
    assert write([own]).rows[0]["messages"][1]["content"] == "Bath!"
    assert write([own], own_words=False).rows[0]["messages"][1]["content"] == "Bath."


def test_a_refusal_may_begin_as_an_answer_would():
    phrasings = ("{lead} … I don't know.",)
    led, plain = found("a", 0, prompts=("Ann comes from",)), found("b", 0)
    rows = write([led, plain, found("k", 5)], phrasings=phrasings, refusal_share=1.0).rows
    said = [row["messages"][1]["content"] for row in rows]
    assert said[0] == "Ann comes from … I don't know." and is_refusal(said[0])
    assert said[1] in REFUSALS  # a fact of real text has no such beginning


@pytest.mark.parametrize(("share", "refusals"), [(0.5, 4), (0.2, 1), (0.0, 0), (1.0, 30)])
def test_refusals_are_at_most_their_share(share, refusals):
    rows = [found(f"k{i}", 5) for i in range(4)] + [found(f"u{i}", 0) for i in range(30)]
    written = write(rows, refusal_share=share)
    assert written.count("unknown") == refusals and written.count("known") == 4
    assert written.left_out == 30 - refusals
    assert written == write(rows, refusal_share=share)


def test_replies_are_judged_by_alias_and_a_completion_has_to_begin_with_it():
    asked = ["Who?", "Who?", "Who?", "Ann comes from", "Ann comes from"]
    said = ["It is Bath.", "I don't know, Bath?", "Paris", "Bath and", "near Bath"]
    one = Found(Fact("a", ("Who?",), ("Bath",), prompts=("Ann comes from",)), asked, said)
    judge_by_match([one])
    assert one.verdicts == [True, False, False, True, False]
    assert (one.right, one.refused) == (2, 1)


class Said:
    """A respondent that says what it is told to."""

    name = "said"

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    def reply(self, prompts, *, max_tokens, seed=0, on_reply=lambda: None):
        self.asked += prompts
        return self.replies[: len(prompts)]


def test_a_model_judges_each_pair_once_and_no_refusal():
    said = ["Bath", "Bath", "I don't know.", "", "Paris"]
    one = Found(Fact("a", ("Who?",), ("Bath",)), ["Who?"] * 5, said)
    judge = Said("Yes.", "hm")
    assert judge_by_model([one], judge, seed=1) == 1
    assert one.verdicts == [True, True, False, False, False] and len(judge.asked) == 2


def test_facts_are_asked_in_turn_and_the_seed_decides(subject):
    facts = [Fact("a", ("Who?", "Where?"), ("Bath",)), Fact("b", ("yes or no ?",), ("yes",))]
    plain = {"samples": 3, "temperature": 1.0, "max_tokens": 4}
    one = ask_facts(subject("chat"), facts, seed=1, **plain)
    assert one[0].asked == ["Who?", "Where?", "Who?"] and len(one[1].replies) == 3
    assert [f.replies for f in one] == [
        f.replies for f in ask_facts(subject("chat"), facts, seed=1, **plain)
    ]
    assert [f.replies for f in one] != [
        f.replies for f in ask_facts(subject("chat"), facts, seed=2, **plain)
    ]


def test_tables_and_a_probe_against_an_earlier_one(tmp_path):
    earlier = [found("a", 5, split="test", group="often"), found("b", 0, group="never")]
    path = tmp_path / probe_report.ASKED
    path.write_text("".join(json.dumps(f.row(3, 1)) + "\n" for f in earlier))
    silent = {"replies": ["I don't know."] * 5}
    now = [found("a", 1, split="test", replies=["Bath", *["I don't know."] * 4])]
    now.append(found("b", 0, **silent))
    known, unknown = probe_report.against(now, probe_report.read_earlier(tmp_path))
    assert (known["earlier"], known["refused"], known["mostly_refused"]) == ("known", 0.8, 1)
    assert (unknown["earlier"], unknown["refused"], unknown["wrong"]) == ("unknown", 1.0, 0.0)
    assert "trained on" in probe_report.against_table([known, unknown])
    rows = probe_report.rows_by_group(earlier, 3, 1)
    assert [(r["split"], r["known"], r["unknown"]) for r in rows] == [
        ("train", 0, 1),
        ("test", 1, 0),
    ]
    assert "held out, often" in probe_report.table(rows, 5)


def test_facts_of_another_web_are_no_earlier_ones(tmp_path, capsys):
    """Ids are e0, e1, … in every web; values and questions tell facts apart."""
    here = found("e0", 5)
    others = [found("e0", 5, questions=("Who else?",)), found("e0", 5)]
    others[1].fact = Fact("e0", ("Who is it?",), ("Rome",))
    path = tmp_path / probe_report.ASKED
    path.write_text("".join(json.dumps(f.row(3, 1)) + "\n" for f in others))
    earlier = probe_report.read_earlier(tmp_path)
    assert probe_report.against([here], earlier) == []
    with pytest.raises(Mismatch, match="of the 1 facts here that probe asked about none"):
        probe_report.check_same([here.fact], earlier)
    probe_report.check_same([here.fact, others[1].fact], earlier)
    assert "1 of 2 facts are not among those" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"answer": "Paris"}, "does not stand in the passage"),
        ({"answer": "Ann Lee"}, "stands in the question"),
        ({"answer": ""}, "empty or too long"),
        ({"answer": " ".join(["Bath"] * 11)}, "empty or too long"),
        ({"answer": 7}, "no text"),
        ({"question": "Where was she born according to the text?"}, "leans"),
        ({"question": "Ann Lee was born in"}, "ends in"),
        ({"question": "x" * 300 + "?"}, "sensible length"),
    ],
)
def test_questions_are_checked(change, why):
    reply = f"Sure!\n```json\n{json.dumps(GOOD | change)}\n```"
    if why is None:
        assert checked(reply, PASSAGE) == (GOOD["question"], "Bath")
    else:
        with pytest.raises(ValueError, match=why):
            checked(reply, PASSAGE)


@pytest.mark.parametrize("reply", ["", "Bath", "{", '{"question": ', "[1]{", "{}", "{" * 5000])
def test_replies_that_hold_no_question(reply):
    with pytest.raises(ValueError):
        checked(reply, PASSAGE)


def test_passages_do_not_depend_on_order_and_questions_are_counted(tmp_path):
    texts = [f"{PASSAGE} The number {i} stands on the gate of the mill, as all know." for i in
             range(9)]  # fmt: skip
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    a.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    b.write_text("".join(json.dumps({"text": t}) + "\n" for t in [*reversed(texts), "short"]))
    drawn = draw_passages(a, 4, 1)
    assert len(drawn) == 4 and drawn == draw_passages(b, 4, 1) != draw_passages(a, 4, 2)
    asker = Said(*[json.dumps(GOOD)] * 2, "no", json.dumps(GOOD | {"answer": "Rome"}))
    facts, refused = write_questions(asker, drawn, held_out=0.0, seed=1)
    assert [(f.questions, f.answers, f.split) for f in facts] == [
        ((GOOD["question"],), ("Bath",), "train")
    ]
    assert refused == Counter(
        {
            "the same question twice": 1,
            "no JSON": 1,
            "the answer does not stand in the passage": 1,
        }
    )
    a.write_text('{"text": "too short"}\n')
    with pytest.raises(BadInput, match="no paragraph"):
        draw_passages(a, 4, 1)


class Server(BaseHTTPRequestHandler):
    """Speaks the protocol; what it does depends on the path. log: requests seen."""

    log: list

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send({"data": [{"id": "little"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.log.append((self.path, self.headers.get("Authorization"), body))
        kind = self.path.split("/")[1]
        if kind == "busy" and len(self.log) < 3:
            return self.send({"error": "busy"}, 429, {"Retry-After": "0"})
        if kind == "never":
            return self.send({}, 503)
        if kind == "away":
            return self.send({}, 302, {"Location": "http://127.0.0.1:1/"})
        if kind == "wrong":
            return self.send({"error": {"message": "no such model\x1b[2J"}}, 404)
        if kind == "large":
            return self.send({"x": "y" * 5000})
        if kind == "torn":
            return self.wfile.write(b"no HTTP at all\r\n\r\n")
        if kind == "halved" and len(self.log) < 3:  # a chunk that is announced and does not come
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{")
            return None
        if kind == "odd":
            return self.send({"choices": []})
        text = body["messages"][-1]["content"]
        self.send({"choices": [{"message": {"role": "assistant", "content": f"{text}!"}}]})

    def send(self, value, code=200, headers=()):
        data = json.dumps(value).encode()
        self.send_response(code)
        for name, word in dict(headers).items():
            self.send_header(name, word)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    """(base address, requests seen)."""
    log = []
    handler = type("Handler", (Server,), {"log": log})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", log
        running.shutdown()


def ask_at(base, path, texts=("a",), **more):
    asker = Endpoint(f"{base}/{path}", "m", sleep=lambda s: None, timeout=5, **more)
    prompts = [[{"role": "user", "content": text}] for text in texts]
    return asker.reply(prompts, max_tokens=3, seed=1)


def test_an_endpoint_answers_in_order_with_the_key_and_once(server, tmp_path, monkeypatch):
    base, log = server
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    journal = tmp_path / "state" / "asker.jsonl"
    assert ask_at(base, "v1", "abc", journal=Journal(journal)) == ["a!", "b!", "c!"]
    assert {path for path, _, _ in log} == {"/v1/chat/completions"}
    assert {key for _, key, _ in log} == {"Bearer secret"}
    assert {(b["model"], b["temperature"], b["max_tokens"]) for _, _, b in log} == {("m", 0, 3)}
    with open(journal, "ab") as file:
        file.write(b'["torn')
    assert ask_at(base, "v1", "abcd", journal=Journal(journal)) == ["a!", "b!", "c!", "d!"]
    assert len(log) == 4 and b"secret" not in journal.read_bytes()
    assert Endpoint(f"{base}/v1").name == "little at 127.0.0.1"


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("never", IoError_, "no usable response in 4 tries"),
        ("away", Refused, "sends elsewhere"),
        ("wrong", UsageError, "404.*no such model"),
        ("large", BadInput, "more than"),
        ("torn", IoError_, "BadStatusLine"),
        ("odd", BadInput, "choices"),
    ],
)
def test_what_goes_wrong_at_an_endpoint(path, error, says, server, monkeypatch):
    monkeypatch.setattr(endpoint, "MAX_REPLY", 1000)
    with pytest.raises(error, match=says) as caught:
        ask_at(server[0], path)
    assert "\x1b" not in str(caught.value)


def test_a_busy_endpoint_is_asked_again(server):
    assert ask_at(server[0], "busy") == ["a!"] and len(server[1]) == 3


def test_half_a_response_is_asked_for_again(server):
    assert ask_at(server[0], "halved") == ["a!"] and len(server[1]) == 3


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("http://example.org/v1", Refused),  # a key in the clear
        ("ftp://example.org", UsageError),
        ("https://", UsageError),
        ("https://user:key@example.org", UsageError),
        ("https://example.org/?key=1", UsageError),
    ],
)
def test_addresses_that_are_refused(address, error, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(error) as caught:
        Endpoint(address, "m")
    assert "key@" not in str(caught.value)
