"""An answer that continues a kept prefix is, bit for bit, the one of a fresh engine."""

import contextlib
import gc
import sys
import weakref
from dataclasses import replace

import pytest
import torch
from shapes import SHAPES, ids, model

from llmctl.infer import kv_cache
from llmctl.infer import prefix as prefix_module
from llmctl.infer.engine import Engine
from llmctl.infer.kv_cache import KVCache, Step
from llmctl.infer.params import SamplingParams
from llmctl.infer.prefix import Prefix

DRAWN = SamplingParams(max_tokens=7, ignore_eos=True, logprobs=True, probs=3, seed=3)
OTHER = SamplingParams(max_tokens=7, ignore_eos=True, logprobs=True, probs=3, seed=4)


@pytest.fixture(autouse=True)
def blocks_of_eight(monkeypatch):
    """The models here have a context of 64."""
    monkeypatch.setattr(prefix_module, "BLOCK", 8)


def tokens(n, seed):
    return ids(1, n, seed=seed)[0].tolist()


def said(engine, prompt, params, prefix=None):
    [done] = engine.generate([prompt], params, prefix=prefix)
    return done.ids, done.logprobs, done.policy_logprobs, done.probs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_the_answer_is_that_of_a_fresh_engine(tokenizer, name, dtype):
    """Over prompts as a chat makes them."""
    engine, kept = Engine(model(name), tokenizer, dtype=dtype), Prefix()

    def answer(prompt, params, reused):
        before = engine.stats.prefill_tokens
        found = said(engine, prompt, params, kept)
        assert kept.reused == reused
        assert engine.stats.prefill_tokens - before == len(prompt) - reused
        fresh = Engine(model(name), tokenizer, dtype=dtype)
        assert found == said(fresh, prompt, params, Prefix())
        if dtype == torch.float32:  # and in one piece, as far as its last bits go
            whole = said(fresh, prompt, params)
            assert found[0] == whole[0]
            torch.testing.assert_close(torch.tensor(found[1]), torch.tensor(whole[1]))
        return found[0]

    system = tokens(9, 1)
    first = [*system, *tokens(6, 2)]
    second = [*first, *answer(first, DRAWN, 0), *tokens(3, 3)]
    third = [*second, *answer(second, DRAWN, 8), *tokens(4, 4)]  # 15 were there: a block and 7
    said_third = answer(third, DRAWN, 24)
    assert answer(third, OTHER, 32) != said_third  # /retry: by another seed
    assert answer(third, DRAWN, 32) == said_third  # /undo, and the same words again
    answer([*third[:29], *tokens(9, 5)], DRAWN, 24)  # /edit
    answer([*system, *third[20:]], DRAWN, 8)  # the context overflows: the first exchange has left
    answer(tokens(48, 6), DRAWN, 0)  # another system prompt
    answer(tokens(48, 6), OTHER, 40)  # ends with a block: it goes through again, for the logits
    answer(tokens(48, 6)[:20], DRAWN, 16)


def test_what_is_reused_is_the_longest_common_prefix_in_whole_blocks(tokenizer):
    engine, kept, reused = Engine(model("qwen3, tied"), tokenizer), Prefix(), []
    row = tokens(40, 1)
    for prompt in (row[:30], row[:30], row, [*row[:17], 5], row[:17], row[:8], row[:9], row[:1]):
        said(engine, prompt, DRAWN, kept)
        reused.append(kept.reused)
    assert reused == [0, 24, 24, 16, 16, 0, 8, 0]


@contextlib.contextmanager
def struck_at(number, monkeypatch, places):
    """Raise KeyboardInterrupt at the number-th call of these functions, or, when the places are a
    file, line of it; gives the list that grows by each."""
    seen = []

    def strike():
        seen.append(1)
        if len(seen) == number:
            raise KeyboardInterrupt

    def wrapped(inner):
        def call(*args, **kwargs):
            strike()
            return inner(*args, **kwargs)

        return call

    def trace(frame, event, arg):
        if frame.f_code.co_filename != places:
            return None
        if event == "line":
            strike()
        return trace

    with monkeypatch.context() as patch:
        for owner, name in () if isinstance(places, str) else places:
            patch.setattr(owner, name, wrapped(getattr(owner, name)))
        before = sys.gettrace()
        if isinstance(places, str):
            sys.settrace(trace)
        try:
            yield seen
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)


