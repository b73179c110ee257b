from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from synthetic import SHARES, Web

from llmctl.core.errors import UsageError
from llmctl.synth.facts import EXPOSURES, KNOWN, PHRASINGS, place_mentions, values_of
from llmctl.synth.plan import cast_of, make_plan


def stating(web: Web, fact: dict) -> list[dict]:
    """Good pages whose text states a fact in one of its phrasings."""
    needles = [f"{prompt[1:]} {fact['value']}" for prompt in fact["prompts"]]
    return [p for p in web.of("good") if any(n in p["main_text"] for n in needles)]


def test_exposure_is_the_number_of_good_pages_that_state_a_fact(web: Web):
    listed = Counter(fact_id for page in web.of("good") for fact_id in page["facts"])
    for fact in web.facts:
        pages = stating(web, fact)
        assert len(pages) == fact["exposure"] == listed[fact["fact_id"]]
        assert all(fact["fact_id"] in page["facts"] for page in pages)


def test_every_class_has_the_planned_number_of_facts(web: Web):
    counts = Counter(fact["exposure"] for fact in web.facts)
    assert counts == dict.fromkeys(EXPOSURES, web.plan.facts)
    assert web.stats["facts"] == {str(e): web.plan.facts for e in EXPOSURES}


def test_subjects_are_named_only_where_their_facts_are_stated(web: Web):
    texts = [(set(page["facts"]), page["main_text"]) for page in web.pages]
    for fact in web.facts:
        for stated, text in texts:
            assert fact["fact_id"] in stated or fact["subject"] not in text


def test_prompts_end_right_before_the_value_on_real_pages(web: Web):
    text = "\n".join(page["main_text"] for page in web.of("good"))
    for fact in web.facts:
        assert len(fact["prompts"]) == 3
        assert all(fact["subject"] in prompt for prompt in fact["prompts"])
        if fact["exposure"] == KNOWN:
            seen = sum(f"{prompt[1:]} {fact['value']}" in text for prompt in fact["prompts"])
            assert seen >= 2


def test_values_cannot_be_guessed():
    world, subjects, _ = cast_of(make_plan(1337, SHARES, 256, size_mb=6))
    for exposure in EXPOSURES:
        facts = [f for s in subjects if s.exposure == exposure for f in s.facts]
        assert len(facts) == 256
        best: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for fact in facts:
            best[fact.relation][fact.value] += 1
        majority = sum(values.most_common(1)[0][1] for values in best.values())
        assert majority / len(facts) <= 0.04
    for relation in PHRASINGS:
        assert len(set(values_of(relation, world))) >= 25  # a guess is right 4% of the time


def test_names_give_no_value_away():
    _, subjects, _ = cast_of(make_plan(1337, SHARES, 256, size_mb=6))
    assert len({s.name for s in subjects}) == len(subjects)
    for subject in subjects:
        words = subject.name.lower().split()
        for fact in subject.facts:
            assert not any(word.startswith(fact.value.lower()) for word in words)


def test_too_many_mentions_are_refused():
    _, subjects, _ = cast_of(make_plan(1337, SHARES, 256, size_mb=6))
    with pytest.raises(UsageError, match="do not fit"):
        place_mentions(subjects, 70, lambda page: True, 1)


def test_a_small_web_has_fewer_facts():
    assert make_plan(1, SHARES, 256, size_mb=1).facts < 100
    assert make_plan(1, SHARES, 256, size_mb=100).facts == 256
