"""llmctl sft from the outside: what it writes, what opens it, what interruptions leave of it."""

import json
import subprocess
import sys

import pytest

from llmctl.core.config import payload_settings
from llmctl.core.errors import BadInput, Mismatch, NoInput, UsageError
from llmctl.infer.prompts import start_ids
from llmctl.pipeline import Request, dry_run, run
from llmctl.stages.sft import SftConfig
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.train.metrics import read_metrics
from train import chats

FEW = dict(steps=14, save_steps=3, batch_tokens=256, workers=1, lr=1e-2, val_fraction=0.1)
FEW |= dict(sample_prompts=("the river",), sample_tokens=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random base model; a foreign folder."""
    return chats.base_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """80 conversations."""
    return chats.write_jsonl(tmp_path_factory.mktemp("data") / "c.jsonl", chats.conversations(80))


def words(**settings):
    """Settings as the command line has them."""
    line = ["--sample-prompts", "the river"]
    for key, value in settings.items():
        line += ["--set", f"{key}={value}"] if key != "sample_prompts" else []
    return line


def start(cwd, *line):
    return subprocess.Popen(
        [sys.executable, "-m", "llmctl", "sft", *map(str, line)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def straight(base, data, tmp_path_factory):
    """A run nobody disturbed."""
    folder = tmp_path_factory.mktemp("straight") / "m"
    run("sft", base, out=folder, data=(str(data),), **FEW)
    return folder


def payload(folder):
    return json.loads((folder / "manifest.json").read_text())["id"]


def test_it_learns_and_says_what_it_did(base, data, tmp_path, capsys):
    run("sft", base, out=tmp_path / "m", data=(str(data),), **FEW)
    rows = read_metrics(tmp_path / "m" / "metrics.jsonl")
    assert [r["step"] for r in rows] == list(range(1, 15))
    validated = [r["val_loss"] for r in rows if "val_loss" in r]
    assert len(validated) > 3 and validated[-1] < 0.9 * validated[0]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    err = capsys.readouterr().err
    for said in (
        "a base model; it gets a chat format, 6 control tokens",
        "80 conversations",
        "trained on",
        "validation loss",
        "epoch",
        "targets",
        "before:",
        "after:",
    ):
        assert said in err, said
    stats = json.loads((tmp_path / "m" / "manifest.json").read_text())["stats"]
    assert stats["conversations"] + stats["val_conversations"] == 80
    assert stats["targets"] == sum(r["targets"] for r in rows)
    assert stats["chat"]["own"] and stats["val_loss"] == rows[-1]["val_loss"]
    samples = [json.loads(x) for x in (tmp_path / "m" / "samples.jsonl").open()]
    assert [(s["when"], s["prompt"]) for s in samples] == [
        ("before", "the river"),
        ("after", "the river"),
    ]


def test_transformers_opens_it_with_the_same_ids_masks_and_logits(straight):
    transformers = pytest.importorskip("transformers")
    import torch

    from llmctl.model.hf import load_model
    from llmctl.tokenizer.chat import chat_format

    tokenizer = transformers.AutoTokenizer.from_pretrained(straight)
    format = chat_format(Tokenizer.load(straight))
    messages = chats.conversations(1, seed=5)[0]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    ours = format.render(messages, generation=True)
    assert theirs == ours.ids
    model = transformers.AutoModelForCausalLM.from_pretrained(straight, dtype=torch.float32).eval()
    ids = torch.tensor([ours.ids])
    with torch.no_grad():
        assert (model(ids).logits - load_model(straight)(ids)).abs().max() < 1e-4
    settings = json.loads((straight / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [
        tokenizer.convert_tokens_to_ids("<|im_end|>"),
        tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    ]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_a_crash_at_any_step_costs_nothing_but_time(base, data, straight, tmp_path, monkeypatch):
    from llmctl.data.masked import MaskedBatches

    plain = MaskedBatches.take
    for bad in (0, 5, 13):

        def take(self, step, micro_batch, bad=bad):
            if step == bad:
                raise RuntimeError("power")
            return plain(self, step, micro_batch)

        monkeypatch.setattr(MaskedBatches, "take", take)
        with pytest.raises(RuntimeError, match="power"):
            run("sft", base, out=tmp_path / "m", data=(str(data),), **FEW)
    monkeypatch.setattr(MaskedBatches, "take", plain)
    run("sft", base, out=tmp_path / "m", data=(str(data),), **FEW)
    assert payload(tmp_path / "m") == payload(straight)
    samples = [json.loads(x)["when"] for x in (tmp_path / "m" / "samples.jsonl").open()]
    assert samples == ["before", "after"]


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_micro_batches_do_not_change_the_result(base, data, straight, tmp_path, micro_batch):
    run("sft", base, out=tmp_path / "m", data=(str(data),), micro_batch=micro_batch, **FEW)
    losses = [
        [r["loss"] for r in read_metrics(f / "metrics.jsonl")] for f in (tmp_path / "m", straight)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)  # bf16 sums in another order
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)


def test_validation_takes_the_micro_batch_that_training_settled_on(
    base, data, tmp_path, monkeypatch
):
    """Planned for two rows, and one fits: two would not fit in validation either."""
    from llmctl.train import fitting, sft

    plain, seen = sft.without_targets, []

    def without_targets(batch, row):
        seen.append(len(batch.ids))
        return plain(batch, row)

    monkeypatch.setattr(fitting, "settle", lambda *args, **more: 1)
    monkeypatch.setattr(sft, "without_targets", without_targets)
    few = {**FEW, "steps": 1, "micro_batch": 2}
    run("sft", base, out=tmp_path / "m", data=(str(data),), **few)
    assert set(seen) == {1}


def test_two_ranks_train_as_one(base, data, straight, tmp_path):
    done = start(tmp_path, base, "-o", "m", "--data", data, *words(**FEW), "--nproc", "2")
    _, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    losses = [
        [r["loss"] for r in read_metrics(f / "metrics.jsonl")] for f in (tmp_path / "m", straight)
    ]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)


def test_other_data_under_the_same_name_is_another_run(base, data, tmp_path):
    from llmctl.core.errors import OutputBusy

    path = chats.write_jsonl(tmp_path / "c.jsonl", chats.conversations(30))
    few = {**FEW, "steps": 1}
    run("sft", base, out=tmp_path / "m", data=(f"{path}=2",), **few)
    chats.write_jsonl(path, chats.conversations(31))
    with pytest.raises(OutputBusy, match="data"):
        run("sft", base, out=tmp_path / "m", data=(f"{path}=2",), **few)


def test_a_tuned_model_is_tuned_on_and_a_chat_model_keeps_its_template(
    base, straight, data, tmp_path
):
    few = {**FEW, "steps": 1}
    run("sft", straight, out=tmp_path / "more", data=(str(data),), **few)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "more" / name).read_bytes() == (straight / name).read_bytes()
    for folder in (base, straight, tmp_path / "more"):  # asked alike, none saw a start token
        assert start_ids(folder, Tokenizer.of_model(folder)) == []
    theirs = chats.chat_model(tmp_path / "theirs")
    run("sft", theirs, out=tmp_path / "tuned", data=(str(data),), **few)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "tuned" / name).read_bytes() == (theirs / name).read_bytes()
    stats = json.loads((tmp_path / "tuned" / "manifest.json").read_text())["stats"]
    assert not stats["chat"]["own"]


def test_a_longer_context_is_written_into_the_folder(base, data, tmp_path):
    run(
        "sft",
        base,
        out=tmp_path / "m",
        data=(str(data),),
        seq_len=128,
        **{**FEW, "steps": 1, "batch_tokens": 128},
    )
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["max_position_embeddings"] == 128


def test_without_conversations_it_says_what_to_give(base, tmp_path):
    with pytest.raises(UsageError, match=r"name conversations with --data PATH"):
        run("sft", base, out=tmp_path / "m", **FEW)
    with pytest.raises(NoInput, match="nowhere"):
        run("sft", base, out=tmp_path / "m", data=("./nowhere.jsonl",), **FEW)
    assert not (tmp_path / "m").exists()


def test_bad_rows_beyond_the_share_are_refused_with_their_reasons(base, tmp_path):
    good = chats.conversations(9)
    path = chats.write_jsonl(tmp_path / "c.jsonl", [*good, [{"role": "user", "content": "a"}]])
    with pytest.raises(BadInput, match="1 of 10 rows cannot be used: 1 no assistant turn"):
        run("sft", base, out=tmp_path / "m", data=(str(path),), **FEW)
    run("sft", base, out=tmp_path / "m", data=(str(path),), max_bad=0.1, **{**FEW, "steps": 1})
    stats = json.loads((tmp_path / "m" / "manifest.json").read_text())["stats"]
    assert stats["sources"][0]["skipped"] == {"no assistant turn": 1}


def test_the_mask_is_shown(base, tmp_path, capsys):
    path = chats.write_jsonl(
        tmp_path / "c.jsonl",
        [
            [
                {"role": "user", "content": "tell\x1b[2J"},
                {"role": "assistant", "content": "the rain"},
            ]
        ],
    )
    assert run("sft", base, data=(str(path),), show_mask=2) is None
    shown = capsys.readouterr().out
    assert "⟦the rain<|im_end|>⟧" in shown and "⟦tell" not in shown
    assert "<|im_start|>user<|im_sep|>tell\\x1b[2J<|im_end|>" in shown
    assert "\x1b" not in shown and "trained on" in shown


def test_the_dry_run_counts_rows_and_costs(base, data, capsys):
    given = {"data": (str(data),), "epochs": 2.0, "gpu": "H100"}
    dry_run(Request(stage="sft", inputs=[str(base)], overrides=given))
    told = capsys.readouterr().err
    for said in ("80 conversations", "FLOPs in all", "2 epochs", "H100", "tokens an update"):
        assert said in told


def test_a_reward_model_is_refused(base, data, tmp_path):
    import shutil

    shutil.copytree(base, tmp_path / "rm")
    config = json.loads((base / "config.json").read_text())
    config["architectures"] = ["Qwen3ForSequenceClassification"]
    (tmp_path / "rm" / "config.json").write_text(json.dumps(config))
    with pytest.raises(Mismatch, match="reward or classifier"):
        run("sft", tmp_path / "rm", out=tmp_path / "m", data=(str(data),), **FEW)


def test_what_cannot_change_the_weights_stays_out_of_the_fingerprint():
    config = SftConfig(workers=3, nproc=2, save_steps=7, sample_prompts=("A",), sample_tokens=9)
    assert payload_settings(config) == {}


def test_the_config_reads_no_torch():
    code = "import sys, llmctl.stages.sft; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
