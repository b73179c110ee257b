"""llmctl tokenize: one line on stdout, bins that others open, refusals before any work."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmctl.artifacts.store import open_artifact
from llmctl.core.errors import BadInput, Mismatch, NoInput, UsageError
from llmctl.data.bins import TokenBins
from llmctl.pipeline import Request, dry_run
from llmctl.pipeline import run as run_stage
from llmctl.stages.tokenize import TokenizeConfig
from llmctl.tokenizer.bpe import Tokenizer

WORDS = "the river runs past mill Dunmore 1847 naïve 漢字 don't <|endoftext|> \n".split(" ")


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    draw = random.Random(5)
    texts = [f"{i} " + " ".join(draw.choices(WORDS, k=300)) for i in range(1000)]
    path = tmp_path_factory.mktemp("docs") / "docs.parquet"
    pq.write_table(pa.table({"text": texts, "url": ["u"] * len(texts)}), path, row_group_size=50)
    return path


@pytest.fixture(scope="module")
def made(docs, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "tokens"
    return run_stage("tokenize", docs, out=out, vocab_size=384)


def test_the_artifact_says_what_training_needs(made, docs):
    stats = made.stats
    bins = {split: TokenBins.open(made.path, split) for split in ("train", "val")}
    assert stats["train_tokens"] == bins["train"].n_tokens
    assert stats["val_tokens"] == bins["val"].n_tokens > 0
    assert stats["vocab_size"] == bins["train"].vocab_size == 384
    text = sum(len(t.encode()) for t in pq.read_table(docs)["text"].to_pylist())
    assert stats["train_bytes"] + stats["val_bytes"] == text
    assert stats["documents"] == 1000
    assert made.kind == "tokens" and {p.name for p in made.files()} == {
        *("train-00000.bin", "train-00000.idx", "val-00000.bin", "val-00000.idx"),
        *("tokenizer.json", "tokenizer_config.json"),
    }


def test_transformers_opens_the_folder_with_our_ids(made):
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(made.path), Tokenizer.load(made.path)
    bins = TokenBins.open(made.path, "train", tokenizer_hash=ours.hash)
    ids = bins.read(0, int(bins.doc_starts[1])).tolist()
    text = theirs.decode(ids[1:])
    assert ids[0] == theirs.eos_token_id and text.startswith("0 ")
    assert ours.encode(text) == ids[1:]
    plain = text.replace("<|endoftext|>", "")
    assert theirs(plain)["input_ids"] == ours.encode(plain)


def test_a_given_tokenizer_and_a_second_run(made, docs, tmp_path, llmctl):
    words = ["tokenize", docs, "--tokenizer", made.path, "-o", tmp_path / "out"]
    done = llmctl(*words)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out'}\n"), done.stderr
    assert "bytes a token" in done.stderr and "MB/s" in done.stderr
    for split in ("train", "val"):
        name = f"{split}-00000.bin"
        assert (tmp_path / "out" / name).read_bytes() == (made.path / name).read_bytes()
    again = llmctl(*words)
    assert again.stdout == done.stdout and "already there" in again.stderr


def test_show_prints_ids_and_makes_nothing(made, tmp_path, llmctl):
    done = llmctl("tokenize", made.path, "--show", "don't <|endoftext|>")
    ours = Tokenizer.load(made.path)
    ids = [int(line.split("\t")[0]) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and ids == ours.encode("don't <|endoftext|>")
    assert "tokens" in done.stderr and not list(tmp_path.iterdir())


def test_show_paints_on_a_terminal(made):
    from llmctl.tokenizer import show

    ours = Tokenizer.load(made.path)
    text = show.painted(ours, "the river\x1b[2J")
    assert text.count("\x1b[30;48;5;") == 2 * len(ours.encode("the river\x1b[2J"))
    assert "\x1b[2J" not in text and "\\x1b" in text
    assert show.plain(ours, "\n漢").startswith(f"{ours.encode(chr(10))[0]}\t'\\n'")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"vocab_size": 70_000}, Mismatch, "70,000 ids does not fit uint16.*--dtype uint32"),
        ({"tokenizer": "cl100k"}, Mismatch, "100,277 ids does not fit uint16.*--dtype uint32"),
        ({"vocab_size": 256}, UsageError, "vocab_size=256"),
        ({"val_fraction": 0.9}, UsageError, "val_fraction=0.9"),
        ({"shard_tokens": 10}, UsageError, "shard_tokens=10"),
        ({"workers": -1}, UsageError, "workers=-1"),
    ],
)
def test_nonsense_is_refused_before_any_work(settings, error, message):
    with pytest.raises(error, match=message):
        TokenizeConfig(**settings)


def test_uint32_is_written_on_request(made, docs, tmp_path):
    out = tmp_path / "out"
    run_stage("tokenize", docs, out=out, tokenizer=str(made.path), dtype="uint32")
    wide, narrow = TokenBins.open(out, "train"), TokenBins.open(made.path, "train")
    assert wide.dtype.itemsize == 4
    assert (wide.read(0, wide.n_tokens) == narrow.read(0, narrow.n_tokens)).all()


def test_wrong_inputs_are_refused_by_name(made, docs, tmp_path):
    cases = [
        (made.path, {}, Mismatch, "a tokens artifact, but tokenize reads documents"),
        (docs, {"text_column": "body"}, BadInput, "no column 'body'; it has text, url"),
        (docs, {"tokenizer": "no/such"}, NoInput, "no such file"),
        (tmp_path / "missing", {}, NoInput, "no such file or folder"),
    ]
    for path, settings, error, message in cases:
        with pytest.raises(error, match=message):
            run_stage("tokenize", path, out=tmp_path / "out", force=True, **settings)
    (tmp_path / "e.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(BadInput, match="no text to train"):
        run_stage("tokenize", tmp_path / "e.jsonl", out=tmp_path / "out", force=True)
    with pytest.raises(BadInput, match="no document with text"):
        run_stage(
            *("tokenize", tmp_path / "e.jsonl"),
            out=tmp_path / "out",
            force=True,
            tokenizer=str(made.path),
        )


def test_a_tokenizer_changed_between_runs_is_refused(docs, tmp_path, monkeypatch):
    from llmctl.data import encode

    def stopped(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, "encode_documents", stopped)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_stage("tokenize", docs, out=out, vocab_size=384)
    monkeypatch.undo()
    path = out / "tokenizer.json"
    path.write_text(path.read_text().replace("1.0", "1.1", 1))
    with pytest.raises(Mismatch, match="changed since this run began"):
        run_stage("tokenize", docs, out=out, vocab_size=384)


def test_kill_9_and_a_rerun_give_the_same_bytes(made, docs, tmp_path):
    """Killed when a few shards are there; the workers die too, so the rerun gets the lock."""
    words = [sys.executable, "-m", "llmctl", "tokenize", str(docs), "--tokenizer", str(made.path)]
    words += ["--set", "shard_tokens=20000", "--workers", "2", "-o"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    subprocess.run([*words, str(whole)], check=True, capture_output=True)
    slow = subprocess.Popen(
        [*words, str(out), "--encoder", "tokenizers"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (out / "train-00001.bin").exists() and slow.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(slow.pid, signal.SIGKILL)
    slow.wait()
    assert not (out / "manifest.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in out.glob("train-*.bin")}
    done = subprocess.run([*words, str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(p.stat().st_mtime_ns == at for p, at in kept.items() if p.name < "train-00002")
    assert open_artifact(out, ("tokens",)).id == open_artifact(whole, ("tokens",)).id


def test_dry_run_writes_nothing(docs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dry_run(Request(stage="tokenize", inputs=[str(docs)]))
    said = capsys.readouterr().err
    assert "1,000" in said and "tokens, about" in said and "time, about" in said
    assert not list(tmp_path.iterdir())


def test_importing_the_stage_imports_nothing_heavy():
    code = (
        "import sys, llmctl.stages.tokenize; "
        "print([m for m in ('numpy','pyarrow','torch','tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
