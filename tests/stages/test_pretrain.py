"""llmctl pretrain from the outside: what it writes, and what interruptions leave of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from llmctl.artifacts.store import open_draft
from llmctl.core.config import payload_settings
from llmctl.core.errors import Mismatch, UsageError
from llmctl.core.files import sha256_file
from llmctl.data.bins import BinWriter
from llmctl.pipeline import run
from llmctl.stages.pretrain import PretrainConfig, dry_run
from llmctl.tokenizer.train import train
from llmctl.train.metrics import read_metrics

FEW = dict(depth=1, seq_len=32, batch_tokens=256, steps=16, save_steps=3, workers=1)
FEW["optimizer"] = "adamw"  # works on sharded weights too
SMALL = [word for key, value in FEW.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A tokens artifact of 300 short documents."""
    folder = tmp_path_factory.mktemp("data") / "tokens"
    words = "the river ran past a mill where old men told tales of rain and bread".split()
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(words, rng.integers(5, 60))) for _ in range(300)]
    tokenizer = train(texts, 384)
    made = dict(stage="tokenize", version=1, fingerprint="t", settings={}, config={}, inputs=[])
    stats = {"vocab_size": tokenizer.vocab_size, "eot_id": tokenizer.eot_id}
    with open_draft(folder, "tokens", {**made, "argv": []}) as draft:
        tokenizer.save(folder)
        for split, part in (("val", texts[:30]), ("train", texts[30:])):
            writer = BinWriter(
                folder / f"{split}-00000.bin",
                dtype="uint16",
                vocab_size=tokenizer.vocab_size,
                eot_id=tokenizer.eot_id,
                tokenizer_hash=tokenizer.hash,
            )
            for ids in tokenizer.encode_batch(part):
                writer.append(np.array([tokenizer.eot_id, *ids], "<u2"), np.array([0]))
            writer.finish()
            stats[f"{split}_tokens"] = writer.n_tokens
            stats[f"{split}_bytes"] = sum(len(t.encode()) for t in part)
        draft.commit(stats)
    return folder


def command(*words):
    return [sys.executable, "-m", "llmctl", "pretrain", *map(str, words)]


def start(cwd, *words):
    return subprocess.Popen(
        command(*words),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for_step(folder, step):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        rows = read_metrics(folder / "metrics.jsonl")
        if rows and rows[-1]["step"] >= step:
            return
        time.sleep(0.01)
    raise TimeoutError(f"no step {step} within a minute")


@pytest.fixture(scope="module")
def straight(tokens, tmp_path_factory):
    """A run nobody disturbed."""
    root = tmp_path_factory.mktemp("straight")
    code, out, err = finish(start(root, tokens, "-o", "model", *SMALL))
    assert code == 0, err
    assert out == "model\n"
    return root / "model", err


def payload(folder):
    """The artifact's id: a hash over all files that must not vary."""
    return json.loads((folder / "manifest.json").read_text())["id"]


def test_stderr_is_readable_and_the_folder_complete(straight):
    folder, err = straight
    for words in ("parameters", "bits/byte", "grad norm", "16/16", "validation bits per byte"):
        assert words in err
    names = {p.name for p in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "loss.svg", "state"}
    rows = read_metrics(folder / "metrics.jsonl")
    assert [r["step"] for r in rows] == list(range(1, 17))
    assert rows[-1]["val_bits_per_byte"] < rows[0]["bits_per_byte"]
    assert rows[-1]["sample"].startswith("The")


@pytest.mark.parametrize("shape", ["qwen3", "llama", "gpt2"])
def test_transformers_opens_it_with_the_same_logits(tokens, tmp_path, shape):
    transformers = pytest.importorskip("transformers")
    import torch

    from llmctl.model.hf import load_model

    run(
        "pretrain",
        tokens,
        out=tmp_path / "m",
        shape=shape,
        **{**FEW, "steps": 3, "optimizer": "muon"},
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "m", dtype=torch.float32
    ).eval()
    ids = torch.arange(20)[None] % 300
    with torch.no_grad():
        difference = (theirs(ids).logits - load_model(tmp_path / "m")(ids)).abs().max()
    assert difference < 1e-4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert tokenizer.decode(tokenizer("the river")["input_ids"]) == "the river"


def test_kill_9_and_the_same_command_give_the_same_bytes(tokens, straight, tmp_path):
    folder = tmp_path / "model"
    for step in (2, 8):
        process = start(tmp_path, tokens, "-o", "model", *SMALL)
        wait_for_step(folder, step)
        process.send_signal(signal.SIGKILL)
        finish(process)
    code, _, err = finish(start(tmp_path, tokens, "-o", "model", *SMALL))
    assert code == 0, err
    assert sha256_file(folder / "model.safetensors") == sha256_file(
        straight[0] / "model.safetensors"
    )
    assert payload(folder) == payload(straight[0])


def test_sigterm_saves_and_exits_75(tokens, straight, tmp_path):
    process = start(tmp_path, tokens, "-o", "model", *SMALL)
    wait_for_step(tmp_path / "model", 4)
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert (code, out) == (75, "")
    assert "state saved at step" in err.splitlines()[-1]
    code, _, err = finish(start(tmp_path, tokens, "-o", "model", *SMALL))
    assert code == 0 and "going on after step" in err
    assert payload(tmp_path / "model") == payload(straight[0])


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_train_as_one(tokens, straight, tmp_path, parallel):
    words = ("--nproc", "2", "--set", f"parallel={parallel}")
    done = finish(start(tmp_path, tokens, "-o", "model", *SMALL, *words))
    assert done[0] == 0, done[2]
    losses = [
        [r["loss"] for r in read_metrics(folder / "metrics.jsonl")]
        for folder in (tmp_path / "model", straight[0])
    ]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)  # bf16 sums in another order


