#!/usr/bin/env python3
"""Parquet to token bins, end to end: llmctl, datatrove's DocumentTokenizer, a bare tiktoken loop.

The same parquet files and the same tokenizer for all (32,768 ids, trained by llmctl beforehand, not
measured); one cold process each, start-up and imports included; MB of UTF-8 text per CPU second of
the whole process tree (Linux). The ids that were written are compared.

usage: benchmarks/tokenize_speed.py [--mb 100] [--text FILE] [-w WORKERS] [--work DIR]
Without --text (.parquet, .jsonl or .txt) it is drawn by a seeded generator; a smaller FILE is
repeated, every 50th word
replaced at random, so that no cache sees the same text twice. datatrove must be installed.
"""

from __future__ import annotations

import argparse
import bisect
import ctypes
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
SYLLABLES = (
    "ba be bi bo bu ca ce co cu da de di do du fa fe fi fo ga ge go ha he hi ho la le li lo "
    "lu ma me mi mo mu na ne ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to "
    "tu va ve vi vo wa we wi ar er ir or ur an en in on un al el il ol st tr pr ch sh th qu "
    "ing ed er ly tion ment "
).split()


# ---- the text


def drawn_documents(n_bytes: int, seed: int = 0) -> Iterator[str]:
    """Pseudo-English: 80,000 word types by Zipf's law, sentences, numbers, some other scripts."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=1 + draw.randrange(4))) for _ in range(80_000)]
    words[:12] = "the of and to in a is that for was on it's".split()
    weights = list(accumulate(1 / (rank + 2.7) for rank in range(len(words))))
    extra = [
        "漢字",
        "naïve",
        "1847",
        "русский",
        "3.14159",
        "https://a.example/b?c=d",
        "e-mail",
        "😀",
    ]
    left = n_bytes
    while left > 0:
        paragraphs = []
        for _ in range(draw.randint(2, 14)):
            sentences = []
            for _ in range(draw.randint(2, 7)):
                n = draw.randint(4, 24)
                found = [
                    words[min(bisect.bisect(weights, draw.random() * weights[-1]), 79_999)]
                    for _ in range(n)
                ]
                if draw.random() < 0.15:
                    found[draw.randrange(n)] = draw.choice(extra)
                if n > 12:
                    found[n // 2] += ","
                sentences.append(" ".join(found).capitalize() + draw.choice(".....?!"))
            paragraphs.append(" ".join(sentences))
        text = "\n\n".join(paragraphs)
        left -= len(text.encode())
        yield text


def given_documents(path: Path, n_bytes: int, seed: int = 0) -> Iterator[str]:
    """A file's documents, again and again with every 50th word changed, until there are enough."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
    elif path.suffix == ".jsonl":
        texts = [json.loads(line)["text"] for line in path.read_bytes().split(b"\n") if line]
    else:
        texts = path.read_text("utf-8", "replace").split("\n\n\n")
    draw, left, first = random.Random(seed), n_bytes, True
    while left > 0:
        for text in texts:
            if not first:
                words = text.split(" ")
                for i in range(draw.randrange(50), len(words), 50):
                    words[i] = "".join(draw.choices(SYLLABLES, k=3))
                text = " ".join(words)
            left -= len(text.encode())
            yield text
            if left <= 0:
                return
        first = False


# ---- what the measured processes run


def run_datatrove(work: Path, workers: int) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    reader = ParquetReader(str(work / "parts"), glob_pattern="*.parquet")
    tokens = DocumentTokenizer(
        output_folder=str(work / "datatrove"),
        tokenizer_name_or_path=str(work / "tokenizer" / "tokenizer.json"),
        eos_token="<|endoftext|>",
        shuffle_documents=False,
    )
    LocalPipelineExecutor(
        pipeline=[reader, tokens],
        tasks=workers,
        workers=workers,
        logging_dir=str(work / "logs"),
    ).run()


