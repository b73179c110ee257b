"""What counts as right, ability by ability, and that nothing asked about was learned."""

import pytest

from llmctl.artifacts.store import Artifact
from llmctl.core.errors import UsageError
from llmctl.evals import abilities
from llmctl.evals.abilities import ABILITIES, Item, Questions, chosen
from llmctl.evals.tasks.generate import Answer
from llmctl.stages.eval import EvalConfig, dry_run
from llmctl.synth.build import write_facts, write_material
from llmctl.synth.plan import Shares, make_plan

SHARES = Shares(
    **dict.fromkeys(("blocked", "foreign", "thin", "list", "repetitive", "placeholder"), 0.01),
    **dict.fromkeys(("exact_duplicate", "near_duplicate", "mirror", "nonpage"), 0.01),
    **dict.fromkeys(("pii", "broken", "wrong_charset"), 0.0),
)


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    plan = make_plan(3, SHARES, 24, pages=1200, textbook_mb=0.01)
    write_facts(plan, folder / "facts.parquet")
    write_material(plan, folder)
    return folder


def answer(text, finish="stop"):
    return Answer(text, {"role": "assistant", "content": text}, [1], finish)


@pytest.mark.parametrize(
    ("ability", "wanted", "reply", "right"),
    [
        ("known", ["Bath", "the Bath"], "She was born in Bath.", True),
        ("known", ["Bath"], "She was born in Batheaston.", False),
        ("known", ["Bath"], "I don't know. Bath perhaps.", False),
        ("strangers", [], "Sorry, I don't know.", True),
        ("strangers", [], "He plays the lute.", False),
        ("steps", ["42"], "17 + 25 = 42. The answer is 42.", True),
        ("steps", ["42"], "17 + 25 = 42. The answer is 43.", False),
        ("letters", ["c o w"], "c o w.", True),
        ("letters", ["c o w"], "c o r.", False),
        ("letters", ["3"], "It has 3 letters.", True),
        ("letters", ["3"], "It has 13 letters.", False),
    ],
)
def test_right_and_wrong(ability, wanted, reply, right):
    item = Item("?", tuple(wanted))
    assert ABILITIES[ability].right(item, answer(reply)) == right


def test_an_answer_that_does_not_end_is_not_in_form():
    ends = ABILITIES["answers"].right
    item = Item("?", ())
    assert ends(item, answer("Yes.")) and not ends(item, answer("Yes.", "length"))
    assert not ends(item, answer(""))


def test_every_ability_has_items_and_none_of_them_was_learned(web):
    import pyarrow.parquet as pq

    learned = {
        message["content"]
        for row in pq.read_table(web / "conversations.parquet").to_pylist()
        for message in row["messages"]
    }
    questions = Questions(web)
    for name, ability in ABILITIES.items():
        items = questions.of(ability.items)
        assert len(items) >= 20, name
        asked = {item.prompt for item in items}
        assert not asked & learned, name


def test_names_of_abilities_are_checked():
    assert chosen(("known,steps", "search")) == ["known", "steps", "search"]
    assert chosen(("all",)) == list(ABILITIES)
    with pytest.raises(UsageError, match="did you mean"):
        chosen(("knwon",))


def test_a_base_model_is_not_asked_what_needs_a_chat_format(web, monkeypatch):
    asked = []

    def answer_all(engine, format, prompts, params, tools=None, *, on_answer):
        asked.append(len(prompts))
        return [answer("nothing") for _ in prompts]

    monkeypatch.setattr(abilities, "answer_all", answer_all)
    names = ["answers", "known", "search", "python"]
    found = abilities.measure(None, None, names, web=web, documents=None, max_tokens=4)
    assert [m.name for m in found] == ["known"] and found[0].right == 0
    assert asked == [found[0].n]


def test_limit_draws_the_same_items_by_seed(web):
    everything = Questions(web).of("known")
    few = Questions(web, 5, seed=1).of("known")
    assert len(few) == 5 and set(few) < set(everything)
    assert few == Questions(web, 5, seed=1).of("known") != Questions(web, 5, seed=2).of("known")
    assert Questions(web, 10**6, seed=1).of("known") == everything


def test_items_without_room_are_left_out():
    items = [Item("a", ("Bath",)), Item("b", ("Bath",))]
    no_room = Answer("", {"role": "assistant", "content": ""}, [], "context")
    found = abilities._judged("known", ABILITIES["known"], items, [answer("Bath."), no_room])
    assert (found.right, found.n, found.no_room) == (1, 1, 1)


def test_a_dry_run_plans_abilities_and_their_items(web, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    config = EvalConfig(abilities=("known, python",), web=str(web), limit=7)
    dry_run(config, [Artifact(tmp_path, "foreign")])
    said = capsys.readouterr().err
    lines = [line.split() for line in said.splitlines() if "known" in line or "python" in line]
    assert lines == [["known", "7"], ["python", "python", "7"]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"abilities": ("known",), "shots": 2}, "shots says nothing with --abilities"),
        ({"abilities": ("known",), "chat": False}, "chat says nothing"),
        ({"abilities": ("known",), "tools": ("python",)}, "tools says nothing"),
        ({"abilities": ("known",), "split": ""}, "split says nothing"),
        ({"abilities": ("known",), "bos": True}, "bos says nothing"),
        ({"tasks": ("t",), "max_tokens": 3}, "max_tokens says nothing with --tasks"),
        ({"dtype": "bf16"}, "dtype says nothing without --tasks or --abilities"),
        ({"device": "cuda"}, "measured on the CPU"),
        ({"limit": 3}, "limit says nothing without"),
    ],
)
def test_a_setting_that_would_not_be_heeded_is_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        EvalConfig(**settings)
