"""Tool calls: what the engine forces stays out of what it sampled; ids are never made anew."""

import signal
import threading
import time

import pytest
import torch
from shapes import model

from llmctl.infer.engine import Engine
from llmctl.infer.params import SamplingParams
from llmctl.infer.toolbox import ToolBox
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.chat import PYTHON, SEARCH, TOOL, ChatFormat, with_chat

GREEDY = SamplingParams(max_tokens=30, temperature=0.0)


@pytest.fixture(scope="module")
def form(tokenizer):
    return ChatFormat(with_chat(tokenizer))


class Echo:
    """A tool that gives back what it is asked, in capitals."""

    def __init__(self, name="python", key="code", delay=0.0):
        self.name, self.key, self.delay = name, key, delay
        self.asked, self.cancelled = [], threading.Event()

    def run(self, arguments):
        self.asked.append(arguments)
        if self.delay and self.cancelled.wait(self.delay):
            return "error: cancelled"
        return arguments[self.key].upper()

    def cancel(self):
        self.cancelled.set()


class Scripted(Engine):
    """Draws what a script says: scripts[row index] is a list of ids; the forward pass is real."""

    def __init__(self, net, tokenizer, scripts, **kwargs):
        super().__init__(net, tokenizer, **kwargs)
        self.scripts = scripts

    def _choose(self, rows, logits):
        drawn = super()._choose(rows, logits)  # notes log-probabilities, draws as ever
        self.seen = getattr(self, "seen", [])
        self.seen.append({r.completion.index: row for r, row in zip(rows, logits)})
        script = [self.scripts.get(r.completion.index, []) for r in rows]
        return [
            s[r.n_sampled] if r.n_sampled < len(s) else d for r, s, d in zip(rows, script, drawn)
        ]


def net(form, seed=0):
    from dataclasses import replace

    config = replace(model("qwen3, tied").config, vocab_size=128, max_seq_len=512, eos_ids=(0,))
    made = Transformer(config)
    made.init_weights(seed)
    return made


def spell(form, *parts):
    """Ids of texts and control tokens."""
    ids = []
    for part in parts:
        special = form.tokenizer.id_of(part)
        ids += form.tokenizer.encode(part) if special is None else [special]
    return ids


def end(form):
    return form.end_id


def call(form, text="1+1", before="Well. "):
    return [*spell(form, before, PYTHON, text), form.end_id]


def engine(form, *scripts, **kwargs):
    return Scripted(net(form), form.tokenizer, dict(enumerate(scripts)), **kwargs)


def prompt(form, text="hi"):
    return form.render([{"role": "user", "content": text}], generation=True).ids


def test_a_call_is_answered_and_the_turn_after_it_goes_on(form):
    second = [*spell(form, "It is 2."), end(form)]
    tool = Echo()
    [done] = engine(form, call(form, "one") + second).generate(
        [prompt(form)], GREEDY, tools=ToolBox(form, {"python": tool})
    )
    forced = form.result_ids("python", "ONE")
    assert done.ids == call(form, "one") + forced + second
    assert done.sampled == [True] * len(call(form, "one")) + [False] * len(forced) + [True] * len(
        second
    )
    assert (done.text, done.finish_reason) == ("Well. \nIt is 2.", "stop")
    assert [(c.name, c.arguments, c.result) for c in done.calls] == [
        ("python", {"code": "one"}, "ONE")
    ]
    assert done.turns() == [call(form, "one"), second]
    assert [form.turn(turn)["content"] for turn in done.turns()] == ["Well. ", "It is 2."]


def test_the_ids_are_those_of_the_rendered_conversation(form):
    second = [*spell(form, "2"), end(form)]
    box = ToolBox(form, {"python": Echo()})
    [done] = engine(form, call(form) + second).generate([prompt(form)], GREEDY, tools=box)
    first, last = (form.turn(turn) for turn in done.turns())
    result = {"role": "tool", "name": "python", "content": "1+1"}
    messages = [{"role": "user", "content": "hi"}, first, result, last]
    rendered = form.render(messages)
    assert done.prompt_ids + done.ids == rendered.ids
    assert [False] * len(done.prompt_ids) + done.sampled == rendered.mask