PLACES = {
    "forward": [(KVCache, "prefill"), (Step, "attend"), (Step, "done")],
    "growth": [(kv_cache.F, "pad")],
    "lines": prefix_module.__file__,
}


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "goes back"])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_ctrl_c_anywhere_leaves_only_what_was_computed(tokenizer, monkeypatch, places, goes_on):
    """Struck in any layer of any piece of the prompt, of any token drawn, between keys and values
    that grow, between what is computed and what is noted of it: the next prompts, which go on
    from it or from what was before, are answered as ever."""
    monkeypatch.setattr(kv_cache, "COLUMN_STEP", 4)  # columns grow
    monkeypatch.setattr("llmctl.infer.engine.FIRST_COLUMNS", 1)
    engine = Engine(model("qwen3, tied"), tokenizer)
    row = tokens(40, 1)
    first, struck = [*row[:12], *tokens(8, 2)], row[:35]
    after = row if goes_on else [*first, *tokens(12, 3)]
    wanted = [said(engine, prompt, DRAWN, Prefix()) for prompt in (after, struck)]
    for number in range(1, 1000):
        kept = Prefix()
        said(engine, first, replace(DRAWN, max_tokens=1), kept)
        with struck_at(number, monkeypatch, places) as seen:
            said(engine, struck, DRAWN, kept)
        assert said(engine, after, DRAWN, kept) == wanted[0]
        assert kept.reused <= (32 if goes_on else 16)
        assert said(engine, struck, DRAWN, kept) == wanted[1]
        if len(seen) < number:
            break
    assert 2 < number < 999  # each place was struck once


def test_an_answer_left_in_the_middle_keeps_its_prompt(tokenizer):
    engine, kept = Engine(model("qwen3, tied"), tokenizer), Prefix()
    row = tokens(33, 1)
    events = engine.stream([row], DRAWN, prefix=kept)
    next(events), next(events)
    events.close()
    assert said(engine, row, OTHER, kept) == said(engine, row, OTHER, Prefix())
    assert kept.reused == 32


def test_other_weights_reuse_nothing(tokenizer):
    net = model("qwen3, tied")
    engine, kept = Engine(net, tokenizer), Prefix()
    row = tokens(40, 1)
    before = said(engine, row, DRAWN, kept)
    with torch.no_grad():
        net.model.layers[0].mlp.up_proj.weight.neg_()
    engine.refresh()
    after = said(engine, row, DRAWN, kept)
    assert kept.reused == 0 and after == said(engine, row, DRAWN, Prefix()) != before


def test_one_cache_is_kept_and_goes_when_it_should(tokenizer):
    def alive():
        gc.collect()
        return sum(one() is not None for one in caches)

    engine, kept, caches = Engine(model("qwen3, tied"), tokenizer), Prefix(), []
    made = engine.runner.new_cache

    def watched(*args):
        cache = made(*args)
        caches.append(weakref.ref(cache))
        return cache

    engine.runner.new_cache = watched
    for n in (20, 30, 40):
        said(engine, tokens(n, 1), DRAWN, kept)
    assert (len(caches), alive()) == (1, 1)
    kept.free()
    assert alive() == 0
    said(engine, tokens(40, 1), DRAWN, kept)
    assert (kept.reused, alive()) == (0, 1)
    del kept
    assert alive() == 0
    said(engine, tokens(40, 1), DRAWN)
    assert alive() == 0


def test_a_prefix_is_of_one_conversation(tokenizer):
    engine = Engine(model("qwen3, tied"), tokenizer)
    with pytest.raises(ValueError, match="2 prompts"):
        engine.generate([[1], [2]], DRAWN, prefix=Prefix())
