"""llmctl rm from the outside: what it writes, who opens it, what interruptions leave of it."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from llmctl.artifacts.store import Draft
from llmctl.core.config import payload_settings
from llmctl.core.errors import BadInput, Mismatch, NoInput, UsageError
from llmctl.core.files import sha256_file
from llmctl.model.reward import load_reward_model
from llmctl.pipeline import Request, dry_run, run
from llmctl.reward.scorer import Scorer
from llmctl.stages.rm import RmConfig
from llmctl.train.loop import Loop
from llmctl.train.metrics import read_metrics
from train import chats

FEW = dict(batch=6, save_steps=3, eval_steps=4, workers=1, lr=3e-3, dtype="fp32")
RUDE = ("go away", "not now")


def broken(*args):
    raise RuntimeError("killed")


def write_rankings(path, n=60, seed=0, split=False):
    """Rankings in which rude answers are worst and long ones no better."""
    rng, rows = random.Random(seed), []
    for i in range(n):
        good = [chats.say(rng, 8) for _ in range(2)]
        responses, ranks = [*good, rng.choice(RUDE)], [1, 1, 2]
        row = {
            "prompt": [{"role": "user", "content": f"{chats.say(rng, 6)} {i}"}],
            "responses": responses,
            "ranks": ranks,
        }
        if split:
            row["split"] = "test" if i % 3 == 0 else "train"
        rows.append(row)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random base model; a foreign folder."""
    return chats.base_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rankings(tmp_path_factory.mktemp("data") / "r.jsonl")