def test_after_a_call_the_model_sees_the_whole_row(form):
    """Logits after re-admission are those of the row computed at once."""
    made = engine(form, call(form), max_rows=2)
    params = SamplingParams(max_tokens=12, temperature=0.0, logprobs=True, ignore_eos=True)
    box = ToolBox(form, {"python": Echo()})
    [done] = made.generate([prompt(form)], params, tools=box)
    row = done.prompt_ids + done.ids
    with torch.no_grad():
        logits = net(form)(torch.tensor([row[:-1]]))[0, len(done.prompt_ids) - 1 :]
    exact = logits[:, : form.tokenizer.n_ids].log_softmax(-1)
    wanted = exact.gather(1, torch.tensor(done.ids)[:, None])[:, 0]
    own = torch.tensor(done.sampled)
    script = len(call(form))  # drawn ids that the script replaced have the logprob of another
    found = torch.tensor(done.logprobs)
    torch.testing.assert_close(found[script:][own[script:]], wanted[script:][own[script:]])
    assert (found[~own] == 0.0).all() and len(done.logprobs) == len(done.ids)


def test_other_rows_go_on_meanwhile_and_nothing_depends_on_how_fast_a_tool_is(form):
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=5, logprobs=True)
    asked = [prompt(form, t) for t in ("a", "bb", "ccc", "dd")]
    scripts = [call(form), [], call(form, "x") + call(form, "y"), []]
    found = []
    for delay in (0.0, 0.05):
        box = ToolBox(form, {"python": Echo(delay=delay)})
        done = engine(form, *scripts, max_rows=3).generate(asked, params, tools=box)
        found.append([(d.ids, d.logprobs) for d in done])
    assert found[0] == found[1]
    alone = engine(form, scripts[0]).generate(
        asked[:1], params, tools=ToolBox(form, {"python": Echo()})
    )
    assert alone[0].ids == found[0][0][0]


def test_out_of_order_a_quick_row_does_not_wait_for_a_slow_one(form):
    slow, quick = Echo("python", "code", 0.3), Echo("search", "query")
    box = ToolBox(form, {"python": slow, "search": quick}, in_order=False)
    search = [*spell(form, SEARCH, "q"), end(form), *spell(form, "!"), end(form)]
    made = engine(form, call(form) + [end(form)], search)
    events = made.stream([prompt(form)] * 2, GREEDY, box)
    assert [e.completion.index for e in events if e.completion.finish_reason] == [1, 0]


def test_events_tell_of_calls_as_they_happen(form):
    box, events = ToolBox(form, {"python": Echo()}), []
    second = [*spell(form, "2"), end(form)]
    engine(form, call(form) + second).generate([prompt(form)], GREEDY, events.append, box)
    assert "".join(e.text for e in events) == "Well. \n2"
    [asked] = [e.asked for e in events if e.asked]
    [record] = [e.call for e in events if e.call]
    assert (asked.name, record.result) == ("python", "1+1")


def test_a_tool_that_is_off_ends_the_answer_with_its_text(form):
    for box in (None, ToolBox(form, {"search": Echo("search", "query")})):
        made = engine(form, call(form))
        [done] = made.generate([prompt(form)], SamplingParams(stop_ids=(end(form),)), tools=box)
        assert (done.text, done.finish_reason) == ("Well. <|python|>1+1", "stop")
        assert done.calls == []


def test_malformed_and_endless_calls_come_to_an_end(form):
    bad = [*spell(form, TOOL, "{no json"), end(form)]
    unknown = [*spell(form, TOOL, '{"name": "rm", "arguments": {}}'), end(form)]
    box = ToolBox(form, {"python": Echo()})
    [done] = engine(form, bad + unknown + bad * 3).generate(
        [prompt(form)], SamplingParams(max_tokens=150), tools=box
    )
    assert (done.finish_reason, [c.name for c in done.calls]) == ("calls", ["", "", ""])
    assert done.calls[1].result == "error: no tool 'rm'; there is python"
    short = ToolBox(form, {"python": Echo()}, max_calls=2, max_malformed=1)
    [done] = engine(form, call(form, "a", "") * 3).generate([prompt(form)], GREEDY, tools=short)
    assert (done.finish_reason, [c.result for c in done.calls]) == ("calls", ["A", "A"])
    [done] = engine(form, bad * 2).generate([prompt(form)], GREEDY, tools=short)
    assert (done.finish_reason, [c.name for c in done.calls]) == ("calls", [""])
    assert done.calls[0].result.startswith("error: the tool call is no JSON")


def test_limits_count_what_the_model_draws_and_the_context_everything(form):
    box = ToolBox(form, {"python": Echo()})
    script = call(form, "x", "")
    params = SamplingParams(max_tokens=len(script) + 2, temperature=0.0, ignore_eos=True)
    [done] = engine(form, script + spell(form, "abc")).generate([prompt(form)], params, tools=box)
    assert (done.finish_reason, sum(done.sampled)) == ("length", len(script) + 2)
    long = Echo()
    long.run = lambda arguments: "y" * 600
    [done] = engine(form, script).generate(
        [prompt(form)], GREEDY, tools=ToolBox(form, {"python": long})
    )
    assert (done.finish_reason, done.ids, len(done.calls)) == ("context", script, 1)


