"""Reads the prose sources that ship beside this file: word lists and sentence templates.

`lexicon.txt` holds `name: word, word, ...`; each other `*.txt` holds sections, `## genre.part`
followed by one template a line. grammar.py says what a template may contain.
"""

from __future__ import annotations

import functools
from importlib import resources


def _source(name: str) -> str:
    return resources.files("llmctl.synth").joinpath("prose", name).read_text("utf-8")


@functools.cache
def lexicon() -> dict[str, tuple[str, ...]]:
    """Every word list by name."""
    lists: dict[str, tuple[str, ...]] = {}
    name, words = "", ""
    for line in [*_source("lexicon.txt").splitlines(), "end:"]:
        if line.startswith("#") or not line.strip():
            continue
        if line[0].isspace():
            words += " " + line.strip()
            continue
        if name:
            lists[name] = tuple(w.strip() for w in words.split(",") if w.strip())
        name, _, words = line.partition(":")
    return lists


@functools.cache
def sections() -> dict[str, tuple[str, ...]]:
    """Every section of templates by name, over all prose files."""
    found: dict[str, list[str]] = {}
    folder = resources.files("llmctl.synth").joinpath("prose")
    for name in sorted(f.name for f in folder.iterdir() if f.name.endswith(".txt")):
        if name == "lexicon.txt":
            continue
        current: list[str] | None = None
        for line in _source(name).splitlines():
            if line.startswith("## "):
                current = found.setdefault(line[3:].strip(), [])
            elif line.strip() and not line.startswith("# "):
                if current is None:
                    raise ValueError(f"prose/{name}: a template stands before the first section")
                current.append(line.strip())
    return {name: tuple(lines) for name, lines in found.items()}
