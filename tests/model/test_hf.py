"""Folders: written the same every time, read strictly."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import ids, model

from llmctl.core.errors import LlmctlError, Mismatch, NoInput, Refused
from llmctl.model import tensor_file
from llmctl.model.config import ModelConfig
from llmctl.model.hf import load_config, load_model, save_model


@pytest.fixture
def folder(tmp_path):
    save_model(model("qwen3, tied"), tmp_path / "m")
    return tmp_path / "m"


def edit(folder, **keys):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_same_weights_same_bytes_and_everybody_may_read(folder, tmp_path):
    save_model(load_model(folder), tmp_path / "again")
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_shards_hold_the_same_model(folder, tmp_path):
    whole = load_model(folder)
    save_model(whole, tmp_path / "s", shard_bytes=20_000)
    index = json.loads((tmp_path / "s" / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 2 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert torch.equal(load_model(tmp_path / "s")(ids(1, 8)), whole(ids(1, 8)))
    (tmp_path / "s" / shards[1]).unlink()
    with pytest.raises(NoInput, match=shards[1]):
        load_model(tmp_path / "s")


def test_a_shard_name_cannot_leave_the_folder(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "../m/x.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Refused, match="plain file"):
        load_model(folder)


def test_dtype_is_cast_or_kept(folder):
    assert load_model(folder, None).head_weight.dtype == torch.float32
    assert load_model(folder, torch.bfloat16).head_weight.dtype == torch.bfloat16
    save_model(load_model(folder), folder, dtype=torch.bfloat16)
    assert load_model(folder, None).head_weight.dtype == torch.bfloat16
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_pickles_are_refused(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    for path in (folder, folder / name):
        with pytest.raises(Refused, match=name) as caught:
            load_model(path)
        assert caught.value.code == 77


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"hidden_act": "gelu"}, "hidden_act=gelu"),
        ({"model_type": "mamba"}, "mamba"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": "32"}, "hidden_size=32"),
        ({"num_hidden_layers": 10**12}, "n_layers=1000000000000"),
        ({"vocab_size": -1}, "vocab_size=-1"),
        ({"num_attention_heads": 0}, "n_heads=0"),
        ({"rms_norm_eps": "nan"}, "rms_norm_eps=nan"),
        ({"rms_norm_eps": 10**400}, "beyond what a float holds"),
        ({"rope_theta": 10**400}, "beyond what a float holds"),
        ({"model_type": ["llama"]}, r"model_type \['llama'\]"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "reward"),
    ],
)
def test_config_values_we_do_not_compute_are_refused_by_name(folder, keys, said):
    edit(folder, **keys)
    with pytest.raises(Mismatch, match=said):
        load_model(folder)


def test_other_config_keys_are_ignored(folder):
    edit(folder, auto_map={"AutoModelForCausalLM": "evil.py--Model"}, favourite_colour="blue")
    load_model(folder)


@pytest.mark.parametrize("named", [5, [], None, [["x"]]])
def test_architectures_that_name_no_class_are_ignored(folder, named):
    edit(folder, architectures=named)
    assert load_model(folder)


def test_a_tie_left_unsaid_follows_the_file(folder):
    """transformers would draw a random head here."""
    edit(folder, tie_word_embeddings=None)
    assert load_config(folder).tie_embeddings
    save_model(model("qwen3, untied, biased"), folder)
    edit(folder, tie_word_embeddings=None)
    assert not load_config(folder).tie_embeddings


def test_differences_are_named_first_five(folder):
    edit(folder, hidden_size=64)
    with pytest.raises(Mismatch, match=r"is \(96, 32\), not \(96, 64\).* and \d+ more"):
        load_model(folder)
    edit(folder, hidden_size=32, num_hidden_layers=1)
    with pytest.raises(Mismatch, match=r"extra model\.layers\.1\."):
        load_model(folder)
    edit(folder, num_hidden_layers=3)
    with pytest.raises(Mismatch, match=r"missing model\.layers\.2\."):
        load_model(folder)


def test_end_ids_are_gathered_from_both_files(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 1]}')
    assert load_config(folder).eos_ids == (1, 7)


def header(path):
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def rewrite(path, head, body):
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path, head, body: path.write_bytes(path.read_bytes()[:5]),
        lambda path, head, body: path.write_bytes(path.read_bytes()[:-1]),
        lambda path, head, body: path.write_bytes(path.read_bytes() + b"x"),
        lambda path, head, body: path.write_bytes(struct.pack("<Q", 2**63) + b"{}"),
        lambda path, head, body: rewrite(path, b"[1]", body),
        lambda path, head, body: rewrite(path, b"[" * 100_000, body),
        lambda path, head, body: rewrite(path, b"\xff\xfe", body),
        lambda path, head, body: (first(head).update(dtype="F7"), rewrite(path, head, body)),
        lambda path, head, body: (first(head).update(shape=[-1, 4]), rewrite(path, head, body)),
        lambda path, head, body: (
            first(head).update(shape=[1 << 62] * 4),
            rewrite(path, head, body),
        ),
        lambda path, head, body: (first(head)["data_offsets"].pop(), rewrite(path, head, body)),
        lambda path, head, body: (
            first(head).update(data_offsets=["a", "b"]),
            rewrite(path, head, body),
        ),
        lambda path, head, body: (
            first(head).update(data_offsets=[None, 4]),
            rewrite(path, head, body),
        ),
        lambda path, head, body: (head.popitem(), rewrite(path, head, body)),  # a hole
        lambda path, head, body: (overlap(head), rewrite(path, head, body)),
    ],
)
def test_a_damaged_file_is_one_sentence(folder, harm):
    path = folder / "model.safetensors"
    harm(path, *header(path))
    with pytest.raises(Mismatch, match="safetensors"):
        load_model(folder)


def first(head):
    return next(value for name, value in head.items() if name != "__metadata__")


def overlap(head):
    entries = [value for name, value in head.items() if name != "__metadata__"]
    entries[1]["data_offsets"] = entries[0]["data_offsets"]


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 2500), byte=st.integers(0, 255))
def test_no_flipped_header_byte_gets_past_as_another_exception(at, byte, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flip")
    path = folder / "model.safetensors"
    tensor_file.write_tensors(path, {f"t{i}": torch.ones(i + 1, 3) for i in range(20)})
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] = byte
    path.write_bytes(raw)
    try:
        tensor_file.read_tensors(path, lambda name, tensor: None)
    except LlmctlError as error:
        assert error.code == 78


def test_safetensors_library_reads_ours_and_we_read_its(tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = {"a": torch.randn(3, 5), "b": torch.randn(7).bfloat16(), "c": torch.zeros(0, 2)}
    tensor_file.write_tensors(tmp_path / "ours", tensors)
    for name, tensor in load_file(tmp_path / "ours").items():
        assert torch.equal(tensor, tensors[name])
    save_file(tensors, tmp_path / "theirs")
    found = {}
    tensor_file.read_tensors(tmp_path / "theirs", found.__setitem__)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_missing_folder_and_missing_weights(folder):
    with pytest.raises(NoInput):
        load_model(folder / "none")
    (folder / "model.safetensors").unlink()
    with pytest.raises(NoInput, match=r"model\.safetensors"):
        load_model(folder)


def test_from_hf_takes_the_families_defaults():
    small = ModelConfig.from_hf({"model_type": "gpt2"})
    assert (small.n_layers, small.vocab_size, small.tie_embeddings) == (12, 50257, True)
    assert small.n_params() == 124_439_808
