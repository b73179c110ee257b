"""What lies in a folder of runs: finished artifacts, unfinished ones, sizes and ages."""

from __future__ import annotations

import time
from pathlib import Path

from llmctl.artifacts.manifest import MANIFEST, RUN, read_manifest
from llmctl.core.console import render_table
from llmctl.core.errors import LlmctlError, NoInput
from llmctl.core.files import folder_bytes, human_bytes, read_json


def list_runs(folder: Path) -> str:
    """A table of every artifact below a folder, newest first. NoInput (66) without the folder.

    What an artifact keeps inside, such as the trainings of its folds, is no artifact.
    """
    if not folder.is_dir():
        raise NoInput(f"{folder}: no such folder; nothing has been run here yet")
    marked = {p.parent for name in (MANIFEST, RUN) for p in folder.rglob(name)}
    found = [p for p in marked if marked.isdisjoint(p.parents)]  # not the parts of a run
    rows = []
    for path in sorted(found, key=lambda p: -p.stat().st_mtime):
        stage, state = _state(path)
        age = _age(time.time() - path.stat().st_mtime)
        rows.append((str(path), stage, state, human_bytes(folder_bytes(path)), age))
    if not rows:
        return f"{folder}: no runs"
    return render_table("", ["artifact", "stage", "state", "size", "age"], rows, left=3)


def _state(path: Path) -> tuple[str, str]:
    """(stage, state) of one folder."""
    try:
        if (path / MANIFEST).is_file():
            manifest = read_manifest(path)
            return manifest["stage"], manifest["kind"]
        return str(read_json(path / RUN).get("stage")), "unfinished"
    except (LlmctlError, AttributeError):
        return "?", "damaged"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
