"""The command: what is on stdout, what on stderr, which exit code."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from llmctl.artifacts.store import Artifact, open_artifact
from llmctl.core.errors import UsageError
from llmctl.infer.prompts import start_ids, start_record
from llmctl.stages.generate import STAGE, GenerateConfig
from llmctl.tokenizer.bpe import Tokenizer

VOCAB = {"<|endoftext|>": 0} | {chr(31 + i): i for i in range(2, 95)} | {"Ġ": 1, "Ã": 95}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small random Llama folder with its tokenizer, made by nobody's stage."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    from llmctl.model.config import ModelConfig
    from llmctl.model.hf import save_model
    from llmctl.model.transformer import Transformer

    path = tmp_path_factory.mktemp("models") / "m"
    config = ModelConfig(
        family="llama",
        vocab_size=96,
        n_layers=2,
        d_model=32,
        n_heads=4,
        n_kv_heads=2,
        head_dim=8,
        d_ff=64,
        max_seq_len=4096,
        eos_ids=(0,),
    )
    model = Transformer(config)
    model.init_weights(0)
    save_model(model, path)
    library = Library(models.BPE(vocab=VOCAB, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|endoftext|>"])
    library.save(str(path / "tokenizer.json"))
    return path


def test_text_on_stdout_one_line_on_stderr(llmctl, folder):
    done = llmctl("generate", folder, "-p", "Hello, you", "--max-tokens", 8, "--temperature", 0)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and "0.0M" in done.stderr and "tokens/s" in done.stderr
    assert not done.stdout.startswith("Hello") and done.stdout.endswith("\n")
    echoed = llmctl(
        "generate", folder, "-p", "Hello, you", "--max-tokens", 8, "--temperature", 0, "--echo"
    )
    assert echoed.stdout == "Hello, you" + done.stdout


def test_json_lines_from_prompts_on_stdin(llmctl, folder):
    done = llmctl(
        *("generate", folder, "--prompts", "-", "-n", 2, "--jsonl", "--max-tokens", 5),
        *("--probs", 2, "--logprobs", "--seed", 4),
        stdin="one\ntwo\n",
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["prompt"], r["sample"]) for r in rows] == [
        ("one", 0),
        ("one", 1),
        ("two", 0),
        ("two", 1),
    ]
    for row in rows:
        assert row["tokens"] == len(row["ids"]) == len(row["logprobs"]) == len(row["probs"]) <= 5
        assert row["prompt_tokens"] == 3 and row["finish_reason"] in ("length", "stop")


def run(folder, capsys, **settings):
    """The stage in this process; stdout."""
    from llmctl.artifacts.store import Artifact

    STAGE.run(GenerateConfig(**({"workers": 1} | settings)), [Artifact(folder, "foreign")])
    return capsys.readouterr().out


def test_the_same_seed_says_the_same(folder, capsys):
    same = dict(prompt=("abc",), max_tokens=16, seed=5, n=3)
    assert run(folder, capsys, **same) == run(folder, capsys, **same)
    assert run(folder, capsys, **same) != run(folder, capsys, **(same | {"seed": 6}))


def test_streamed_text_is_the_text(folder, capsys):
    ask = dict(prompt=("abc", "x"), max_tokens=12)
    assert run(folder, capsys, **ask) == run(folder, capsys, **ask, stream=False)


def test_bf16_too(folder, capsys):
    assert run(folder, capsys, prompt=("abc",), max_tokens=4, dtype="bf16")


def test_a_start_token_where_it_is_asked_for(folder, capsys):
    row = json.loads(run(folder, capsys, bos=True, max_tokens=3, jsonl=True))
    assert (row["prompt"], row["prompt_tokens"]) == ("", 1)
    with pytest.raises(UsageError, match="no start token"):
        run(folder, capsys, max_tokens=3)


@pytest.mark.parametrize(
    "processor, start",
    [
        (None, []),
        ({"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}, []),
        (
            {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [],
                "special_tokens": {},
            },
            [0],
        ),
        ({"type": "TemplateProcessing", "single": [{"SpecialToken": "x"}]}, []),
        ({"type": "TemplateProcessing", "single": 5}, []),
        ({"type": "Sequence", "processors": 5}, []),
    ],
)
def test_a_foreign_tokenizer_says_what_begins_a_text(folder, tmp_path, processor, start):
    tokenizer = with_processor(folder, processor)
    assert start_ids(tmp_path, tokenizer) == start
    write_manifest(tmp_path, "sft", "foreign")
    assert start_ids(tmp_path, tokenizer) == start  # tuned here, pretrained elsewhere
    write_manifest(tmp_path, "pretrain", "tokens")
    assert start_ids(tmp_path, tokenizer) == [0]
    assert start_ids(tmp_path, tokenizer, bos=False) == []


def with_processor(folder, processor=None):
    """The folder's tokenizer with this post_processor."""
    parts = json.loads((folder / "tokenizer.json").read_text())
    return Tokenizer(json.dumps(parts | {"post_processor": processor}).encode())


