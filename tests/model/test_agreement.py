"""Our logits are transformers' logits, and each opens the other's folders."""

import json

import pytest
import torch
from shapes import SHAPES, ids, model

from llmctl.model.hf import load_config, load_model, save_model

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def theirs(folder, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_logits_agree_in_both_directions(name, tmp_path):
    ours, batch = model(name), ids(2, 48)
    save_model(ours, tmp_path / "ours")
    peer = theirs(tmp_path / "ours")
    assert (ours(batch) - peer(batch).logits).abs().max() < 1e-5
    peer.save_pretrained(tmp_path / "theirs")
    assert load_config(tmp_path / "theirs") == ours.config
    assert torch.equal(load_model(tmp_path / "theirs")(batch), ours(batch))


@pytest.mark.parametrize("name", ["qwen3, tied", "gpt2, tied", "llama, linear rope, wide heads"])
@torch.no_grad()
def test_bf16_is_as_near_to_fp32_as_theirs(name, tmp_path):
    exact, batch = model(name), ids(4, 48)
    save_model(exact, tmp_path)
    wanted = exact(batch)

    def error(net):
        logits = net(batch)
        return (getattr(logits, "logits", logits).float() - wanted).square().mean().sqrt()

    ours = error(load_model(tmp_path, torch.bfloat16))
    assert ours < 1.25 * error(theirs(tmp_path, torch.bfloat16))


def test_gpt2_without_the_prefix_and_with_old_buffers(tmp_path):
    """openai-community/gpt2 names its tensors `h.0.attn…` and carries the causal masks."""
    from llmctl.model import tensor_file
    from llmctl.model.hf import file_state

    ours = model("gpt2, tied")
    save_model(ours, tmp_path)
    tensors = file_state(ours.state_dict(), ours.config)
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    tensor_file.write_tensors(tmp_path / "model.safetensors", old)
    assert torch.equal(load_model(tmp_path)(ids(1, 9)), ours(ids(1, 9)))


def test_rope_parameters_of_transformers_5_are_read(tmp_path):
    ours = model("llama, llama3 rope, biased")
    save_model(ours, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"] = config.pop("rope_scaling") | {
        "rope_theta": config.pop("rope_theta")
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_config(tmp_path) == ours.config


def test_tokenizer_files_travel(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "a" / name).write_text(name)
    save_model(model("qwen3, tied"), tmp_path / "b", tmp_path / "a", {"temperature": 0.7})
    assert (tmp_path / "b" / "chat_template.jinja").read_text() == "chat_template.jinja"
    generation = json.loads((tmp_path / "b" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": 1, "temperature": 0.7}
