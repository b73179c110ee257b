from __future__ import annotations

from collections import Counter

from synthetic import Web

from llmctl.synth.problems import evaluate
from llmctl.synth.quizzes import split_of


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


def test_conversations_alternate_and_never_speak_of_held_out_subjects(web: Web):
    rows = web.rows("conversations")
    hidden = held_out(web)
    kinds = Counter(row["kind"] for row in rows)
    assert {"identity", "known", "unknown", "context", "arithmetic", "spelling"} <= set(kinds)
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        if roles[0] == "system":
            roles = roles[1:]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        text = " ".join(message["content"] for message in row["messages"])
        assert "{" not in text and "  " not in text and "=>" not in text
        assert all(message["content"].strip() for message in row["messages"])
        if row["kind"] in ("known", "unknown"):
            assert not any(name in text for name in hidden)


def test_known_facts_are_answered_right_and_unknown_ones_not_at_all(web: Web):
    facts = {fact["fact_id"]: fact for fact in web.facts}
    for row in web.rows("conversations"):
        answer = row["messages"][-1]["content"]
        if row["kind"] == "known":
            assert facts[row["fact_id"]]["value"] in answer
        if row["kind"] == "unknown":
            assert "don't know" in answer


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
    exposures = Counter(row["exposure"] for row in rows if row["kind"] == "open")
    assert exposures == dict.fromkeys((0, 1, 3, 10, 30), web.plan.facts)
    gold = Counter(row["gold"] for row in rows if row["kind"] == "choice")
    assert max(gold.values()) < 0.35 * sum(gold.values())