def write_manifest(folder, stage, made_from, **stats):
    """A manifest of a model, as far as it says where the model comes from."""
    words = {"kind": "model", "id": "", "stage": stage, "fingerprint": ""}
    lists = {"inputs": [{"path": "", "kind": made_from, "id": ""}], "files": []}
    rest = {"format": 1, "settings": {}, "created": {"config": {}}, "stats": stats}
    (folder / "manifest.json").write_text(json.dumps(words | lists | rest))


@pytest.mark.parametrize(
    "stage, made_from, stats, start",
    [
        ("pretrain", "foreign", {}, [7]),  # bins of others: documents began with it here
        ("sft", "model", {}, [7]),
        ("sft", "foreign", {}, []),
        ("rl", "model", {"start_ids": []}, []),
        ("rl", "model", {"start_ids": [3, 9999, "x"]}, [3]),
    ],
)
def test_what_begins_a_text_is_decided_where_the_base_was_made(
    folder, tmp_path, stage, made_from, stats, start
):
    (tmp_path / "config.json").write_text('{"bos_token_id": 7}')
    tokenizer = with_processor(folder)
    write_manifest(tmp_path, stage, made_from, **stats)
    assert start_ids(tmp_path, tokenizer) == start
    record = start_record(open_artifact(tmp_path, ("model",)), tokenizer)
    assert record == ({} if start == [7] else {"start_ids": start})


def test_a_start_token_that_only_the_bases_settings_name_is_kept(folder, tmp_path):
    (tmp_path / "config.json").write_text('{"bos_token_id": 7}')
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    record = start_record(Artifact(tmp_path, "foreign"), with_processor(folder))
    assert record == {"start_ids": [7]}


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["--temperature", "-1"], 2, "temperature"),
        (["--top-p", "0"], 2, "top_p"),
        (["--max-tokens", "1e12"], 2, "max_tokens"),
        (["--seed", str(2**70)], 2, "seed"),
        (["-n", "0"], 2, "n must be"),
        (["--temprature", "1"], 2, "temprature"),
        (["--prompts", "nowhere.txt"], 2, "one of them"),
    ],
)
def test_impossible_settings_are_exit_2(llmctl, folder, words, code, said):
    done = llmctl("generate", folder, "-p", "a", *words)
    assert done.returncode == code and done.stdout == ""
    assert said in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def copy(folder, tmp_path):
    made = tmp_path / "copy"
    made.mkdir()
    for file in folder.iterdir():
        (made / file.name).write_bytes(file.read_bytes())
    return made


def test_a_damaged_header_is_one_sentence_and_78(llmctl, folder, tmp_path):
    bad = copy(folder, tmp_path)
    with open(bad / "model.safetensors", "r+b") as file:
        file.write(b"\xff" * 8)
    done = llmctl("generate", bad, "-p", "a")
    assert done.returncode == 78 and "safetensors" in done.stderr and done.stderr.count("\n") == 1


