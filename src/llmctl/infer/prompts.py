"""Prompts: read from a file, turned into ids."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmctl.artifacts.manifest import MANIFEST, read_manifest
from llmctl.artifacts.store import Artifact
from llmctl.core.errors import BadInput, NoInput
from llmctl.core.files import read_json
from llmctl.tokenizer.bpe import Tokenizer

RECORD = "start_ids"  # in a manifest's stats


def read_prompts(source: str) -> list[str]:
    """Prompts of a file, or of stdin for "-": text, one a line, or JSONL with a key `prompt`.

    It is JSONL when its name ends in .jsonl or its first character is {. Blank lines are skipped.
    NoInput when there is no file or no prompt; BadInput names the line that is wrong.
    """
    name = "stdin" if source == "-" else source
    if source != "-" and not Path(source).is_file():
        raise NoInput(f"{source}: no such file of prompts; check the path")
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: not UTF-8 at byte {error.start:,}; save it as UTF-8") from None
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise NoInput(f"{name}: no prompt in it")
    if source.endswith(".jsonl") or text.lstrip().startswith("{"):
        return [_prompt_of(line, f"{name}, line {i}") for i, line in lines]
    return [line.rstrip("\r") for _, line in lines]


def _prompt_of(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: not JSON; one object a line, each with a key prompt") from None
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise BadInput(f"{where}: no text under the key prompt")
    return row["prompt"]


def start_ids(folder: Path, tokenizer: Tokenizer, *, bos: bool | None = None) -> list[int]:
    """The ids put before every prompt, as in training.

    Models that were pretrained here saw each document begin with <|endoftext|>. A foreign one gets
    what its tokenizer.json puts before a text, or its bos token where its files say so
    (add_bos_token); tuned here, however often, it gets the same: tuning feeds it conversations
    only. `bos` true or false decides instead: the start id, or nothing.
    """
    if bos is False:
        return []
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    start = _bos_id(folder, tokenizer)
    if bos or (manifest is not None and not _from_elsewhere(manifest)):
        return [tokenizer.eot_id if start is None else start]
    told = manifest["stats"].get(RECORD) if manifest is not None else None
    if isinstance(told, list):
        return [i for i in told if type(i) is int and 0 <= i < tokenizer.n_ids]
    settings = _json_object(folder / "tokenizer_config.json")
    if settings.get("add_bos_token") and start is not None:
        return [start]
    return [i for i in _template_start(tokenizer) if i < tokenizer.n_ids]


def start_record(model: Artifact, tokenizer: Tokenizer) -> dict[str, list[int]]:
    """What a tuned model's manifest keeps of the one it was made from: what begins its texts, where
    that one was not pretrained here. Its own files need not say so any more."""
    if model.manifest is not None and not _from_elsewhere(model.manifest):
        return {}
    return {RECORD: start_ids(model.path, tokenizer)}


def _from_elsewhere(manifest: Mapping[str, Any]) -> bool:
    """Whether others pretrained the model of a manifest. An old one does not say so in its stats,
    but its first input does."""
    first = manifest["inputs"][0]["kind"] if manifest["inputs"] else ""
    elsewhere = RECORD in manifest["stats"] or first == "foreign"
    return elsewhere and manifest["stage"] != "pretrain"  # whose first input may be foreign bins


def _bos_id(folder: Path, tokenizer: Tokenizer) -> int | None:
    found = _json_object(folder / "config.json").get("bos_token_id")
    return found if type(found) is int and 0 <= found < tokenizer.n_ids else None


def _template_start(tokenizer: Tokenizer) -> Iterable[int]:
    """Ids of the special tokens that a TemplateProcessing puts before a single text."""
    step: Any = tokenizer.parts.get("post_processor") or {}
    steps = _list(step.get("processors")) or [step] if isinstance(step, dict) else []
    for one in steps:
        if not isinstance(one, dict) or one.get("type") != "TemplateProcessing":
            continue
        for piece in _list(one.get("single")):
            token = piece.get("SpecialToken") if isinstance(piece, dict) else None
            if not isinstance(token, dict):
                break
            found = tokenizer.id_of(str(token.get("id")))
            if found is not None:
                yield found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _json_object(path: Path) -> Mapping[str, Any]:
    found = read_json(path, limit=16 << 20) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
