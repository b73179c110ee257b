"""Where an artifact came from: the chain of inputs, back to the raw pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmctl.artifacts.manifest import MANIFEST, read_manifest
from llmctl.artifacts.store import Artifact
from llmctl.core.errors import LlmctlError, NoInput

DEPTH = 20  # stages; a longer chain is a loop


def find_upstream(artifact: Artifact, kind: str, otherwise: str = "") -> Path:
    """The folder of that kind which this artifact was made from, however far back.

    otherwise: what to do without one, for the message. NoInput (66) when the chain does not reach
    one, or its folder has gone or changed.
    """
    otherwise = otherwise or f"name one with --{kind}"
    chain = [dict(i) for i in artifact.inputs]
    for _ in range(DEPTH):
        if not chain:
            break
        following: list[dict[str, Any]] = []
        for reference in chain:
            manifest = _manifest_of(reference)
            if reference["kind"] == kind:
                if manifest is None:
                    raise NoInput(
                        f"{reference['path']}: the {kind} that {artifact.path} was made from is "
                        f"gone or changed; {otherwise}"
                    )
                return Path(reference["path"])
            following += manifest["inputs"] if manifest else []
        chain = following
    raise NoInput(f"{artifact.path}: was not made from a {kind} artifact; {otherwise}")


def render_lineage(artifact: Artifact) -> str:
    """The tree of inputs as text, one line each, foreign files at the leaves."""
    lines: list[str] = []

    def walk(references: Any, depth: int) -> None:
        for i, reference in enumerate(references):
            if i >= 8:
                lines.append(f"{'  ' * depth}└ … and {len(references) - i} more")
                break
            manifest = _manifest_of(reference)
            state = "" if manifest or reference["kind"] == "foreign" else "  (gone or changed)"
            name = f"{reference['kind']} {reference['id'][:8]}  {reference['path']}{state}"
            lines.append(f"{'  ' * depth}└ {name}")
            if manifest and depth < DEPTH:
                walk(manifest["inputs"], depth + 1)

    walk(artifact.inputs, 0)
    return "\n".join(lines) or "made from nothing but a seed"


def _manifest_of(reference: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of an input if its folder still holds the same artifact."""
    folder = Path(reference["path"])
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(folder)
    except LlmctlError:
        return None
    return manifest if manifest["id"] == reference["id"] else None
