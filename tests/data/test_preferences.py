"""Preference files of every known form: read rightly, or refused with the reason."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmctl.core.errors import BadInput, NoInput
from llmctl.data.preferences import read_preferences

Q = {"role": "user", "content": "Why?"}
SYSTEM = {"role": "system", "content": "Be short."}


def said(text):
    return {"role": "assistant", "content": text}


def write(tmp_path, *rows, name="data.jsonl"):
    path = tmp_path / name
    path.write_bytes(b"\n".join(json.dumps(r, ensure_ascii=False).encode() for r in rows))
    return path


def only(path):
    [ranking] = read_preferences(path).rows
    return ranking


def counts(found):
    return {reason: skip.count for reason, skip in found.skipped.items()}


HH = {
    "chosen": "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: Why?\n\nAssistant: Because.",
    "rejected": "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: Why?\n\nAssistant: No.",
}
A, B = "Because.", "No."
FORMS = {  # one row of each, and its prompt
    "HH-RLHF": (HH, [{"role": "user", "content": "hi"}, said("yes?"), Q]),
    "explicit prompt": ({"prompt": [Q], "chosen": [said(A)], "rejected": [said(B)]}, [Q]),
    "implicit prompt": (
        {"chosen": [SYSTEM, Q, said(A)], "rejected": [SYSTEM, Q, said(B)]},
        [SYSTEM, Q],
    ),
    "texts": ({"prompt": "Why?", "chosen": A, "rejected": B}, [Q]),
    "prompt stands twice": (
        {"prompt": "Why?", "chosen": [Q, said(A)], "rejected": [Q, said(B)]},
        [Q],
    ),
    "prompt is what comes before": (
        {"prompt": [SYSTEM], "chosen": [Q, said(A)], "rejected": [Q, said(B)]},
        [SYSTEM, Q],
    ),
    "prompt stands twice under a system message": (
        {"prompt": "Why?\n", "chosen": [SYSTEM, Q, said(A)], "rejected": [SYSTEM, Q, said(B)]},
        [SYSTEM, Q],
    ),
    "one side repeats the prompt": (
        {"prompt": [Q], "chosen": [Q, said(A)], "rejected": [said(B)]},
        [Q],
    ),
    "texts alone": ({"chosen": A, "rejected": B}, []),
    "LLaMA-Factory": (
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": A},
            "rejected": {"from": "gpt", "value": B},
        },
        [Q],
    ),
    "Auto-J": ({"prompt": "Why?", "response 1": B, "response 2": A, "label": 1}, [Q]),
    "ranked responses": ({"prompt": [Q], "responses": [A, B], "ranks": [1, 2]}, [Q]),
    "OASST rankings": ({"tree": "t", "messages": [Q], "ranked": [A, B]}, [Q]),
    "PandaLM": (
        {"instruction": "Why?", "input": "", "response1": B, "response2": A}
        | {f"annotator{n}": vote for n, vote in enumerate((2, 1, 2), 1)},
        [Q],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_prompt_and_the_better_side(form, tmp_path):
    row, prompt = FORMS[form]
    ranking = only(write(tmp_path, row))
    assert ranking.prompt == prompt
    [(better, worse)] = ranking.pairs
    assert (ranking.text(better), ranking.text(worse)) == ("Because.", "No.")


def test_the_form_is_told(tmp_path):
    write(tmp_path, HH, name="a.jsonl")
    write(tmp_path, FORMS["Auto-J"][0], name="b.jsonl")
    found = read_preferences(tmp_path)
    assert found.formats == {"HH-RLHF": 1, "Auto-J": 1} and found.format == "HH-RLHF, Auto-J"


def test_a_ranking_of_k_holds_every_pair_but_those_of_equal_rank(tmp_path):
    row = {"prompt": [Q], "responses": ["a", "b", "c", "d"], "ranks": [2, 1, 2, 3], "split": "test"}
    ranking = only(write(tmp_path, row))
    assert set(ranking.pairs) == {(1, 0), (1, 2), (1, 3), (0, 3), (2, 3)}
    assert ranking.split == "test"


def test_turns_after_the_first_difference_are_the_response(tmp_path):
    row = {"chosen": [Q, said("a"), Q, said("b")], "rejected": [Q, said("c")]}
    ranking = only(write(tmp_path, row))
    assert ranking.prompt == [Q] and ranking.responses == [[said("a"), Q, said("b")], "c"]


def test_panda_lm_counts_the_majority_and_drops_what_is_no_text(tmp_path):
    row = {
        "instruction": "Say",
        "input": "it",
        "outputs": {"m": "x", "n": "y", "o": True, "p": "z"},
        "pairs": [
            {"a": "m", "b": "n", "votes": [2, 2, 1]},
            {"a": "m", "b": "o", "votes": [1, 1, 1]},
            {"a": "n", "b": "p", "votes": [0, 0, 1]},
            {"a": "m", "b": "p", "votes": [0, 1, 2]},
        ],
    }
    found = read_preferences(write(tmp_path, row))
    [ranking] = found.rows
    assert ranking.prompt[0]["content"] == "Say\n\nit"
    assert ranking.responses == ["x", "y"] and ranking.pairs == ((1, 0),)
    assert counts(found) == {"an output that is no text": 1, "tied": 2}


def test_trees_give_the_ranked_replies_of_every_question(tmp_path):
    def reply(text, rank, *replies, **more):
        return {"role": "assistant", "text": text, "rank": rank, "replies": list(replies)} | more

    again = {"role": "prompter", "text": "more", "rank": 0}
    again["replies"] = [reply("d", 1), reply("e", 0), reply("f", None), reply("g", 2, deleted=True)]
    again["replies"] += [reply("h", 3, review_result=False)]
    root = {"role": "prompter", "text": "Why?", "replies": [reply("a", 1), reply("b", 0, again)]}
    found = read_preferences(write(tmp_path, {"message_tree_id": "t", "prompt": root}))
    assert [r.responses for r in found.rows] == [["a", "b"], ["d", "e"]]
    assert [r.pairs for r in found.rows] == [((1, 0),), ((1, 0),)]
    assert found.rows[1].prompt == [Q, said("b"), {"role": "user", "content": "more"}]
    assert {r.group for r in found.rows} == {"tree t"}


def test_what_says_nothing_is_dropped_and_counted(tmp_path):
    def trl(chosen, rejected, **more):
        return {"prompt": "Why?", "chosen": chosen, "rejected": rejected} | more

    path = write(
        tmp_path,
        trl("a", "b"),
        trl("a", " a "),
        trl("", "b"),
        trl("a", "   "),
        {**FORMS["Auto-J"][0], "label": 2, "chosen": "a", "rejected": "a"},
    )
    found = read_preferences(path)
    assert len(found.rows) == 1 and found.n_bad == 0
    assert counts(found) == {"identical": 2, "empty": 2}
    ties = {"prompt": [Q], "responses": ["a", "b", "a", ""], "ranks": [1, 1, 2, 3]}
    ranking = only(write(tmp_path, ties))
    assert ranking.responses == ["b", "a"] and ranking.pairs == ((0, 1),)


BAD = [
    b"{not json",
    b"[1]",
    b'{"prompt": "Why?", "chosen": "a"}',
    b'{"prompt": "Why?", "chosen": true, "rejected": "b"}',
    b'{"prompt": [{"role": "king", "content": "x"}], "chosen": "a", "rejected": "b"}',
    b'{"prompt": [{"role": "user", "content": 7}], "chosen": "a", "rejected": "b"}',
    b'{"prompt": "Why?", "chosen": "a", "rejected": "b", "margin": NaN}',
    b'{"prompt": "Why?", "chosen": "a", "rejected": "b", "margin": 1' + b"0" * 400 + b"}",
    b'{"prompt": "Why?", "chosen": "a", "rejected": "b", "margin": "1"}',
    b'{"chosen": [{"role": "assistant", "content": "", "tool_calls": ["x"]}], '
    b'"rejected": [{"role": "assistant", "content": "b"}]}',
    b'{"chosen": [{"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}], '
    b'"rejected": [{"role": "assistant", "content": "b"}]}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda b: str(b[:30]))
def test_damage_is_counted_and_too_much_of_it_refused(bad, tmp_path):
    path = tmp_path / "data.jsonl"
    good = json.dumps(FORMS["texts"][0]).encode()
    path.write_bytes(b"\n".join([good, bad, good, good]))
    with pytest.raises(BadInput, match=r"1 of 4 rows .*first: data.jsonl:2"):
        read_preferences(path)
    assert len(read_preferences(path, max_bad=0.3).rows) == 3


def test_lines_end_at_newlines_only(tmp_path):
    row = {"prompt": "Why?\u2028\u0085", "chosen": "a\u2028b", "rejected": "b\r"}
    found = read_preferences(write(tmp_path, row, row))
    assert len(found.rows) == 2 and found.rows[0].text(0) == "a\u2028b"


def test_files_of_every_packing(tmp_path):
    rows = [FORMS["texts"][0]] * 3
    (tmp_path / "list.json").write_text(json.dumps(rows))
    lines = b"\n".join(json.dumps(r).encode() for r in rows)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(lines))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert len(read_preferences(path).rows) == 3
    torn = tmp_path / "packed.jsonl.gz"
    torn.write_bytes(torn.read_bytes()[:-9])
    with pytest.raises(BadInput, match="damaged"):
        read_preferences(torn)


def test_a_web_artifact_holds_its_rankings(tmp_path):
    pq.write_table(
        pa.Table.from_pylist([FORMS["ranked responses"][0]]), tmp_path / "preferences.parquet"
    )
    (tmp_path / "other.jsonl").write_text("{}")
    assert read_preferences(tmp_path).n_pairs == 1


def test_answers_nobody_has_compared_are_refused(tmp_path):
    row = {"id": "u", "prompt": "Why?", "completions": [{"model": "m", "completion": "a"}]}
    with pytest.raises(BadInput, match="without any rank.*rank them first"):
        read_preferences(write(tmp_path, row))
    with pytest.raises(BadInput, match="no known form.*'text'.*HH-RLHF"):
        read_preferences(write(tmp_path, {"text": "x"}))
    with pytest.raises(BadInput, match="no ranking to learn from: it holds no row"):
        read_preferences(write(tmp_path))
    with pytest.raises(NoInput):
        read_preferences(tmp_path / "absent")


def test_the_real_files(shared):
    folder = shared / "data" / "post" / "preferences"
    expected = {  # rankings, pairs
        "hh_harmless_base_test": (1830, 1830),
        "autoj_pairwise": (774, 774),
        "llamafactory_dpo_en_demo": (245, 245),
        "oasst_rankings": (162, 585),
        "pandalm_human_3annotators": (113, 615),
    }
    for name, (rankings, pairs) in expected.items():
        found = read_preferences(folder / f"{name}.jsonl")
        assert (len(found.rows), found.n_pairs) == (rankings, pairs), name
    trees = shared / "data" / "post" / "conversations" / "oasst_en_100_trees.jsonl"
    assert read_preferences(trees).n_pairs == 585
    with pytest.raises(BadInput, match="without any rank"):
        read_preferences(folder / "tulu1_paired_outputs_unlabelled.jsonl")
