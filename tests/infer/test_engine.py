"""Rows in a batch are what they are alone; they end where they should."""

import pytest
import torch
from shapes import ids, model

from llmctl.core.errors import BadInput, Diverged, Mismatch
from llmctl.infer import engine as engine_module
from llmctl.infer.engine import Engine
from llmctl.infer.sampling import SamplingParams

GREEDY = SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True)


@pytest.fixture(scope="module")
def engine(tokenizer):
    return Engine(model("qwen3, tied"), tokenizer)


def prompts(*lengths):
    return [ids(1, n, seed=n)[0].tolist() for n in lengths]


def answers(engine, *args, **kwargs):
    return [c.ids for c in engine.generate(*args, **kwargs)]


def naive(net, prompt, n):
    """Greedy, the whole row anew for each token."""
    row = list(prompt)
    with torch.no_grad():
        for _ in range(n):
            row.append(int(net(torch.tensor([row]))[0, -1].argmax()))
    return row[len(prompt) :]


@pytest.mark.parametrize("max_rows", [1, 3, 64])
def test_greedy_is_the_naive_loop_in_any_batch(tokenizer, max_rows):
    net = model("qwen3, tied")
    asked = prompts(3, 9, 1, 9, 14)
    found = answers(Engine(net, tokenizer, max_rows=max_rows), asked, GREEDY)
    assert found == [naive(net, prompt, 20) for prompt in asked]


@pytest.mark.parametrize("name", ["gpt2, tied", "llama, llama3 rope, biased"])
def test_other_families_too(tokenizer, name):
    net = model(name)
    asked = prompts(3, 9)
    assert answers(Engine(net, tokenizer), asked, GREEDY) == [naive(net, p, 20) for p in asked]


def test_rows_join_as_others_leave(tokenizer):
    """Requests of different lengths through two places: each is what it is alone."""
    engine = Engine(model("qwen3, tied"), tokenizer, max_rows=2)
    asked = prompts(4, 5, 6, 7, 8, 4)
    wanted = [
        SamplingParams(max_tokens=n, temperature=0.0, ignore_eos=True) for n in (9, 2, 12, 1, 3, 5)
    ]
    alone = [answers(engine, [p], w)[0] for p, w in zip(asked, wanted)]
    assert answers(engine, asked, wanted) == alone
    assert [len(a) for a in alone] == [9, 2, 12, 1, 3, 5]


def test_draws_depend_on_seed_and_row_not_on_the_batch(tokenizer):
    asked = prompts(4, 6, 8, 5)
    params = SamplingParams(max_tokens=12, seed=3)
    wide = answers(Engine(model("qwen3, tied"), tokenizer), asked, params)
    narrow = answers(Engine(model("qwen3, tied"), tokenizer, max_rows=1), asked, params)
    assert wide == narrow
    assert wide != answers(
        Engine(model("qwen3, tied"), tokenizer), asked, SamplingParams(max_tokens=12)
    )


def test_equal_prompts_are_sampled_apart(engine):
    found = answers(engine, prompts(5) * 6, SamplingParams(max_tokens=12, seed=1))
    assert len({tuple(f) for f in found}) > 1
    assert (
        engine.generate(prompts(5) * 3, GREEDY)[2].ids == engine.generate(prompts(5), GREEDY)[0].ids
    )


def test_an_end_id_ends_and_is_not_text(tokenizer):
    net = model("qwen3, tied")
    free = naive(net, prompts(6)[0], 20)
    stop_at = free[4]
    params = SamplingParams(max_tokens=20, temperature=0.0, stop_ids=(stop_at,), ignore_eos=True)
    [done] = Engine(net, tokenizer).generate(prompts(6), params)
    first = free.index(stop_at)
    assert done.ids == free[: first + 1] and done.finish_reason == "stop"
    assert done.text == tokenizer.decode(free[:first])


def test_a_stop_string_across_tokens_cuts_the_text(engine, tokenizer):
    [free] = engine.generate(prompts(6), GREEDY)
    text = free.text
    stop = text[3:6]  # three one-character tokens
    params = SamplingParams(max_tokens=20, temperature=0.0, stop=(stop, "never"), ignore_eos=True)
    seen = []
    [done] = engine.generate(prompts(6), params, lambda event: seen.append(event.text))
    assert done.text == text[: text.index(stop)] == "".join(seen)
    assert done.finish_reason == "stop" and len(done.ids) <= 6


