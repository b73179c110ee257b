"""The reward model: one score a response, the same for every reader of its folder."""

import json

import pytest
import torch
from shapes import ids, model

from llmctl.core.errors import Mismatch
from llmctl.model.hf import load_model, save_model
from llmctl.model.reward import RewardModel, load_reward_model, pad_id_for, save_reward_model
from llmctl.model.shared_prefix import STRETCH, blocks_of, positions_of, sharing

FAMILIES = ["qwen3, tied", "gpt2, untied", "llama, llama3 rope, biased", "qwen2"]
EOS, PAD = 1, 2


def reward(name, seed=3):
    made = RewardModel(model(name))
    generator = torch.Generator().manual_seed(seed)
    made.score.weight.data = torch.randn(made.score.weight.shape, generator=generator)
    return made.eval()


def save(made, folder, pad_id=PAD):
    save_reward_model(made.state_dict(), made.config, folder, pad_id=pad_id)
    return folder


def test_a_fresh_model_finds_every_response_worth_the_same():
    assert RewardModel(model("qwen3, tied"))(ids(3, 8)).tolist() == [0.0, 0.0, 0.0]


def test_the_score_is_read_at_the_last_token_alone():
    made, rows = reward("qwen3, tied"), ids(2, 9)
    ends = torch.tensor([4, 8, 9 + 5])
    alone = [made(rows[:1, :5]), made(rows[:1]), made(rows[1:, :6])]
    assert torch.allclose(made(rows, ends=ends), torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_shared_prompt_gives_the_scores_of_whole_conversations(name):
    """Packing leaks nothing: neither between responses nor between rankings."""
    made = reward(name)
    groups = [(5, [3, 1, 7]), (0, [4, 2]), (9, [2, 6])]
    n_tokens = sum(p + sum(r) for p, r in groups)
    flat = ids(1, n_tokens, seed=4)
    ends, alone, at = [], [], 0
    for prompt, continuations in groups:
        head = flat[:, at : at + prompt]
        at += prompt
        for n in continuations:
            alone.append(made(torch.cat([head, flat[:, at : at + n]], 1)))
            at += n
            ends.append(at - 1)
    found = made(
        flat,
        ends=torch.tensor(ends),
        positions=positions_of(groups)[None],
        attend=sharing(blocks_of(groups)),
    )
    assert torch.allclose(found, torch.cat(alone), atol=2e-5)


def test_sharing_a_prompt_has_the_gradient_of_repeating_it():
    """Against dense attention under the mask the blocks stand for; stretches longer than one."""
    groups = [(5, [3, 1]), (0, [4]), (STRETCH + 9, [2, STRETCH + 1])]
    n_tokens = sum(p + sum(r) for p, r in groups)
    mask, at = torch.zeros(n_tokens, n_tokens, dtype=torch.bool), 0
    for prompt, continuations in groups:
        start, at = at, at + prompt
        mask[start:at, start:at] = True
        for n in continuations:
            mask[at : at + n, start : start + prompt] = mask[at : at + n, at : at + n] = True
            at += n
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, h, n_tokens, 16, requires_grad=True) for h in (4, 2, 2))
    out = sharing(blocks_of(groups))(0, q, k, v)
    dense = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask.tril(), enable_gqa=True
    )
    dense = dense.transpose(1, 2).flatten(2)
    grad = torch.randn_like(out)
    assert torch.allclose(out, dense, atol=1e-5)
    for mine, other in zip(*(torch.autograd.grad(x, (q, k, v), grad) for x in (out, dense))):
        assert torch.allclose(mine, other, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_reads_the_same_scores(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    made = reward(name)
    save(made, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert theirs.config.num_labels == 1 and theirs.config.problem_type == "regression"
    rows = ids(3, 10).clamp_min(3)
    rows[:, -1] = EOS  # responses end in eos, as templates write them
    lengths = [10, 6, 3]
    for row, n in enumerate(lengths):
        rows[row, n - 1], rows[row, n:] = EOS, PAD
    mask = (torch.arange(10)[None] < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad():
        found = theirs(rows, attention_mask=mask).logits[:, 0]
        ours = torch.cat([made(rows[i : i + 1, :n]) for i, n in enumerate(lengths)])
    assert torch.allclose(found, ours, atol=1e-4)


def test_padding_with_eos_would_move_the_score(tmp_path):
    """The trap: transformers looks for the last token that is not pad."""
    transformers = pytest.importorskip("transformers")
    made = reward("qwen3, tied")
    save(made, tmp_path, pad_id=EOS)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    rows = ids(1, 6).clamp_min(3)
    rows[0, -1] = EOS
    with torch.no_grad():
        assert not torch.allclose(theirs(rows).logits[:, 0], made(rows), atol=1e-3)
    assert pad_id_for([EOS, None, PAD], {EOS}) == PAD
    with pytest.raises(Mismatch, match="pad"):
        pad_id_for([EOS], {EOS})


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_keeps_the_scores(name, tmp_path):
    made = reward(name)
    again = load_reward_model(save(made, tmp_path))
    assert torch.equal(made(ids(2, 8)), again(ids(2, 8)))
    assert again.config.pad_id == PAD and again.n_params() == made.n_params()


def test_what_transformers_saves_is_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    save(reward("qwen3, tied"), tmp_path / "ours")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours")
    theirs.eval().save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        wanted = theirs(ids(1, 8).clamp_min(3)).logits[:, 0]
    found = load_reward_model(tmp_path / "theirs")(ids(1, 8).clamp_min(3))
    assert torch.allclose(found, wanted, atol=1e-4)


def test_neither_sort_of_model_is_taken_for_the_other(tmp_path):
    save(reward("qwen3, tied"), tmp_path / "scores")
    save_model(model("qwen3, tied"), tmp_path / "speaks")
    with pytest.raises(Mismatch, match="reward or classifier"):
        load_model(tmp_path / "scores")
    with pytest.raises(Mismatch, match="no reward model"):
        load_reward_model(tmp_path / "speaks")
    path = tmp_path / "scores" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": {"0": "a", "1": "b"}}))
    with pytest.raises(Mismatch, match="one label"):
        load_reward_model(tmp_path / "scores")
