"""kill -9 in each stage at random moments, run the same command again, compare the bytes.

    python benchmarks/kill9.py --trials 10 [--stages synth,tokenize] [--seed 0]

For each stage: one uninterrupted run, then trials that are killed at a moment drawn uniformly over
its duration (the main process alone, so that orphaned workers would show) and run again until
done. Every payload hash must equal the uninterrupted run's. Exit code 1 when one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# stage -> (the stage its INPUT comes from, its flags): small, but every stage does several steps
CHAIN: dict[str, tuple[str | None, list[str]]] = {
    "synth": (None, ["--size-mb", "1"]),
    "crawl-filter": ("synth", ["--workers", "2"]),
    "tokenize": ("crawl-filter", ["--vocab-size", "1024"]),
    "pretrain": (
        "tokenize",
        "--depth 1 --steps 60 --save-steps 10 --eval-steps 30 --seq-len 64 --batch-tokens 1024 "
        "--dtype fp32 --compile off".split(),
    ),
    "sft": (
        "pretrain",
        "--seq-len 256 --batch-tokens 1024 --steps 40 --save-steps 5 --eval-steps 20 "
        "--sample-tokens 8 --dtype fp32".split(),
    ),
    "rm": (
        "pretrain",
        "--batch 4 --steps 40 --save-steps 5 --eval-steps 20 --dtype fp32".split(),
    ),
    "rl": (
        "sft",
        "--steps 8 --save-steps 2 --eval-steps 4 --eval-n 8 --prompts-per-step 4 --group-size 4 "
        "--max-tokens 24 --dtype fp32".split(),
    ),
}


def command(stage: str, source: Path | None, out: Path) -> list[str]:
    """The command line of one stage."""
    words = [sys.executable, "-m", "llmctl", stage]
    return [*words, *([str(source)] if source else []), *CHAIN[stage][1], "-o", str(out)]


def run(words: list[str], log: Path, kill_after: float | None = None) -> tuple[int, float]:
    """Run a command; kill -9 its main process after some seconds. Returns (exit code, seconds)."""
    started = time.monotonic()
    with open(log, "ab") as file:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            code = child.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            code = child.wait()
    return code, time.monotonic() - started


def payload(folder: Path) -> dict[str, str]:
    """Name -> hash of the payload files of a finished artifact."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return {f["name"]: f["sha256"] for f in manifest["files"] if not f.get("volatile")}


def make_inputs(root: Path, stages: list[str]) -> dict[str, float]:
    """Run the chain uninterrupted up to the last stage asked for; seconds each stage took."""
    needed, seconds = [], {}
    for stage in CHAIN:
        needed.append(stage)
        if stage == stages[-1]:
            break
    for stage in needed:
        source = CHAIN[stage][0]
        words = command(stage, root / source if source else None, root / stage)
        code, seconds[stage] = run(words, root / f"{stage}.log")
        if code:
            sys.exit(f"{stage} failed ({code}); see {root / f'{stage}.log'}")
    return seconds


def trial(root: Path, stage: str, moment: float, name: str) -> str:
    """Kill one run at a moment, rerun it, compare. Returns '' or what was wrong."""
    source = CHAIN[stage][0]
    out = root / f"{stage}-{name}"
    words = command(stage, root / source if source else None, out)
    code, _ = run(words, root / f"{out.name}.log", kill_after=moment)
    if code not in (0, -signal.SIGKILL):
        return f"the first run ended with {code}"
    code, _ = run(words, root / f"{out.name}.log")
    if code:
        return f"the second run ended with {code}; see {root / f'{out.name}.log'}"
    if payload(out) != payload(root / stage):
        return f"other bytes than the uninterrupted run in {out}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10, help="kills a stage")
    parser.add_argument("--stages", default=",".join(CHAIN), help="comma-separated")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    stages = [s for s in CHAIN if s in args.stages.split(",")]
    draw, failures = random.Random(args.seed), 0
    with tempfile.TemporaryDirectory(prefix="llmctl-kill9-") as folder:
        root = Path(folder)
        seconds = make_inputs(root, stages)
        for stage in stages:
            same = 0
            for i in range(args.trials):
                moment = draw.uniform(0.0, seconds[stage])
                wrong = trial(root, stage, moment, str(i))
                same += not wrong
                if wrong:
                    print(f"{stage}, killed at {moment:.2f} s: {wrong}", file=sys.stderr)
            failures += args.trials - same
            print(f"{stage}: {same}/{args.trials} byte-identical (run of {seconds[stage]:.1f} s)")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