def run_tiktoken(work: Path, workers: int) -> None:
    from array import array

    import pyarrow.parquet as pq
    import tiktoken

    from llmctl.tokenizer.bpe import Tokenizer
    from llmctl.tokenizer.patterns import QWEN2, from_letters

    tokenizer = Tokenizer.load(work / "tokenizer")
    vocab = tokenizer.parts["model"]["vocab"]
    ranks = {from_letters(token): i for token, i in vocab.items()}
    encoder = tiktoken.Encoding("own", pat_str=QWEN2, mergeable_ranks=ranks, special_tokens={})
    with open(work / "tiktoken.bin", "wb") as handle:
        for path in sorted((work / "parts").glob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(batch_size=500, columns=["text"]):
                texts = batch.column(0).to_pylist()
                for ids in encoder.encode_ordinary_batch(texts, num_threads=workers):
                    array("H", [tokenizer.eot_id, *ids]).tofile(handle)


def command(name: str, work: Path, workers: int) -> list[str]:
    if name.startswith("llmctl"):
        words = [sys.executable, "-m", "llmctl", "tokenize", str(work / "parts"), "--force"]
        words += ["--tokenizer", str(work / "tokenizer"), "--workers", str(workers)]
        words += ["--set", "val_fraction=0", "-o", str(work / name.replace(" ", "-"))]
        return words + (["--encoder", name.split()[1]] if " " in name else [])
    return [sys.executable, __file__, "--child", name, "--work", str(work), "-w", str(workers)]


# ---- measuring


def measured(words: list[str], log: Path) -> tuple[int, float, float]:
    """(exit code, CPU seconds of the process tree, wall seconds)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with open(log, "wb") as handle:
        code = subprocess.run(words, stdout=handle, stderr=subprocess.STDOUT).returncode
    wall = time.monotonic() - start
    try:
        while True:  # grandchildren that outlived their parent are ours now
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return code, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def written_ids(name: str, work: Path, eot_id: int) -> bytes:
    """The ids a run wrote, document ids left out, as uint16 bytes."""
    import numpy as np

    from llmctl.data.bins import TokenBins

    if name.startswith("llmctl"):
        bins = TokenBins.open(work / name.replace(" ", "-"), "train", verify=False)
        ids = np.asarray(bins.read(0, bins.n_tokens))
    elif name == "tiktoken loop":
        ids = np.fromfile(work / "tiktoken.bin", dtype="<u2")
    else:
        paths = sorted((work / "datatrove").glob("*.ds"))
        ids = np.concatenate([np.fromfile(p, dtype="<u2") for p in paths])
    return ids[ids != eot_id].astype("<u2").tobytes()


def prepare(work: Path, mb: float, text: Path | None, parts: int) -> tuple[float, int, int]:
    """Write the parquet files and the tokenizer. Returns MB of text, documents, document id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from llmctl.tokenizer.train import train

    n_bytes = int(mb * 1e6)
    found = list(given_documents(text, n_bytes) if text else drawn_documents(n_bytes))
    (work / "parts").mkdir(parents=True)
    for k in range(parts):  # datatrove shares out whole files
        share = found[k * len(found) // parts : (k + 1) * len(found) // parts]
        ids = [f"<urn:uuid:{k}-{i}>" for i in range(len(share))]
        table = pa.table({"text": share, "id": ids})
        path = work / "parts" / f"part-{k:05d}.parquet"
        pq.write_table(table, path, compression="zstd", row_group_size=1000)
    (work / "tokenizer").mkdir()
    sample, size = [], 0
    for document in found:
        sample.append(document)
        size += len(document)
        if size > 15e6:
            break
    tokenizer = train(sample, 32_768)
    tokenizer.save(work / "tokenizer")
    return sum(len(t.encode()) for t in found) / 1e6, len(found), tokenizer.eot_id


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=float, default=100.0)
    parser.add_argument("--text", type=Path)
    parser.add_argument("-w", "--workers", type=int, default=1)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        run = {"datatrove": run_datatrove, "tiktoken loop": run_tiktoken}[given.child]
        return run(given.work, given.workers)
    work = Path(tempfile.mkdtemp(prefix="bench-tokenize-", dir=given.work))
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": str(given.workers)}
    try:
        mb, documents, eot_id = prepare(work, given.mb, given.text, given.workers)
        print(f"{mb:.1f} MB of text, {documents:,} documents, {given.workers} worker(s)")
        speeds, ids = {}, {}
        for name in ("llmctl", "llmctl tiktoken", "tiktoken loop", "datatrove"):
            if name in given.skip:
                continue
            code, cpu, wall = measured(command(name, work, given.workers), work / "log.txt")
            if code:
                print(f"{name:16} failed: {(work / 'log.txt').read_text()[-300:]}")
                continue
            speeds[name], ids[name] = mb / cpu, written_ids(name, work, eot_id)
            same = "same ids" if ids[name] == ids["llmctl"] else "OTHER IDS"
            print(
                f"{name:16} {cpu:7.1f} CPU s {wall:7.1f} s wall {mb / cpu:7.2f} MB/CPU s  {same}",
                flush=True,
            )
        for name, speed in speeds.items():
            if name != "llmctl":
                print(f"llmctl / {name}: {speeds['llmctl'] / speed:.1f}x")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
