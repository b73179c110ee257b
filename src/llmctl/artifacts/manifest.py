"""manifest.json: what an artifact is, what it was made from, and the hash of every file.

Also the fingerprint of a run, which decides whether a folder already holds what is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.core.errors import Mismatch
from llmctl.core.files import read_json, sha256_file

FORMAT = 1
MANIFEST, RUN, LOCK = "manifest.json", "run.json", ".lock"
BOOKKEEPING = {MANIFEST, RUN, LOCK}
_KEYS = {
    "kind": str,
    "format": int,
    "id": str,
    "stage": str,
    "fingerprint": str,
    "settings": dict,
    "created": dict,
    "inputs": list,
    "files": list,
    "stats": dict,
}


def fingerprint(
    stage: str, version: int, settings: Mapping[str, Any], input_ids: Sequence[str]
) -> str:
    """Hash of all that decides a run's payload: hex, 64 digits.

    settings: the payload keys that differ from their defaults. Paths, worker counts and logging
    stay out, so that moving a folder or adding cores does not make another artifact.
    """
    facts = {"stage": stage, "version": version, "settings": settings, "inputs": list(input_ids)}
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def content_id(kind: str, files: Iterable[Mapping[str, Any]]) -> str:
    """An artifact's id: hash over the names and content hashes of its payload files."""
    digest = hashlib.sha256(f"{kind}\n".encode())
    for file in sorted(files, key=lambda f: f["name"]):
        if not file.get("volatile"):
            digest.update(f"{file['name']} {file['sha256']}\n".encode())
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """A folder's manifest, its shape checked. Mismatch (78) when it is no manifest of ours."""
    path = folder / MANIFEST
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise Mismatch(f"{path}: not a manifest; make the artifact again")
    for key, kind in _KEYS.items():
        if type(manifest.get(key)) is not kind:
            raise Mismatch(f"{path}: key {key!r} is missing or no {kind.__name__}; make it again")
    if manifest["format"] > FORMAT:
        raise Mismatch(
            f"{path}: format {manifest['format']}, this llmctl reads up to {FORMAT}; update llmctl"
        )
    if type(manifest["created"].get("config")) is not dict or not all(
        isinstance(i, dict) and {"path", "kind", "id"} <= i.keys() for i in manifest["inputs"]
    ):
        raise Mismatch(f"{path}: says not what made it from what; make the artifact again")
    for file in manifest["files"]:
        name = file.get("name") if isinstance(file, dict) else None
        if not isinstance(name, str) or name.startswith("/") or ".." in Path(name).parts:
            raise Mismatch(f"{path}: file entry {name!r} leaves the folder; make it again")
        if type(file.get("bytes")) is not int or type(file.get("sha256")) is not str:
            raise Mismatch(f"{path}: file entry {name!r} lacks its size or hash; make it again")
    return manifest


def check_files(folder: Path, manifest: Mapping[str, Any], *, hashes: bool) -> None:
    """Compare payload files with their manifest: sizes always, content where `hashes` is set."""
    for file in manifest["files"]:
        path = folder / file["name"]
        if file.get("volatile"):
            continue
        if not path.is_file():
            raise Mismatch(f"{path}: missing, the manifest lists it; copy the artifact again")
        actual = path.stat().st_size
        if actual != file["bytes"]:
            raise Mismatch(
                f"{path}: {actual:,} bytes, the manifest says {file['bytes']:,}; "
                "copy torn, fetch it again"
            )
        if hashes and sha256_file(path) != file["sha256"]:
            raise Mismatch(f"{path}: content differs from the manifest's hash; fetch it again")
