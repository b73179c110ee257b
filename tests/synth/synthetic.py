"""A web that tests look at, with its truth in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from llmctl.stages.synth import SynthConfig
from llmctl.synth.plan import Plan, make_plan

SHARES = SynthConfig().plan().shares


@dataclass(frozen=True)
class Web:
    plan: Plan
    folder: Path
    stats: dict[str, Any]
    pages: list[dict[str, Any]]
    facts: list[dict[str, Any]]

    def rows(self, name: str) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / f"{name}.parquet").to_pylist()

    def of(self, name: str) -> list[dict[str, Any]]:
        return [page for page in self.pages if page["class"] == name]


def small_plan(seed: int) -> Plan:
    return make_plan(seed, SHARES, 60, pages=1200, textbook_mb=0.1)