@pytest.fixture(scope="module")
def made(base, data, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("made") / "rm"
    return run("rm", base, out=out, data=(str(data),), epochs=3.0, **FEW)


def payload(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    return {f["name"]: f["sha256"] for f in manifest["files"] if not f.get("volatile")}


def test_a_base_model_learns_what_people_prefer(made):
    report = json.loads((made.path / "report.json").read_text())
    assert made.kind == "model" and made.stats["head"] == "reward"
    assert made.stats["accuracy"] == report["model"]["accuracy"] > 0.9
    assert report["model"]["pairs"] == 12 and report["held_out"] == "10% of the prompts"
    low, high = report["model"]["wilson95"]
    assert low < made.stats["accuracy"] <= high
    assert set(report["floors"]) == {"prefer the longer", "Bradley-Terry on words (TF-IDF)"}
    assert sum(b["pairs"] for b in report["by_length"].values()) == 12
    text = (made.path / "report.txt").read_text()
    assert "Agreement with people on 12 held-out pairs of 6 prompts" in text and "preferred" in text
    rows = read_metrics(made.path / "metrics.jsonl")
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # nothing is known yet
    assert {"accuracy", "loss"} <= rows[0].keys() and "val_accuracy" in rows[3]
    assert rows[-1]["val_accuracy"] == made.stats["accuracy"]


def test_transformers_opens_it_with_the_same_scores(made):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(made.path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.path)
    assert tokenizer.pad_token_id == theirs.config.pad_token_id != tokenizer.eos_token_id
    asked = [
        [{"role": "user", "content": "the river"}, {"role": "assistant", "content": text}]
        for text in ("ran past a mill where old men told tales", "go away", "a")
    ]
    batch = tokenizer.apply_chat_template(
        asked, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        wanted = theirs(**{k: batch[k] for k in ("input_ids", "attention_mask")}).logits[:, 0]
    scorer = Scorer.open(made.path)
    scorer.dtype = torch.float32
    found = scorer.score(asked)
    assert found == pytest.approx(wanted.tolist(), abs=1e-4)
    assert found[0] > found[1]


def test_held_out_scores_are_kept_and_are_the_model_s(made):
    rows = [json.loads(x) for x in (made.path / "held_out.jsonl").read_text().split("\n") if x]
    assert len(rows) == 6
    scorer = Scorer.open(made.path)
    scorer.dtype = torch.float32
    for row in rows:
        asked = [[*row["prompt"], {"role": "assistant", "content": r}] for r in row["responses"]]
        assert scorer.score(asked) == pytest.approx(row["scores"], abs=1e-3)


def test_a_chat_model_keeps_its_own_format_and_pad_is_not_its_end(tmp_path, data):
    """Its template ends turns with the token it pads with: the trap."""
    folder = chats.chat_model(tmp_path / "chat")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"pad_token": "<|im_end|>"}
    path.write_text(json.dumps(config))
    made = run("rm", folder, out=tmp_path / "rm", data=(str(data),), steps=2, **FEW)
    kept = json.loads((made.path / "tokenizer_config.json").read_text())
    assert kept["chat_template"] == config["chat_template"] and kept["pad_token"] != "<|im_end|>"
    shape = json.loads((made.path / "config.json").read_text())
    assert shape["architectures"] == ["LlamaForSequenceClassification"]
    assert shape["pad_token_id"] == load_reward_model(made.path).config.pad_id


def test_the_data_s_own_split_is_kept(tmp_path, base):
    data = write_rankings(tmp_path / "split.jsonl", 30, split=True)
    made = run("rm", base, out=tmp_path / "rm", data=(str(data),), steps=2, **FEW)
    assert made.stats["held_out_pairs"] == 20 and made.stats["rankings"] == 20
    rows = [json.loads(x) for x in (made.path / "held_out.jsonl").read_text().split("\n") if x]
    assert [int(r["where"].split(":")[1]) % 3 for r in rows] == [1] * 10


def test_folds_judge_every_ranking_once_and_then_train_on_all(tmp_path, base, data, monkeypatch):
    """Killed before its commit, the run trains no fold again."""
    settings = FEW | dict(out=tmp_path / "rm", data=(str(data),), folds=3, steps=3)
    with monkeypatch.context() as killed:
        killed.setattr(Draft, "commit", broken)
        with pytest.raises(RuntimeError, match="killed"):
            run("rm", base, **settings)
    monkeypatch.setattr(Loop, "_step", broken)
    made = run("rm", base, **settings)
    assert made.stats["held_out_pairs"] == 120 and made.stats["rankings"] == 60
    rows = [json.loads(x) for x in (made.path / "held_out.jsonl").read_text().split("\n") if x]
    assert len({r["where"] for r in rows}) == 60
    assert not list((made.path / "state").glob("fold-*/state"))


def test_nothing_is_asked_on_both_sides(tmp_path, base):
    """The same prompt in two trees: what is held out is not trained on."""
    rows = [
        {"tree": f"t{i}", "messages": [{"role": "user", "content": f"q{i // 2}"}], "ranked": [a, b]}
        for i, (a, b) in enumerate([("the river", "rain"), ("a mill", "bread")] * 10)
    ]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    made = run("rm", base, out=tmp_path / "rm", data=(str(path),), steps=1, val_fraction=0.3, **FEW)
    held = [json.loads(x) for x in (made.path / "held_out.jsonl").read_text().split("\n") if x]
    asked = {r["prompt"][0]["content"] for r in held}
    trained = 20 - sum(f"q{i // 2}" in asked for i in range(20))
    assert made.stats["rankings"] == trained < 20 - len(held)


def command(base, data, out, **settings):
    words = [sys.executable, "-m", "llmctl", "rm", str(base), "--data", str(data), "-o", str(out)]
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    return words


def test_killed_in_a_fold_or_after_and_rerun_gives_the_same_bytes(tmp_path, base, data):
    settings = FEW | dict(folds=2, steps=8)
    whole = run("rm", base, out=tmp_path / "whole", data=(str(data),), **settings)
    out = tmp_path / "killed"
    for folder in (out / "state" / "fold-2", out):
        child = subprocess.Popen(
            command(base, data, out, **settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and child.poll() is None:
            if len(read_metrics(folder / "metrics.jsonl")) >= 4:
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not (out / "manifest.json").exists()
    again = run("rm", base, out=out, data=(str(data),), **settings)
    assert payload(again.path) == payload(whole.path)
    assert sha256_file(out / "model.safetensors") == sha256_file(whole.path / "model.safetensors")
    steps = [row["step"] for row in read_metrics(out / "metrics.jsonl")]
    assert steps == list(range(1, 9))


def test_other_stages_refuse_a_reward_model(made, data, tmp_path):
    for stage, options in (("generate", dict(prompt=("x",))), ("rm", dict(data=(str(data),)))):
        with pytest.raises(Mismatch, match="reward or classifier"):
            run(stage, made.path, out=None if stage == "generate" else tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_nonsense_is_refused_before_anything_is_done(base, data, tmp_path):
    for bad in (dict(folds=1), dict(batch=0), dict(epochs=0.0), dict(val_fraction=1.0)):
        with pytest.raises(UsageError):
            RmConfig(**bad)
    with pytest.raises(UsageError, match="no text to sample"):
        RmConfig(sample_steps=2)
    with pytest.raises(NoInput):
        run("rm", base, out=tmp_path / "a", data=("absent.jsonl",))
    with pytest.raises(NoInput, match="web"):
        run("rm", base, out=tmp_path / "b")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(data.read_text().replace('"ranks": [1, 1, 2]', '"ranks": [1, 1]', 5))
    with pytest.raises(BadInput, match="5 of 60 rows"):
        run("rm", base, out=tmp_path / "c", data=(str(bad),))
    assert not (tmp_path / "c").exists()


def test_the_data_counts_by_content_not_by_name(tmp_path, data, base):
    assert payload_settings(RmConfig(data=("x",), workers=3)) == {"data": ["x"]}


def test_dry_run_says_what_it_would_take(base, data, capsys):
    dry_run(Request(stage="rm", inputs=[str(base)], overrides={"data": (str(data),)}))
    said = capsys.readouterr().err
    assert "60 rankings, 120 pairs" in said and "FLOPs" in said


def test_dry_run_counts_every_fold_and_the_optimizer_that_is_used(base, data, monkeypatch):
    told = []

    def estimate(shape, plan, *, muon, **more):
        told.append((plan.steps, muon))
        return []

    monkeypatch.setattr("llmctl.train.estimate.estimate", estimate)
    for settings in (
        {"steps": 8},
        {"steps": 8, "folds": 3},
        {"folds": 3},  # three of 40 rankings and one of 60, in batches of 16
        {"steps": 8, "optimizer": "muon"},
    ):
        overrides = {"data": (str(data),), **settings}
        dry_run(Request(stage="rm", inputs=[str(base)], overrides=overrides))
    assert told == [(8, False), (32, False), (round(180 / 16), False), (8, True)]