def test_length_and_context_are_told_apart(engine):
    [short] = engine.generate(
        prompts(6), SamplingParams(max_tokens=3, temperature=0, ignore_eos=True)
    )
    assert (len(short.ids), short.finish_reason) == (3, "length")
    [full] = engine.generate(prompts(60), GREEDY)
    assert (len(full.ids), full.finish_reason) == (4, "context")


@pytest.mark.parametrize("wrong", [[], [96], [-1], list(range(64))])
def test_prompts_that_cannot_be_are_refused(engine, wrong):
    with pytest.raises(BadInput, match="prompt 1"):
        engine.generate([[1, 2], wrong], GREEDY)


def test_logprobs_and_probs_are_the_models_own(engine):
    params = SamplingParams(max_tokens=4, temperature=0.3, top_k=5, logprobs=True, probs=3)
    [done] = engine.generate(prompts(6), params)
    row = torch.tensor([prompts(6)[0] + done.ids])
    with torch.no_grad():
        exact = model("qwen3, tied")(row)[0, 5:-1].log_softmax(-1)
    chosen = exact.gather(1, torch.tensor(done.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(done.logprobs), chosen, rtol=1e-4, atol=1e-4)
    best = exact.exp().topk(3)
    assert [[i for i, _ in step] for step in done.probs] == best.indices.tolist()
    assert [len(step) for step in done.probs] == [3] * 4


def test_padding_of_the_vocabulary_is_never_drawn(tokenizer):
    """The tokenizer has ids up to 95; the model's embedding goes on to 127."""
    from dataclasses import replace

    from llmctl.model.transformer import Transformer

    net = Transformer(replace(model("qwen3, tied").config, vocab_size=128))
    net.init_weights(0)
    params = SamplingParams(max_tokens=40, temperature=100.0, ignore_eos=True)
    found = answers(Engine(net, tokenizer), prompts(4) * 8, params)
    assert max(max(row) for row in found) < 96


def test_a_tokenizer_larger_than_the_embedding_is_refused(tokenizer):
    from dataclasses import replace

    from llmctl.model.transformer import Transformer

    net = Transformer(replace(model("qwen3, tied").config, vocab_size=64))
    with pytest.raises(Mismatch, match="96 ids"):
        Engine(net, tokenizer)


def test_logits_that_are_not_numbers_stop_it(tokenizer):
    net = model("qwen3, tied")
    net.head_weight.data[3, 3] = float("nan")
    with pytest.raises(Diverged, match="there"):
        Engine(net, tokenizer, source="there").generate(prompts(4), GREEDY)


def test_memory_decides_how_many_rows_run_at_once(tokenizer, monkeypatch):
    engine = Engine(model("qwen3, tied"), tokenizer)
    wanted = answers(engine, prompts(4, 5, 6), GREEDY)
    monkeypatch.setattr(engine_module, "free_bytes", lambda device: 1)
    assert engine._new_cache([engine._row(0, [1], GREEDY)] * 3).max_rows == 1
    assert answers(engine, prompts(4, 5, 6), GREEDY) == wanted


def test_a_model_in_training_is_sampled_as_it_is(tokenizer):
    net = model("qwen3, tied").train()
    before = answers(Engine(net, tokenizer), prompts(4), GREEDY)
    assert before[0] == naive(net, prompts(4)[0], 20)
    with torch.no_grad():
        net.model.layers[0].mlp.up_proj.weight.neg_()
    assert answers(Engine(net, tokenizer), prompts(4), GREEDY) != before
    assert net.training


def test_stats_count_tokens(tokenizer):
    engine = Engine(model("qwen3, tied"), tokenizer)
    engine.generate(prompts(4, 6), GREEDY)
    assert (engine.stats.prefill_tokens, engine.stats.decode_tokens) == (10, 38)
    assert "prefill 10 tokens" in engine.stats.line()
