from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmctl.core.errors import BadInput, NoInput
from llmctl.evals.truth import COLUMNS, exposures, score_documents
from llmctl.synth.truth import FACTS, TRUTH, write_parquet

AD = "Advertisement: a kettle for everybody, now at half the price."


def page(url: str, name: str, text: str, **more: object) -> dict:
    row = dict.fromkeys(TRUTH.names)
    row |= {"url": url, "class": name, "main_text": text, "kept_expected": name == "good"}
    row |= {"boilerplate": ["Home and latest", AD], "pii": [], "facts": [], "broken": False}
    return row | more


@pytest.fixture
def web(tmp_path: Path) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    mail = [{"kind": "email", "value": "a@b.example"}]
    rows = [
        page("u1", "good", "Ada Tarn plays the flute. a@b.example", facts=["f"], pii=mail),
        page("u2", "near_duplicate", "Ada Tarn plays the flute!", facts=["f"], dup_of="u1"),
        page("u3", "good", "By trade Bo Quill is a miller.", facts=["g"]),
        page("u4", "thin", "Nothing."),
        page("u5", "blocked", "Spam."),
    ]
    write_parquet(folder / "truth.parquet", TRUTH, [rows])
    facts = [
        fact("f", "flute", ["Ada Tarn plays the"]),
        fact("g", "miller", ["Bo Quill works as a", "By trade Bo Quill is a"]),
        fact("h", "harp", ["Cy Venn plays the"]),
    ]
    write_parquet(folder / "facts.parquet", FACTS, [facts])
    return folder


def fact(fact_id: str, value: str, prompts: list[str]) -> dict:
    row = dict.fromkeys(FACTS.names)
    return row | {"fact_id": fact_id, "value": value, "prompts": prompts}


def documents(folder: Path, **texts: str) -> Path:
    folder.mkdir()
    rows = [{"url": url, "text": text, "id": f"id-{url}"} for url, text in texts.items()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-00000.parquet")
    return folder


def test_scores_count_what_is_left(web: Path, tmp_path: Path):
    docs = documents(tmp_path / "d", u1=f"Ada plays. a@b.example\n{AD}", u4="Nothing.")
    scores = {(row.kind, row.name): row for row in score_documents(web, docs)}
    assert scores["class", "good"][2:] == (2, 1, 50.0)
    assert scores["class", "thin"][2:] == (1, 1, 0.0)
    assert scores["class", "blocked"].removed == 100.0
    assert scores["boilerplate", "lines"][2:] == (4, 1, 75.0)  # two lines on each kept page
    assert scores["pii", "email"][2:] == (1, 1, 0.0)
    assert len(COLUMNS) == len(scores["class", "good"])


def test_a_copy_kept_instead_of_its_original_counts_as_the_original(web: Path, tmp_path: Path):
    docs = documents(tmp_path / "d", u2="Ada Tarn plays the flute!")
    scores = {row.name: row.kept for row in score_documents(web, docs)}
    assert (scores["good"], scores["near_duplicate"]) == (1, 0)
    both = documents(tmp_path / "e", u1="Ada Tarn plays the flute.", u2="Ada Tarn plays the flute!")
    scores = {row.name: row.kept for row in score_documents(web, both)}
    assert (scores["good"], scores["near_duplicate"]) == (1, 1)


def test_exposure_is_counted_after_filtering(web: Path, tmp_path: Path):
    docs = documents(
        tmp_path / "d",
        u1="We heard that Ada Tarn plays the flute.",
        u2="Ada Tarn plays the flute!",  # the same page again
        u3="Somebody is a miller.",  # the statement was cut out
    )
    assert exposures(web, docs) == {"f": 1, "g": 0, "h": 0}
    assert exposures(web, docs, keep=lambda name: name == "id-u3") == {"f": 0, "g": 0, "h": 0}


def test_what_is_no_web_or_no_documents_is_refused(web: Path, tmp_path: Path):
    with pytest.raises(NoInput, match="truth.parquet"):
        score_documents(tmp_path, tmp_path)
    with pytest.raises(NoInput, match="part-"):
        score_documents(web, web)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "part-00000.parquet")
    with pytest.raises(BadInput, match="no column url"):
        exposures(web, tmp_path)