def test_the_end_of_a_document_is_no_place_for_a_result(form):
    script = [*spell(form, PYTHON, "x"), form.tokenizer.eot_id]
    box = ToolBox(form, {"python": Echo()})
    [done] = engine(form, script).generate([prompt(form)], GREEDY, tools=box)
    assert (done.ids, done.calls) == (script, [])


def test_a_tool_that_fails_or_floods_is_told_to_the_model_in_short(form):
    class Broken(Echo):
        def run(self, arguments):
            raise RuntimeError("no such luck")

    box = ToolBox(form, {"python": Broken()}, result_bytes=20)
    record = box.run(form.call_of(call(form)), "")
    assert record.result.startswith("error: R") and len(record.result.encode()) <= 20
    assert len(ToolBox(form, {}, result_bytes=99).shortened("é" * 100).encode()) <= 99
    assert ToolBox(form, {}).shortened("\ud800") == "?"


def test_stopping_early_ends_running_tools(form):
    tool = Echo(delay=30.0)
    events = engine(form, call(form)).stream(
        [prompt(form)], GREEDY, ToolBox(form, {"python": tool})
    )
    started = time.monotonic()
    for event in events:
        if event.asked:
            break
    events.close()
    assert tool.cancelled.is_set() and time.monotonic() - started < 10


def test_ctrl_c_while_a_tool_runs_ends_it(form):
    class Interrupted(Echo):
        def run(self, arguments):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            return super().run(arguments)

    tool = Interrupted(delay=30.0)
    with pytest.raises(KeyboardInterrupt):
        engine(form, call(form)).generate(
            [prompt(form)], GREEDY, tools=ToolBox(form, {"python": tool})
        )
    assert tool.cancelled.is_set()


def test_log_probabilities_are_of_the_policy_without_cuts(form, tokenizer):
    params = SamplingParams(
        max_tokens=6, temperature=0.5, top_k=3, top_p=0.9, logprobs=True, ignore_eos=True
    )
    made = net(form)
    [done] = Engine(made, form.tokenizer).generate([[1, 2, 3]], params)
    with torch.no_grad():
        logits = made(torch.tensor([[1, 2, 3, *done.ids[:-1]]]))[0, 2:]
    logits = logits[:, : form.tokenizer.n_ids]
    index = torch.tensor(done.ids)[:, None]
    for found, at in ((done.logprobs, 1.0), (done.policy_logprobs, 0.5)):
        wanted = (logits / at).log_softmax(-1).gather(1, index)[:, 0]
        torch.testing.assert_close(torch.tensor(found), wanted, rtol=1e-4, atol=1e-4)


def test_refresh_takes_the_weights_as_they_are_now(form):
    made = net(form)
    sampler = Engine(made, form.tokenizer)
    asked = [prompt(form)]
    params = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
    before = sampler.generate(asked, params)[0].ids
    with torch.no_grad():
        made.model.layers[0].mlp.up_proj.weight.neg_()
    sampler.refresh()
    after = sampler.generate(asked, params)[0].ids
    assert after == Engine(made, form.tokenizer).generate(asked, params)[0].ids != before
    with pytest.raises(ValueError):
        Engine(net(form), form.tokenizer, consume=True).refresh()


def test_after_a_call_a_kept_prefix_is_continued(form, monkeypatch):
    """The row that comes back with a result, and the request after it, are what they are with
    nothing kept."""
    from llmctl.infer import prefix
    from llmctl.infer.prefix import Prefix

    monkeypatch.setattr(prefix, "BLOCK", 8)
    params = SamplingParams(max_tokens=24, seed=3, logprobs=True, probs=3, ignore_eos=True)
    made, kept = engine(form, call(form, "one") + call(form, "two")), Prefix()

    def said(prefix):
        before = made.stats.prefill_tokens
        box = ToolBox(form, {"python": Echo()})
        [done] = made.generate([asked], params, tools=box, prefix=prefix)
        assert [c.result for c in done.calls] == ["ONE", "TWO"]
        computed = made.stats.prefill_tokens - before
        return (done.ids, done.logprobs, done.probs, done.text), done, computed

    asked = prompt(form, "what is one and two?")
    for kind in ("first request", "second request"):
        found, done, computed = said(kept)
        assert kept.reused > len(asked), kind  # when the second result came
        assert found == said(Prefix())[0]
        whole, _, everything = said(None)
        assert found[0] == whole[0]
        torch.testing.assert_close(torch.tensor(found[1]), torch.tensor(whole[1]))
        assert computed < everything - len(asked)  # the question went through once, not thrice
        asked = [*done.prompt_ids, *done.ids, *prompt(form, "and three?")]
