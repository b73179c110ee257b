"""The claims of `make tiny`, over several training seeds: do they hold, or did one seed get lucky?

    python benchmarks/claims.py [--seeds 1337 1 2] [--world 1337] [--recipe tiny] [--out DIR]

Each seed is a whole run of the Makefile with its own initial weights, order of data, samples and
rollouts, on the same synthetic web and the same held-out items (--world is its seed). Takes as long
as `make tiny` for each. A finished run in --out is not made again, an unfinished one is continued.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import yaml

from llmctl.core.console import render_table
from llmctl.view.claims import Row, claim_rows

HERE = Path(__file__).resolve().parent.parent
TRAINED = ("pretrain", "sft", "probe", "rm", "rl")  # stages that take a training seed


def recipe(name: str, seed: int, world: int, path: Path) -> None:
    """The recipe with one seed for everything that is trained, and one for the web."""
    settings = yaml.safe_load((HERE / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    for stage in TRAINED:
        settings.setdefault(stage, {})["seed"] = seed
    settings.setdefault("synth", {})["seed"] = world
    text = yaml.safe_dump(settings, sort_keys=False)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def whole_run(name: str, seed: int, world: int, out: Path) -> tuple[list[Row], float]:
    """Make the run of one seed; (its claims, seconds)."""
    folder, path = out / f"world-{world}-seed-{seed}", out / f"world-{world}-seed-{seed}.yaml"
    recipe(name, seed, world, path)
    began = time.monotonic()
    made = [f"RUN={folder}", f"FLAGS=--recipe {path}", f"RECIPE={name}"]
    with open(out / f"{folder.name}.log", "ab") as log:
        subprocess.run(["make", "run", *made], cwd=HERE, stdout=log, stderr=log, check=True)
    return claim_rows(folder), time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1337, 1, 2])
    parser.add_argument("--world", type=int, default=1337)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--out", type=Path, default=HERE / "runs" / "claims")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    found: list[list[Row]] = []
    for seed in args.seeds:
        rows, seconds = whole_run(args.recipe, seed, args.world, out)
        found.append(rows)
        print(f"seed {seed}: {sum(r.holds for r in rows)} of {len(rows)} claims, {seconds:.0f} s")
    table = []
    for rows in zip(*found, strict=True):
        held = sum(row.holds for row in rows)
        for seed, row in zip(args.seeds, rows):
            first = row is rows[0]
            said = f"{held} of {len(rows)}" if first else ""
            table.append([row.claim if first else "", str(seed), row.measured, said])
    columns = ["claim", "seed", "right on held-out items (95% interval)", "holds in"]
    print(render_table("", columns, table, left=3))
    return 0 if all(row.holds for rows in found for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
