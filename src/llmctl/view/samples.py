"""A look at the content: rows, decoded tokens, a model's parameters."""

from __future__ import annotations

import json
import re
import textwrap
import zlib
from pathlib import Path
from typing import Any

from llmctl.core.console import printable, render_table
from llmctl.core.errors import BadInput
from llmctl.core.files import human_bytes, read_json

TEXT_WIDTH = 98  # columns
_KINDS = {"parquet": (".parquet",), "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst")}


def sample_rows(folder: Path, rows: int) -> str:
    """The first rows of every parquet and JSONL file group in a folder, long values cut."""
    parts = []
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        kind = next((k for k in _KINDS if path.name.endswith(_KINDS[k])), "")
        if kind and not any(p.startswith(".") for p in path.relative_to(folder).parts):
            name = re.sub(r"-?\d+$", "", path.name.split(".")[0])
            groups.setdefault((name, kind), []).append(path)
    for (name, kind), paths in groups.items():
        total, first = _parquet_rows(paths, rows) if kind == "parquet" else _json_rows(paths, rows)
        parts.append(f"{name}: {total} in {len(paths)} file{'s' * (len(paths) > 1)}")
        parts += [_row(row) for row in first]
    return "\n".join(parts)


def _parquet_rows(paths: list[Path], rows: int) -> tuple[str, list[dict[str, Any]]]:
    """(how many rows, the first of them). BadInput (65) where a file is damaged."""
    import pyarrow.parquet as pq

    try:
        files = [pq.ParquetFile(p, page_checksum_verification=True) for p in paths]
        total = sum(f.metadata.num_rows for f in files)
        batch = next(files[0].iter_batches(batch_size=rows), None)
    except (OSError, ValueError) as error:
        raise BadInput(f"{paths[0]}: cannot be read ({error}); copy it again") from None
    return f"{total:,} rows", batch.to_pylist() if batch else []


def _json_rows(paths: list[Path], rows: int) -> tuple[str, list[dict[str, Any]]]:
    """("JSONL", the first rows: to count them all, all would have to be read)."""
    from llmctl.data.documents import MAX_LINE, find_sources, opened

    found: list[dict[str, Any]] = []
    try:
        with opened(find_sources(paths[:1])[0]) as handle:
            while len(found) < rows and (line := handle.readline(MAX_LINE)):
                if line.strip():
                    row = json.loads(line.decode("utf-8-sig"))
                    found.append(row if isinstance(row, dict) else {"value": row})
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise BadInput(f"{paths[0]}: cannot be read ({error}); copy it again") from None
    return "JSONL", found


def _row(row: dict[str, Any]) -> str:
    lines = []
    for key, value in row.items():
        text = (
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        )
        text = text.encode("utf-8", "replace").decode()  # JSON may hold half of a character
        text = printable(" ".join(text.split()))
        lines.append(f"  {key}: {textwrap.shorten(text, 300, placeholder=' …')}")
    return "\n".join(["  ─", *lines])


def sample_funnel(folder: Path) -> str:
    """A documents artifact's funnel as a table; empty without one."""
    if not (folder / "funnel.json").is_file():
        return ""
    rows = []
    for step in read_json(folder / "funnel.json"):
        reasons = ", ".join(f"{k} {v:,}" for k, v in sorted(step.get("dropped", {}).items()))
        rows.append((step["step"], step["pages_in"], step["pages_out"], reasons))
    return render_table("", ["step", "pages in", "out", "dropped"], rows)


def sample_tokens(folder: Path, rows: int) -> str:
    """The first documents of a tokens artifact, decoded, token borders shown as ·."""
    from llmctl.data.bins import TokenBins
    from llmctl.tokenizer.bpe import Tokenizer

    tokenizer = Tokenizer.load(folder)
    parts = []
    for split in ("train", "val"):
        bins = TokenBins.open(folder, split)
        parts.append(f"{split}: {bins.n_tokens:,} tokens")
        for start in bins.doc_starts[:rows]:
            ids = bins.read(int(start), min(int(start) + 64, bins.n_tokens)).tolist()
            text = "·".join(printable(tokenizer.decode([i]).replace("\n", "⏎")) for i in ids)
            parts += [f"  {line}" for line in textwrap.wrap(text, TEXT_WIDTH)]
    return "\n".join(parts)


def parameter_table(folder: Path) -> str:
    """Every parameter of a model folder by shape, layers that repeat folded into one row each.

    Mismatch (78) when a file's header is damaged.
    """
    from llmctl.model.tensor_file import CODES, read_header

    shapes: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, (kind, lengths, *_) in read_header(path).items():
            group = re.sub(r"\.(\d+)\.", ".N.", name)
            dtype, shape, count = shapes.get(group, (CODES[kind], lengths, 0))
            shapes[group] = (dtype, shape, count + 1)
    rows: list[tuple[str, str, str, int | str, int]] = []
    total = 0
    for name, (dtype, shape, count) in shapes.items():
        size = count
        for length in shape:
            size *= length
        total += size
        rows.append((name, " x ".join(map(str, shape)), dtype, count, size))
    rows.append(("total", "", "", "", total))
    return render_table("", ["parameter", "shape", "dtype", "copies", "numbers"], rows)


def config_line(folder: Path) -> str:
    """A model's shape in one line, from config.json."""
    config = read_json(folder / "config.json")
    names = ("model_type", "num_hidden_layers", "n_layer", "hidden_size", "n_embd", "vocab_size")
    return ", ".join(f"{k} {config[k]}" for k in names if k in config)


def file_table(manifest: dict[str, Any] | Any) -> str:
    """The files of an artifact with size and hash; parts of a run's state left out."""
    rows = [
        (f["name"], human_bytes(f["bytes"]), f["sha256"][:12], "varies" * bool(f.get("volatile")))
        for f in manifest["files"]
        if not f["name"].startswith("state/")
    ]
    return render_table("", ["file", "size", "sha256", ""], rows)
