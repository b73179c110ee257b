"""What is read, and how it is cut into tasks: the same cut for any number of workers.

A gzip WARC is cut at fixed byte offsets, since reading can begin at any of its members; other
files are one task each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.core import console
from llmctl.core.errors import BadInput, NoInput
from llmctl.web.source import Source, kind_of

SPLIT_BYTES = (
    16 << 20
)  # of a compressed WARC per task; fixed, so that tasks depend on the input alone
WARC_KINDS = ("warc", "gzip-warc")
DOCUMENT_KINDS = ("parquet", "json", "gzip-json")
READABLE = (*WARC_KINDS, *DOCUMENT_KINDS, "gzip-damaged")  # of the last, perhaps a part
ALWAYS_TOLERATED = 10  # unreadable files among readable ones


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read. shown: what `file_path` says of it, and ids of records without one begin
    with; free of where it happens to lie."""

    location: str
    shown: str


@dataclass(frozen=True, slots=True)
class Share:
    """One task's part of the input: the records that begin in [start, stop) bytes of a file."""

    file: InputFile
    kind: str
    start: int
    stop: int
    stamp: tuple[int, int]  # size (bytes) and modification time (ns) when the run was planned


def plan_shares(files: Sequence[InputFile]) -> list[Share]:
    """Tasks in input order. Every file has at least one, so that each is judged and reported."""
    shares = []
    for file in files:
        with Source(file.location) as source:
            kind, size, stamp = kind_of(source), source.size, source.stamp
        step = SPLIT_BYTES if kind == "gzip-warc" else max(size, 1)
        for start in range(0, max(size, 1), step):
            stop = size if start + step >= size else start + step
            shares.append(Share(file, kind, start, stop, stamp))
    return shares


def without_repeats(files: Sequence[InputFile]) -> list[InputFile]:
    """The files in their order, each once; a second mention of one is said and left out."""
    seen: set[tuple[object, ...]] = set()
    kept = []
    for file in files:
        key: tuple[object, ...] = (file.location,)
        if "://" not in file.location:
            path = Path(file.location)
            status = path.stat()
            key = (path.resolve(), status.st_size, status.st_mtime_ns)
        if key in seen:
            console.warn(f"{file.location} is named twice; it is read once")
            continue
        seen.add(key)
        kept.append(file)
    return kept


WHY_BAD = {
    "empty": "the file is empty",
    "zeros": "the file holds only zero bytes",
    "arc": "an ARC file, the format before WARC; convert it first (warcio recompress)",
    "gzip-arc": "an ARC file, the format before WARC; convert it first (warcio recompress)",
    "html": "an HTML page, perhaps an error page saved under this name",
    "gzip-html": "a compressed HTML page, not a WARC",
    "zstd": "compressed with Zstandard; recompress it with gzip first",
    "gzip-damaged": "its first gzip member is damaged and no record follows it",
}


def why_bad(kind: str) -> str:
    return WHY_BAD.get(kind, "no WARC, parquet or JSONL that llmctl knows")


def refuse_hopeless(shares: Sequence[Share]) -> None:
    """Fail at once when nothing that was named can be read, going by first bytes: 65, or 66."""
    if not shares:
        raise NoInput("no input file; name WARC files, or a folder that holds some")
    bad = [(s.file.location, why_bad(s.kind)) for s in shares if s.kind not in READABLE]
    if len(bad) == len(shares):
        refuse_bad(bad, len(bad), 1.0)


def refuse_bad(bad: Sequence[tuple[str, str]], n_files: int, tolerated: float) -> None:
    """Warn of unreadable files; BadInput (65) when they are all, or more than may be.

    bad: (file, why). tolerated: share of the files; ten bad ones among good ones always are, so
    that a handful of odd files does not stop a small run.
    """
    if len(bad) < n_files:
        for name, why in bad[:20]:
            console.warn(f"{name}: not read: {why}")
    if not bad:
        return
    name, why = bad[0]
    if len(bad) == n_files:
        others = f" (and {len(bad) - 1} more files like it)" if len(bad) > 1 else ""
        raise BadInput(f"{name}{others}: {why}; give at least one readable WARC file")
    if len(bad) > max(ALWAYS_TOLERATED, tolerated * n_files):
        raise BadInput(
            f"{name}: {why}; {len(bad)} of {n_files} files cannot be read, more than "
            f"max_bad_files={tolerated:g} allows; remove them or raise it"
        )
