"""One small web, built once for all tests of this folder."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from synthetic import Web, small_plan

from llmctl.synth.build import build_web


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Web:
    folder = tmp_path_factory.mktemp("web")
    plan = small_plan(5)
    stats = build_web(plan, folder)
    pages = pq.read_table(folder / "truth.parquet").to_pylist()
    return Web(plan, folder, stats, pages, pq.read_table(folder / "facts.parquet").to_pylist())
