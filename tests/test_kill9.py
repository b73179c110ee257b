"""One kill -9 in every stage of the chain; benchmarks/kill9.py does many."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kill9.py"


@pytest.fixture(scope="module")
def kill9():
    spec = importlib.util.spec_from_file_location("kill9", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chain(kill9, tmp_path_factory):
    root = tmp_path_factory.mktemp("chain")
    return root, kill9.make_inputs(root, list(kill9.CHAIN))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["synth", "crawl-filter", "tokenize", "pretrain", "sft", "rm"])
def test_killed_and_rerun_gives_the_same_bytes(kill9, chain, stage):
    root, seconds = chain
    assert kill9.trial(root, stage, 0.6 * seconds[stage], "once") == ""
