"""Conversations as a reward model reads them, and the scores it gives."""

import pytest
import torch

from llmctl.core.errors import Mismatch
from llmctl.data.preferences import Ranking
from llmctl.model.hf import load_model, save_model
from llmctl.model.reward import RewardModel, save_reward_model
from llmctl.reward.encode import Encoder, share_prompt
from llmctl.reward.scorer import Scorer
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import with_chat
from train import chats


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def format():
    return chats.our_format()


def ids_of(encoded, i):
    return [*encoded.prompt.tolist(), *encoded.responses[i].tolist()]


def test_what_all_responses_begin_with_stands_once():
    found = share_prompt([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]])
    assert found.prompt.tolist() == [1, 2]
    assert [r.tolist() for r in found.responses] == [[3, 4], [5], [3]]
    assert found.n_tokens == 6 and found.n_repeated == 10
    within = share_prompt([[1, 2, 3], [1, 2, 3, 4]])  # each keeps a token of its own
    assert within.prompt.tolist() == [1, 2] and len(within.responses[0]) == 1
    assert share_prompt([[7, 8]]).prompt.tolist() == []


def test_a_ranking_is_the_prompt_and_each_response_in_the_chat_format(format):
    ranking = Ranking([user("the river")], ["ran", [said("past"), user("a"), said("mill")]], [1, 2])
    [found] = Encoder(format, 256).encode([ranking])
    for i in range(2):
        assert ids_of(found, i) == format.render([user("the river"), *ranking.turns(i)]).ids
        assert found.responses[i][-1] == format.end_id
    assert found.pairs == ((0, 1),)


def test_the_oldest_turns_go_first_and_all_responses_keep_one_prompt(format):
    system = {"role": "system", "content": "old men"}
    prompt = [system, user("the river " * 10), said("bread " * 10), user("a mill")]
    ranking = Ranking(prompt, ["rain", "tales of rain and bread " * 3], [1, 2])
    encoder = Encoder(format, 60)
    [found] = encoder.encode([ranking])
    for i in range(2):
        assert ids_of(found, i) == format.render([system, prompt[-1], *ranking.turns(i)]).ids
    assert encoder.counts == {"prompts that lost their oldest turns": 1}


def test_then_responses_lose_their_ends_but_not_what_closes_them(format):
    long = "the river ran past a mill " * 20
    ranking = Ranking([user("a")], [long + "x", "rain", long + "y"], [1, 2, 3])
    encoder = Encoder(format, 64)
    [found] = encoder.encode([ranking])
    longest = found.responses[0]
    assert len(found.prompt) + len(longest) == 64 and longest[-1] == format.end_id
    assert found.pairs == ((0, 1), (1, 2))  # the long ones are the same now
    assert encoder.counts == {"responses cut": 2, "pairs dropped: equal once cut": 1}
    [nothing] = encoder.encode([Ranking([user("a")], [long + "x", long + "y"], [1, 2])])
    assert nothing is None


def test_a_prompt_that_leaves_no_room_is_dropped(format):
    encoder = Encoder(format, 48)
    assert encoder.encode([Ranking([user("the river " * 40)], ["a", "b"], [1, 2])]) == [None]
    assert encoder.counts == {"dropped: a prompt longer than seq_len": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random reward model with our format."""
    root = tmp_path_factory.mktemp("rm")
    base = load_model(chats.base_model(root / "base"))
    tokenizer = with_chat(Tokenizer.load(root / "base"))
    save_model(base, root / "speaks", tokenizer)
    model = RewardModel(base)
    torch.manual_seed(0)
    model.score.weight.data.normal_()
    save_reward_model(
        model.state_dict(), model.config, root / "rm", tokenizer, pad_id=tokenizer.eot_id
    )
    return root / "rm"


def test_scores_are_those_of_each_conversation_alone(folder):
    scorer = Scorer.open(folder)
    scorer.dtype = torch.float32
    prompt = [user("the river")]
    asked = [[*prompt, said("ran")], [user("x"), said("ran")], [*prompt, said("past a mill")]]
    found = scorer.score(asked)
    ids = [scorer.encoder.format.render(c).ids for c in asked]
    with torch.no_grad():
        alone = [scorer.model(torch.tensor([i])).item() for i in ids]
    assert found == pytest.approx(alone, abs=1e-4)
    assert scorer.score([]) == []


def test_a_conversation_longer_than_the_model_reads_is_scored_by_its_end(folder):
    scorer = Scorer.open(folder)
    end = [user("a mill"), said("rain")]
    found = scorer.score([[user("the river " * 20), said("bread " * 20), *end], end])
    assert found[0] == pytest.approx(found[1], abs=1e-2)


def test_a_language_model_is_no_judge(folder):
    with pytest.raises(Mismatch, match="no reward model"):
        Scorer.open(folder.parent / "speaks")
    (folder.parent / "bare").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder.parent / "bare" / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(Mismatch, match="no chat template"):
        Scorer.open(folder.parent / "bare")