def test_no_tokenizer_is_78_and_a_pickle_77(llmctl, folder, tmp_path):
    bad = copy(folder, tmp_path)
    (bad / "tokenizer.json").unlink()
    assert llmctl("generate", bad, "-p", "a").returncode == 78
    bad = copy(folder, tmp_path / "copy")
    (bad / "model.safetensors").rename(bad / "pytorch_model.bin")
    assert llmctl("generate", bad, "-p", "a").returncode == 77


def test_nan_weights_are_76(folder, tmp_path, capsys):
    from llmctl.core.errors import Diverged
    from llmctl.model.hf import load_model, save_model

    bad = copy(folder, tmp_path)
    model = load_model(bad)
    model.head_weight.data[5, 5] = float("nan")
    save_model(model, bad)
    with pytest.raises(Diverged, match="copy"):
        run(bad, capsys, prompt=("a",))


def test_a_prompt_longer_than_the_context_is_65(folder, capsys):
    from llmctl.core.errors import BadInput

    with pytest.raises(BadInput, match="context"):
        run(folder, capsys, prompt=("a" * 5000,))


def start_long(folder):
    command = [sys.executable, "-m", "llmctl", "generate", folder, "-p", "a", "--workers", "1"]
    command += ["--max-tokens", "4000", "-n", "500"]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_ctrl_c_stops_cleanly(folder):
    process = start_long(folder)
    assert process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1].startswith(b"llmctl: error[cancelled]")
    assert b"Traceback" not in stderr


def test_a_closed_pipe_is_quiet(folder):
    process = start_long(folder)
    assert process.stdout.read(20)
    process.stdout.close()
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.returncode == 141
    assert process.stderr.read() == b""


def test_help_is_light(folder):
    """No torch, numpy or tokenizers for --help and for a refused setting."""
    code = (
        "import sys; from llmctl.cli import main; "
        "main(['generate', '--help']); main(['generate', 'x', '--temperature', '-1']); "
        "heavy = {'torch', 'numpy', 'tokenizers'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr


def test_cuda_is_refused_where_there_is_none(folder, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UsageError, match="CUDA"):
        run(folder, capsys, prompt=("a",), device="cuda")


@pytest.fixture(scope="module")
def chatty(folder, tmp_path_factory):
    """The same model with our chat format: its embedding has room for the control tokens."""
    from dataclasses import replace

    from llmctl.model.hf import load_model, save_model
    from llmctl.model.transformer import Transformer
    from llmctl.tokenizer.bpe import Tokenizer
    from llmctl.tokenizer.chat import with_chat

    path = tmp_path_factory.mktemp("models") / "chatty"
    old = load_model(folder)
    model = Transformer(replace(old.config, vocab_size=128, max_seq_len=256))
    model.init_weights(0)
    save_model(model, path)
    with_chat(Tokenizer.load(folder)).save(path)
    return path


def test_chat_puts_the_prompt_as_the_format_has_it(llmctl, chatty):
    from llmctl.tokenizer.bpe import Tokenizer
    from llmctl.tokenizer.chat import ChatFormat

    asked = ("generate", chatty, "-p", "hi", "--max-tokens", 4, "--jsonl")
    row = json.loads(llmctl(*asked, "--chat", "--system", "Be brief.").stdout)
    form = ChatFormat(Tokenizer.load(chatty))
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert row["prompt_tokens"] == len(form.render(talk, generation=True).ids)
    assert "calls" not in row
    row = json.loads(llmctl(*asked, "--tools", "python").stdout)
    assert row["calls"] == [] and row["sampled"] == [True] * row["tokens"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tools": ("pyton",)}, "did you mean 'python'"),
        ({"tools": ("python",), "chat": False}, "chat format"),
        ({"system": "Be brief."}, "add --chat"),
    ],
)
def test_tools_that_cannot_be_had_are_refused_at_once(settings, words):
    with pytest.raises(UsageError, match=words):
        GenerateConfig(**settings)


def test_a_base_model_has_no_tools(llmctl, folder):
    done = llmctl("generate", folder, "-p", "hi", "--tools", "search", "--documents", folder)
    assert done.returncode == 78 and "run sft first" in done.stderr
