"""Likelihoods are those of one slow forward pass a pair, with the harness's ids."""

import math

import pytest
import torch

from llmctl.evals.tasks import likelihood
from llmctl.evals.tasks.ask import Asking, ask
from llmctl.evals.tasks.kinds import Choice, Task
from llmctl.evals.tasks.requests import cut_to, encode_pairs, start_of, texts

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

LONG = "the river runs past a mill and into Dunmore where it's 1847 . " * 8
ITEMS = (
    Choice("a:1", ("Who was born in",), ("Bath", "Dunmore, where it's", "a mill"), 0),
    Choice("a:2", ("Question: yes or no ?",), ("yes", "no"), 1),
    Choice("a:3", (LONG,), ("mill and river", "Bath"), 1),
    Choice("a:4", ("",), ("yes", "the river"), 0),
    Choice("a:5", ("they'll", "they'll don't I'M"), ("naïve",), 1),
    Choice("a:6", ("the river runs past a",), ("mill",), 0),
)
TASK = Task("a", "choice", None, ITEMS, 0.5)


def reference(model, tokenizer, context, continuation, start, limit):
    """(log-probability, greedy) of a continuation: one row, nothing shared, nothing clever."""
    while context and context[-1].isspace():
        continuation, context = context[-1] + continuation, context[:-1]
    before = tokenizer.encode(context) if context else []
    whole = tokenizer.encode(context + continuation)
    wanted = whole[len(before) :]
    before = start + before if context else [tokenizer.bos_token_id]
    row = (before + wanted)[-(limit + 1) :][:-1]
    logits = model(torch.tensor([row])).logits[0].float().log_softmax(-1)[-len(wanted) :]
    total = sum(logits[i, id].item() for i, id in enumerate(wanted))
    return total, logits.argmax(-1).tolist() == wanted


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize(("bos", "shots"), [(None, 0), (True, 2)])
@torch.no_grad()
def test_every_pair_is_scored_as_by_transformers(name, bos, shots, folders, subject):
    model = transformers.AutoModelForCausalLM.from_pretrained(folders[name]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[name])
    start = [tokenizer.bos_token_id] if bos else []
    result = ask(subject(name, bos=bos), TASK, Asking(shots=shots))
    assert len(result.rows) == len(ITEMS)
    for row in result.rows:
        for pair, ours, greedy in zip(row["pairs"], row["logprobs"], row["greedy"]):
            theirs = reference(model, tokenizer, *pair, start, 64)
            assert ours == pytest.approx(theirs[0], abs=2e-4) and greedy == theirs[1]


def test_a_tree_too_large_for_a_pass_is_cut_and_scores_the_same(subject, monkeypatch):
    whole = ask(subject("qwen3"), TASK, Asking()).rows
    monkeypatch.setattr(likelihood, "TOKENS", 8)
    monkeypatch.setattr(likelihood, "HEAD_ROWS", 2)
    for a, b in zip(whole, ask(subject("qwen3"), TASK, Asking()).rows):
        assert a["logprobs"] == pytest.approx(b["logprobs"], abs=1e-4)


def test_the_context_of_several_choices_is_computed_once(subject, monkeypatch):
    one = subject("qwen3")
    seen = []
    forward = one.engine.runner.forward
    monkeypatch.setattr(
        one.engine.runner,
        "forward",
        lambda ids, *rest: seen.append(len(ids)) or forward(ids, *rest),
    )
    item = Choice("a:1", ("the river runs past a mill and into",), ("A", "B"), 0)
    ask(one, Task("a", "choice", None, (item,), 0.5), Asking())
    pairs = encode_pairs(one.engine.tokenizer, one.start, texts(item, (), " "))
    assert sum(seen) == len(pairs[0][0]) + sum(len(k) - 1 for _, k in pairs)


def test_ids_of_a_pair(folders, tokenizer):
    start = start_of(folders["llama"], tokenizer)
    [(context, continuation)] = encode_pairs(tokenizer, start, [("the river ", "runs")])
    assert context == tokenizer.encode("the river")
    assert context + continuation == tokenizer.encode("the river runs")
    [(context, continuation)] = encode_pairs(tokenizer, start, [("", "runs")])
    assert (context, continuation) == ([tokenizer.eot_id], tokenizer.encode("runs"))


def test_cuts_keep_the_continuation():
    assert cut_to([1, 2, 3], [4, 5], 8).ids == (1, 2, 3, 4)
    assert cut_to([1, 2, 3], [4, 5], 2).ids == (3, 4)
    for context, continuation in (([1], []), ([1], [2, 3, 4]), ([], [2])):
        with pytest.raises(ValueError):
            cut_to(context, continuation, 2)


def test_measures_of_each_kind(subject):
    one = subject("gpt2")
    items = tuple(Choice(f"a:{i}", ("the river runs",), ("past",), 0) for i in range(3))
    result = ask(one, Task("a", "completion", None, items, 0.0), Asking(limit=2))
    assert result.asked == 2 and len(result.rows) == 2
    nats = -result.rows[0]["logprobs"][0]
    value, low, high = result.metrics["perplexity"]
    assert value == pytest.approx(math.exp(nats), rel=1e-4) and low <= value <= high
    result = ask(one, TASK, Asking())
    right = sum(row["answer"] == row["gold"] for row in result.rows) / len(ITEMS)
    value, low, high = result.metrics["acc"]
    assert value == right and low < value < high
    assert result.metrics["centred"][0] == pytest.approx((right - 0.5) / 0.5)


def test_an_ending_without_a_context_and_lengths_of_choices_alone(subject):
    one = subject("gpt2")
    bare = Task("a", "completion", None, (Choice("a:1", ("",), ("the river",), 0),), 0.0)
    [row] = ask(one, bare, Asking()).rows
    assert row["logprobs"][0] < 0 and "answer_norm" not in row
    schema = Task("a", "schema", None, ITEMS[4:5], 0.5)
    assert "answer_bytes" not in ask(one, schema, Asking()).rows[0]
    assert {"answer_norm", "answer_bytes"} <= ask(one, TASK, Asking()).rows[0].keys()


def test_an_item_that_cannot_be_asked_is_counted(subject):
    item = Choice("a:9", ("river",), (LONG, "no"), 0)
    result = ask(subject("gpt2"), Task("a", "choice", None, (item, ITEMS[1]), 0.5), Asking())
    assert result.counts == {"not asked: the continuation is longer than the context window": 1}
    assert result.rows[0]["where"] == "a:9" and len(result.rows) == 2


def test_choices_in_the_chat_format(subject):
    one = subject("chat", chat=True)
    task = Task("a", "choice", None, ITEMS[:2], 0.5)
    asked = [{"role": "user", "content": ITEMS[0].contexts[0]}]
    shot = [{"role": "user", "content": "yes or no ?"}, {"role": "assistant", "content": "no"}]
    shot[0]["content"] = ITEMS[1].contexts[0].removeprefix("Question: ")
    for n_shots, messages in ((0, asked), (1, shot + asked)):
        row = ask(one, task, Asking(shots=n_shots)).rows[0]
        assert row["tokens"][0][0] == len(one.format.render(messages, generation=True).ids)
