"""answer_all: conversations in, answers out, for models that chat and models that do not."""

from llmctl.evals.tasks.ask import Asking, ask
from llmctl.evals.tasks.generate import answer_all, plain_text
from llmctl.evals.tasks.kinds import Open, Task
from llmctl.evals.tasks.report import table
from llmctl.evals.tasks.requests import bare_question, messages_for, plain_question
from llmctl.infer.params import SamplingParams

GREEDY = SamplingParams(max_tokens=6, temperature=0.0)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_plain_text_has_the_shape_of_questions_and_answers():
    messages = [{"role": "system", "content": "Be brief."}, user("A?"), assistant("B."), user("C?")]
    wanted = "Be brief.\n\nQuestion: A?\nAnswer: B.\n\nQuestion: C?\nAnswer:"
    assert plain_text(messages) == wanted
    assert plain_question("Question: X?\nAnswer:") == "Question: X?\nAnswer:"
    assert bare_question("Question: X?\nAnswer: ") == "X?" and bare_question("Answer:") == "Answer:"


def test_shots_are_earlier_exchanges():
    shot, item = Open("a:1", "A?", ("B",)), Open("a:2", "C?", ("2",), "math", "1 + 1 = 2")
    assert messages_for(item, [shot]) == [user("A?"), assistant("B"), user("C?")]
    assert messages_for(shot, [item])[1] == assistant("1 + 1 = 2")


def test_a_base_model_gets_plain_text_after_its_start(subject):
    one = subject("llama", bos=True)
    done = one.engine.generate(
        [[*one.start.ids, *one.engine.tokenizer.encode("Question: yes or no ?\nAnswer:")]],
        SamplingParams(max_tokens=6, temperature=0.0, stop=("\n",)),
    )
    [answer] = answer_all(one.engine, None, [[user("yes or no ?")]], GREEDY, start=one.start.ids)
    assert answer.text == done[0].text.strip() and answer.ids == done[0].ids
    assert answer.message == assistant(answer.text) and answer.calls == []


def test_a_chat_model_gets_its_format_and_ends_where_it_does(subject):
    one = subject("chat")
    prompts = [[user("yes or no ?")], [user("Who?"), assistant("Bath"), user("Where?")]]
    answers = answer_all(one.engine, one.format, prompts, GREEDY)
    ids = [r.ids for r in one.format.render_many(prompts, generation=True)]
    stops = tuple(one.format.stop_ids)
    wanted = one.engine.generate(ids, SamplingParams(max_tokens=6, temperature=0.0, stop_ids=stops))
    assert [a.ids for a in answers] == [c.ids for c in wanted]
    assert [a.text for a in answers] == [
        one.engine.tokenizer.decode(
            [i for i in c.ids if i not in one.format.stop_ids], skip_special=True
        ).strip()
        for c in wanted
    ]


def test_prompts_without_room(subject):
    long = "the river runs past a mill " * 60
    base, chat = subject("llama"), subject("chat")
    seen = []
    [cut] = answer_all(base.engine, None, [[user(long)]], GREEDY, on_answer=lambda: seen.append(1))
    assert cut.ids and cut.finish_reason in ("length", "stop") and seen == [1]
    refused, asked = answer_all(chat.engine, chat.format, [[user(long)], [user("Who?")]], GREEDY)
    assert (refused.finish_reason, refused.ids, refused.text) == ("context", [], "")
    assert asked.ids
    assert answer_all(chat.engine, chat.format, [], GREEDY) == []


def test_open_items_are_asked_graded_and_kept(subject):
    items = (Open("a:1", "Who?", ("Bath",)), Open("a:2", "yes or no ?", ("yes",)))
    result = ask(subject("chat"), Task("a", "open", None, items, 0.0), Asking(max_tokens=4))
    assert [row["where"] for row in result.rows] == ["a:1", "a:2"]
    assert set(result.metrics) == {"right", "exact", "refused"}
    assert all(row["reply"] is not None and row["right"] in (0.0, 1.0) for row in result.rows)


def test_items_without_room_are_left_out_and_counted(subject):
    long = "the river runs past a mill " * 60
    items = (Open("a:1", long, ("Bath",)), Open("a:2", "yes or no ?", ("yes",)))
    both = ask(subject("chat"), Task("a", "open", None, items, 0.0), Asking(max_tokens=4))
    alone = ask(subject("chat"), Task("a", "open", None, items[1:], 0.0), Asking(max_tokens=4))
    assert both.metrics == alone.metrics
    assert both.counts == {"not asked: no room for it in the context": 1}
    assert "right" not in both.rows[0] and both.rows[1] == alone.rows[0]
    task = Task("a", "open", None, items[:1], 0.0)
    none = ask(subject("chat"), task, Asking(max_tokens=4))
    assert none.metrics == {}
    assert "a" in table([task], {"m": {"a": none}, "n": {"a": both}}, Asking())


def test_the_answer_after_a_tool_call_counts_and_the_call_is_kept(subject, monkeypatch, tmp_path):
    (tmp_path / "docs.jsonl").write_text('{"text": "Ann was born in Bath, as they say."}\n')
    documents = str(tmp_path / "docs.jsonl")
    one = subject("chat", tools=("search",), documents=documents)
    tokenizer, format = one.engine.tokenizer, one.format
    search = tokenizer.id_of("<|search|>")
    script = [search, *tokenizer.encode("Ann born"), format.end_id]
    script += [*tokenizer.encode("Bath"), format.end_id]

    def choose(rows, logits):
        return [script[row.n_sampled] for row in rows]

    monkeypatch.setattr(one.engine, "_choose", choose)
    item = Open("a:1", "Who was born in", ("Bath",))
    result = ask(one, Task("a", "open", None, (item,), 0.0), Asking(max_tokens=60))
    [row] = result.rows
    assert (row["reply"], row["right"]) == ("Bath", 1.0)
    [call] = row["calls"]
    assert call["name"] == "search" and "born in Bath" in call["result"]
