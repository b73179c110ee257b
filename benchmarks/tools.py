"""What tools cost: milliseconds of a sandboxed run, of a graded program, of a search.

python benchmarks/tools.py [--runs 200] [--megabytes 5]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from typing import Any


def timed(what: Callable[[], Any], runs: int) -> dict[str, float]:
    """Milliseconds of one call: mean and the slowest of a hundred."""
    found = []
    for _ in range(runs):
        started = time.perf_counter()
        what()
        found.append(1e3 * (time.perf_counter() - started))
    found.sort()
    return {"mean_ms": sum(found) / runs, "p99_ms": found[min(runs - 1, int(0.99 * runs))]}


def texts(megabytes: float) -> list[str]:
    """Made-up sentences over a vocabulary whose words have Zipf's frequencies."""
    draw = random.Random(0)
    words = [f"word{i}" for i in range(30_000)]
    weights = [1 / (i + 1) for i in range(len(words))]
    pages, size = [], 0
    while size < megabytes * 1e6:
        chosen = draw.choices(words, weights, k=400)
        page = " ".join(" ".join(chosen[i : i + 14]).capitalize() + "." for i in range(0, 400, 14))
        pages.append(page)
        size += len(page)
    return pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--megabytes", type=float, default=5.0)
    arguments = parser.parse_args()
    from llmctl import sandbox
    from llmctl.infer.search import Index
    from llmctl.reward.python_tests import grade_tests

    report: dict[str, Any] = {}
    started = time.perf_counter()
    why = sandbox.available()
    if why is None:
        report["start_ms"] = 1e3 * (time.perf_counter() - started)
        report["mode"] = sandbox.mode()
        report["run"] = timed(lambda: sandbox.run_python("sum(range(100))"), arguments.runs)
        tests = [f"assert square({i}) == {i * i}" for i in range(3)]
        code = "def square(x): return x * x"
        report["grade"] = timed(lambda: grade_tests(code, tests), arguments.runs)
    else:
        report["sandbox"] = why
    pages = texts(arguments.megabytes)
    started = time.perf_counter()
    index = Index(pages)
    report["index_seconds"] = time.perf_counter() - started
    report["passages"] = len(index.passages)
    report["search"] = timed(lambda: index.find("Which word812 has word40 and word999?"), 100)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