def test_a_lost_rank_ends_the_others_with_79(tokens, tmp_path):
    long = [w.replace("steps=16", "steps=5000") for w in SMALL]
    process = start(tmp_path, tokens, "-o", "model", *long, "--nproc", "2")
    wait_for_step(tmp_path / "model", 2)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    code, _, err = finish(process)
    assert code == 79
    assert "run the same command again" in err.splitlines()[-1]


def test_a_finished_run_is_trained_on(tokens, straight, tmp_path, capsys):
    out = tmp_path / "longer"
    run("pretrain", tokens, out=out, extend=str(straight[0]), steps=24, workers=1)
    rows = read_metrics(tmp_path / "longer" / "metrics.jsonl")
    assert [r["step"] for r in rows] == list(range(1, 25))
    assert "going on after step 11 of 24" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "setting"), [("extend", "lr"), ("init", "width")])
def test_what_the_old_run_decides_is_not_open(tokens, straight, tmp_path, given, setting):
    wanted = {"lr": 1e-4, "width": 512}[setting]
    changed = {given: str(straight[0]), setting: wanted, "steps": 24}
    with pytest.raises(UsageError, match=f"{setting}={wanted} is not open"):
        run("pretrain", tokens, out=tmp_path / "m", **changed)


def test_existing_weights_are_trained_on(tokens, straight, tmp_path):
    run("pretrain", tokens, out=tmp_path / "m", init=str(straight[0]), **FEW)
    before = read_metrics(straight[0] / "metrics.jsonl")
    assert read_metrics(tmp_path / "m" / "metrics.jsonl")[0]["loss"] < 0.9 * before[0]["loss"]


def test_what_begins_documents_here_becomes_the_start_token(tokens, straight, tmp_path):
    theirs = tmp_path / "theirs"
    shutil.copytree(straight[0], theirs, ignore=shutil.ignore_patterns("manifest.json", "state"))
    config = json.loads((theirs / "config.json").read_text())
    eot = config["bos_token_id"]
    (theirs / "config.json").write_text(json.dumps({**config, "bos_token_id": eot + 1}))
    run("pretrain", tokens, out=tmp_path / "m", init=str(theirs), **{**FEW, "steps": 1})
    assert json.loads((tmp_path / "m" / "config.json").read_text())["bos_token_id"] == eot


def test_bins_of_others_train_without_a_tokenizer(tmp_path):
    (tmp_path / "bins").mkdir()
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, 2000
    ids = np.arange(2000, dtype="<u2") % 100
    ids[::50] = 50256
    (tmp_path / "bins" / "fineweb_train_000000.bin").write_bytes(header.tobytes() + ids.tobytes())
    run("pretrain", tmp_path / "bins", out=tmp_path / "m", **{**FEW, "steps": 2})
    assert json.loads((tmp_path / "m" / "config.json").read_text())["vocab_size"] == 50_304


def test_a_bin_cut_short_is_refused_in_one_sentence(tokens, tmp_path):
    data = (tokens / "train-00000.bin").read_bytes()
    (tmp_path / "train-00000.bin").write_bytes(data[:-7])
    with pytest.raises(Mismatch, match="copy torn"):
        run("pretrain", tmp_path / "train-00000.bin", out=tmp_path / "m", **FEW)


def test_the_dry_run_reproduces_gpt2s_arithmetic(llmctl):
    done = llmctl("pretrain", "--dry-run", "--recipe", "gpt2")
    assert done.returncode == 0 and done.stdout == ""
    for figure in ("1,557,686,400", "1,048,576", "32,000", "33,554,432,000", "24.9", "$596.81"):
        assert figure in done.stderr


def test_nonsense_is_refused_with_both_numbers():
    with pytest.raises(UsageError, match=r"warmup=0.5 and decay=0.8"):
        PretrainConfig(warmup=0.5, decay=0.8)
    with pytest.raises(UsageError, match="depth must be at least 1, got 0"):
        PretrainConfig(depth=0)
    with pytest.raises(UsageError, match="gpu='abacus' is not in the table"):
        dry_run(PretrainConfig(gpu="abacus"), [])


def test_what_cannot_change_the_weights_stays_out_of_the_fingerprint():
    config = PretrainConfig(workers=3, nproc=2, save_steps=7, max_minutes=1.0, sample_prompt="A")
    assert payload_settings(config) == {}


def test_the_config_reads_no_torch():
    code = "import sys, llmctl.stages.pretrain; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0


def test_other_tokens_are_not_trained_on(tokens, straight, tmp_path):
    import torch

    from llmctl.artifacts.store import Artifact, Draft
    from llmctl.core.distributed import World
    from llmctl.train.pretraining import Pretraining

    config = PretrainConfig(extend=str(straight[0]), steps=24)
    draft = Draft(tmp_path, "model", False, {})
    foreign = Artifact(tokens / "train-00000.bin", "foreign")
    with pytest.raises(Mismatch, match="was trained on other tokens"):
        Pretraining(config, foreign, draft, World(0, 1, torch.device("cpu")))
