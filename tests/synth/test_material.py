from __future__ import annotations

import ast
import json
import re
from collections import Counter

from synthetic import Web

from llmctl.synth.facts import EXPOSURES, PHRASINGS, RARE
from llmctl.synth.school import SHARES
from llmctl.synth.split import split_of
from llmctl.tokenizer.chat_messages import check_messages


def evaluate(step: str) -> bool:
    """Whether a step's equation is true."""
    left, sign, right, _, result = step.split()
    a, b, c = int(left), int(right), int(result)
    if sign == "/":
        return b != 0 and a == b * c
    return c == {"+": a + b, "-": a - b, "*": a * b}[sign]


def held_out(web: Web) -> set[str]:
    subjects = list(dict.fromkeys(fact["subject"] for fact in web.facts))
    return {name for number, name in enumerate(subjects) if split_of(number) == "test"}


def test_every_problem_follows_from_its_steps(web: Web):
    rows = web.rows("problems")
    for row in rows:
        steps = row["meta"]["steps"]
        assert row["meta"]["difficulty"] == len(steps)
        assert all(evaluate(step) for step in steps), steps
        for step, after in zip(steps, steps[1:]):
            assert after.split()[0] == step.split()[-1]  # each goes on from the last result
        assert row["answer"] == steps[-1].split()[-1]
        assert row["meta"]["solution"].endswith(f"The answer is {row['answer']}.")
        assert int(row["answer"]) >= 0
        for number in steps[0].split()[0:3:2]:
            assert number in row["prompt"] or "/" in steps[0] or "*" in steps[0]
    assert not evaluate("2 + 2 = 5") and not evaluate("7 / 2 = 3")
    assert {row["meta"]["difficulty"] for row in rows} == {1, 2, 3, 4}


def test_no_problem_is_both_learned_and_tested(web: Web):
    rows = web.rows("problems")
    assert len({row["prompt"] for row in rows}) == len(rows)
    share = Counter(row["split"] for row in rows)["test"] / len(rows)
    assert 0.15 < share < 0.25


KINDS = {"identity", "smalltalk", "known", "context", "search", "steps", "direct", "python"}


def said(row: dict) -> str:
    """All that a conversation holds, calls included."""
    calls = [c["function"]["arguments"] for m in row["messages"] for c in m["tool_calls"] or []]
    return " ".join([*(m["content"] for m in row["messages"]), *calls])


def test_conversations_can_be_learned_and_never_speak_of_held_out_subjects(web: Web):
    rows = web.rows("conversations")
    hidden = held_out(web)
    assert KINDS | {"spelling", "skill", "story", "several"} == {row["kind"] for row in rows}
    for row in rows:
        assert check_messages([{k: v for k, v in m.items() if v} for m in row["messages"]]) is None
        text = said(row)
        assert "{" not in text.replace('{"', "") and "=>" not in text
        assert not any("  " in message["content"] for message in row["messages"])
        if row["kind"] == "known":
            assert not any(name in text for name in hidden)


def test_half_of_each_kind_of_subject_is_held_out(web: Web):
    kinds = {fact["subject"]: fact["kind"] for fact in web.facts}
    hidden = Counter(kinds[name] for name in held_out(web))
    every = Counter(kinds.values())
    for kind in ("person", "village", "firm"):
        assert abs(hidden[kind] / every[kind] - 0.5) < 0.1


def test_well_known_facts_are_answered_right(web: Web):
    facts = {fact["fact_id"]: fact for fact in web.facts}
    rows = [row for row in web.rows("conversations") if row["kind"] == "known"]
    assert rows
    for row in rows:
        assert facts[row["fact_id"]]["value"] in row["messages"][-1]["content"]
        assert facts[row["fact_id"]]["exposure"] > max(RARE)


def test_what_is_told_is_answered_in_its_own_words(web: Web):
    for row in web.rows("conversations"):
        if row["kind"] == "context":
            told, answer = row["messages"]
            assert answer["content"][1:-1] in told["content"]  # on pages it may stand mid-sentence


