"""llmctl inspect: what an artifact is, where it came from, what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.core.config import setting
from llmctl.core.errors import UsageError
from llmctl.core.stage import Stage


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Look into artifacts; with no INPUT, or a folder of runs, list what is there."""

    rows: int = setting(3, "sample rows or documents shown")
    check: bool = setting(False, "compare every hash, and a model's logits with transformers'")
    truth: str = setting("", "web artifact: say what became of each planted class of pages")
    claims: bool = setting(False, "of a run's folder: what it shows, claim by claim")
    json: bool = setting(False, "print the manifest, for scripts")

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise UsageError(f"rows must be 0 or more, got {self.rows}")


def run(config: InspectConfig, inputs: list[Any], draft: None) -> None:
    """Print what each INPUT is."""
    from llmctl.view.claims import claims_table
    from llmctl.view.runs import list_runs

    for given in inputs or [None]:
        path = Path("runs") if given is None else given.path
        if config.claims:
            print(claims_table(path))
            continue
        if (path / "run.json").is_file() and not (path / "manifest.json").is_file():
            print(_unfinished(path))
        elif path.is_dir() and not _is_artifact(path):
            print(list_runs(path))
        else:
            _show(config, path)


def _is_artifact(path: Path) -> bool:
    names = ("manifest.json", "config.json")
    return any((path / n).is_file() for n in names) or not any(path.glob("*/*.json"))


def _unfinished(path: Path) -> str:
    from llmctl.core.files import folder_bytes, human_bytes, read_json

    record = read_json(path / "run.json")
    size = human_bytes(folder_bytes(path))
    command = " ".join(record.get("argv", []))
    return f"{path}: unfinished {record.get('stage')}, {size}; to go on: {command}"


def _show(config: InspectConfig, path: Path) -> None:
    """Print one artifact: facts, lineage, content."""
    import json

    from llmctl.artifacts import lineage
    from llmctl.artifacts.store import open_artifact
    from llmctl.view import check, samples

    kinds = ("web", "documents", "tokens", "model", "report", "conversations", "foreign")
    artifact = open_artifact(path, kinds, reader="inspect", verify=config.check)
    if config.truth:
        _truth(config.truth, artifact)
        return
    if config.json:
        print(json.dumps(artifact.manifest or {"kind": "foreign", "id": artifact.id}, indent=2))
        return
    if artifact.manifest:
        made = artifact.manifest["created"]
        print(f"{path}: {artifact.kind}, id {artifact.id[:16]}")
        print(f"made by llmctl {made['llmctl']} at {made['at']}: {' '.join(made['argv'])}")
        print(f"\nmade from\n{lineage.render_lineage(artifact)}\n")
        print(samples.file_table(artifact.manifest))
        print("\n" + _stats(artifact.stats))
    else:
        print(f"{path}: foreign (no manifest)")
    if config.rows:
        print("\n" + _content(config, artifact))
    if config.check:
        print("\n" + "\n".join(f"ok: {line}" for line in check.check(artifact)))


def _stats(stats: Any) -> str:
    from llmctl.core.console import render_table

    rows = [(k, v) for k, v in stats.items() if not isinstance(v, dict | list)]
    return render_table("", ["stat", "value"], rows, left=2)


def _content(config: InspectConfig, artifact: Any) -> str:
    from llmctl.view import samples

    folder = artifact.path
    if artifact.kind == "tokens":
        return samples.sample_tokens(folder, config.rows)
    if (folder / "config.json").is_file():
        return f"{samples.config_line(folder)}\n\n{samples.parameter_table(folder)}"
    if (folder / "report.txt").is_file():
        return (folder / "report.txt").read_text(encoding="utf-8")
    if folder.is_dir():
        parts = [samples.sample_funnel(folder), samples.sample_rows(folder, config.rows)]
        return "\n\n".join(p for p in parts if p)
    return f"{folder.stat().st_size:,} bytes"


def _truth(web: str, artifact: Any) -> None:
    """Print what became of each planted class; Mismatch (78) unless it is documents of that web."""
    from llmctl.artifacts.store import open_artifact
    from llmctl.core.console import render_table
    from llmctl.evals.truth import COLUMNS, score_documents

    if artifact.kind != "documents":
        raise UsageError(f"--truth compares documents with a web, {artifact.path} is no documents")
    truth = open_artifact(web, ("web",), reader="--truth", verify=False)
    print(render_table("", COLUMNS, score_documents(truth.path, artifact.path)))


STAGE = Stage(
    name="inspect",
    version=1,
    summary="any artifact -> what it is",
    config=InspectConfig,
    run=run,
    reads=("foreign",),
    optional_input=True,
    many=True,
    raw_inputs=True,
)
