"""Extraction: a page that hangs, crashes or swells the parser costs itself; verdicts repeat."""

import os
import re
import subprocess
import sys
import time

import pytest
import warcs
from datatrove.data import Document

from llmctl.web import extract_child
from llmctl.web.blocks import Task
from llmctl.web.extract import Child, Ledger, MainText, PageKilled, _without_scripts, over_cap


def strange(html: str) -> str:
    """An extractor that does what the page says."""
    if "spin" in html:
        while True:
            pass
    if "sleep" in html:
        time.sleep(0.5)
    if "die" in html:
        os._exit(1)
    if "swell" in html:
        return "x" * (8 << 30)
    if "fail" in html:
        raise KeyError("broken")
    return html.upper()


@pytest.fixture
def block(tmp_path, monkeypatch):
    monkeypatch.setitem(extract_child.EXTRACTORS, "strange", strange)

    def make() -> MainText:
        return MainText(Task(keep_rejected=True), tmp_path / "ledger", "strange", 0.3, 1000)

    return make


def run(block: MainText, *texts: str) -> list[str]:
    docs = (Document(text, str(i)) for i, text in enumerate(texts))
    return [doc.text for doc in block.run(docs)]


def test_bad_pages_cost_themselves(block):
    step = block()
    kept = run(step, "one", "spin", "two", "die", "three", "swell", "four", "fail", "five", "")
    assert kept == ["ONE", "TWO", "THREE", "FOUR", "FIVE"]
    assert step.task.funnel.step("extract").dropped == {
        "extract_timeout": 1,
        "extract_crash": 2,
        "extract_error": 1,
        "no_main_text": 1,
    }


def test_the_clock_counts_work_not_waiting(block):
    assert run(block(), "sleep a little") == ["SLEEP A LITTLE"]


def test_a_rerun_repeats_the_clocks_verdict_without_asking(block, monkeypatch):
    run(block(), "spin")
    monkeypatch.setattr(Child, "extract", lambda self, html: pytest.fail("asked again"))
    step = block()
    assert run(step, "spin") == []
    assert step.task.rejected[0].drop.rule == "extract_timeout"


def test_a_torn_ledger_is_read_as_far_as_it_goes(tmp_path):
    ledger = Ledger(tmp_path / "x")
    ledger["a"], ledger["b"] = "extract_timeout", "extract_crash"
    path = tmp_path / "x"
    path.write_bytes(path.read_bytes()[:-5])
    again = Ledger(path)
    assert again["a"] == "extract_timeout" and again["b"] is None
    again["c"] = "extract_crash"
    assert Ledger(path)["c"] == "extract_crash"


def test_caps_go_before_the_clock():
    page = "<p>" * 50_000
    assert over_cap(page, 40_000).rule == "too_many_tags"
    assert over_cap(page, 60_000).rule == "too_deep"
    for attribute in ("a=1 ", "b='x y' ", "c "):
        tag = "<div " + attribute * 60_000 + ">"
        assert over_cap(tag, 1000).rule == "too_many_attributes"
    picture = "<p>text<img alt='a b' src='data:image/png;base64," + "A/b+" * 90_000 + "'>"
    assert over_cap(picture + "<script>if (a<b " + "x y=1 " * 60_000 + "</script>", 1000) is None
    assert over_cap("<p>text</p><br>" * 20_000, 100_000) is None


def test_scripts_are_taken_out_in_linear_time():
    for page in (
        "a<script>b<c</script >d<STYLE x='<'>e</style\n>f<script/>g",
        "<script>a</style>b</Script><style>c<style>d</style>e<scripts>f</script>",
        "<style>a<script>b</style>c</script>d<script>e",
    ):
        whole = re.compile(r"<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
        assert _without_scripts(page) == whole.sub("", page)
    begun = time.process_time()
    for name in ("script", "style"):
        page = f"<{name} x>{'y' * 50}" * 50_000 + "<p " + "x" * 30_000
        assert _without_scripts(page) == page
        assert over_cap(page, 100_000) is None or over_cap(page, 100_000).rule == "too_deep"
    closed = ("<style>" + "<script x>" * 50_000 + "</script>") * 2
    assert _without_scripts(closed) == closed.replace("<script x>" * 50_000 + "</script>", "")
    assert time.process_time() - begun < 5


def test_trafilatura_finds_the_text_and_forgets_the_page_before():
    child = Child("trafilatura", 10.0)
    try:
        html = warcs.page(warcs.prose(1)).decode()
        found = [child.extract(html) for _ in range(4)]
        assert found[0] and "Home" not in found[0] and len(set(found)) == 1
    finally:
        child.close()


def test_quickened_expressions_find_the_same_nodes():
    found = subprocess.run(
        [sys.executable, "-c", COMPARE], capture_output=True, text=True, timeout=100
    )
    assert found.stdout.split() == ["True", "True"], found.stderr


COMPARE = """
import random
from lxml import html
from trafilatura import xpaths
from llmctl.web.extract_child import quicken_trafilatura
rng = random.Random(0)
words = "share nav footer content article post-body comment-list main ad- hidden cookie x".split()
def attribute(name):
    return rng.choice(["", f" {name}=''", f' {name}="{rng.choice(words)} {rng.choice(words)}"'])
page = "".join(
    f"<{tag}{attribute('id')}{attribute('class')}{attribute('style')}>text</{tag}>"
    for tag in rng.choices(["div", "p", "span", "section", "ul", "article"], k=3000)
)
tree = html.fromstring(f"<html><body>{page}</body></html>")
def nodes():
    lists = [v for v in vars(xpaths).values() if isinstance(v, list)]
    return [[tree.getroottree().getpath(n) for n in e(tree)] for v in lists for e in v]
before = nodes()
print(quicken_trafilatura() >= 10)
print(nodes() == before and sum(map(len, before)) > 1000)
"""


def test_without_proc_a_child_starts_all_the_same(monkeypatch):
    limits = []

    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(extract_child, "open", missing, raising=False)
    monkeypatch.setattr(extract_child.resource, "setrlimit", lambda *limit: limits.append(limit))
    extract_child._limit_memory(100)
    assert limits == [(extract_child.resource.RLIMIT_CORE, (0, 0))]


def test_a_killed_child_is_replaced():
    child = Child("trafilatura", 10.0)
    html = warcs.page(warcs.prose(2)).decode()
    text = child.extract(html)
    os.kill(child._pid, 9)
    with pytest.raises(PageKilled):
        child.extract(html)
    assert child.extract(html) == text
    child.close()