def test_what_is_searched_for_stands_in_the_question_and_is_found(web: Web):
    for row in web.rows("conversations"):
        if row["kind"] != "search":
            continue
        _, asked, call, found, answer = row["messages"]
        query = json.loads(call["tool_calls"][0]["function"]["arguments"])["query"]
        assert query[0] == " " and query in asked["content"]
        assert query.strip() in answer["content"] and query.strip() in found["content"]
        value = answer["content"].rstrip(".").split()[-1]
        assert value in found["content"]


def test_code_in_conversations_gives_the_result_that_follows(web: Web):
    n = 0
    for row in web.rows("conversations"):
        for message, after in zip(row["messages"], row["messages"][1:]):
            for call in message["tool_calls"] or []:
                if call["function"]["name"] == "python":
                    code = json.loads(call["function"]["arguments"])["code"]
                    assert str(value_of(code)) == after["content"].strip("'"), code
                    n += 1
    assert n > 50


def value_of(code: str):
    """The value of sums and of three things that can be asked of a word."""
    if re.fullmatch(r"[\d+\-*/() ]+", code):
        return arithmetic(ast.parse(code, mode="eval").body)
    word = re.search(r'len\("(\w+)"\)|str\.count\("(\w+)", "(\w)"\)|" "\.join\("(\w+)"\)', code)
    length, counted, letter, joined = word.groups()
    return len(length) if length else counted.count(letter) if counted else " ".join(joined)


def arithmetic(node):
    if isinstance(node, ast.Constant):
        return node.value
    signs = {ast.Add: int.__add__, ast.Sub: int.__sub__, ast.Mult: int.__mul__}
    sign = {**signs, ast.FloorDiv: int.__floordiv__}[type(node.op)]
    return sign(arithmetic(node.left), arithmetic(node.right))


def test_the_schoolbook_answers_from_its_text_and_knows_nobody(web: Web):
    rows = web.rows("textbook")
    assert {row["kind"] for row in rows} == set(SHARES)
    subjects = [fact["subject"] for fact in web.facts if " " in fact["subject"]]
    text = "\n".join(row["text"] for row in rows)
    assert not [name for name in subjects if name in text]
    measured = [lead.replace("{s}", "").strip() for leads in PHRASINGS.values() for lead in leads]
    measured = [lead for lead in measured if " " in lead]
    for row in rows:
        told, _, rest = row["text"].partition("\n")
        if row["kind"] == "reading":
            answers = re.findall(r"\?[ \n](.+\.)(?:\n|$)", rest)
            assert len(answers) == rest.count("?") > 0
            assert all(answer[1:-1] in told for answer in answers)
            assert not any(lead in row["text"] for lead in measured)
        if row["kind"] == "dictation":
            assert told.split(" ", 1)[1].removeprefix("teacher reads: ").strip(".") in rest


def test_rankings_rank_every_response(web: Web):
    rows = web.rows("preferences")
    longest_wins = 0
    for row in rows:
        assert len(row["responses"]) == len(row["ranks"]) == 4
        assert min(row["ranks"]) == 1
        best = row["responses"][row["ranks"].index(1)]
        longest_wins += len(best) == max(map(len, row["responses"]))
    assert longest_wins / len(rows) < 0.5  # length alone must not decide
    assert {row["split"] for row in rows} == {"train", "test"}


def test_quizzes_have_one_right_choice(web: Web):
    rows = web.rows("quizzes")
    for row in rows:
        if row["kind"] == "choice":
            assert len(set(row["choices"])) == 4
            assert row["choices"][row["gold"]] == row["answer"]
        else:
            assert row["gold"] == -1 and row["aliases"]
    exposures = Counter(row["exposure"] for row in rows if row["topic"] == "fact")
    exposures = Counter({k: v // 2 for k, v in exposures.items()})  # each is also a choice
    assert exposures == dict.fromkeys(EXPOSURES, web.plan.facts)
    gold = Counter(row["gold"] for row in rows if row["kind"] == "choice")
    assert max(gold.values()) < 0.35 * sum(gold.values())
