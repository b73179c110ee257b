"""What happens around every stage: settings, inputs, fingerprint, folder, ranks, commit.

A stage only fills a folder. This module decides which folder, whether it is there already, what
goes in by default, and makes it an artifact when the stage returns.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.artifacts.manifest import MANIFEST, RUN, fingerprint
from llmctl.artifacts.store import Artifact, Draft, open_artifact, open_draft
from llmctl.core import config as settings
from llmctl.core import console
from llmctl.core.errors import BadInput, Mismatch, NoInput, OutputBusy, Refused, UsageError
from llmctl.core.files import read_json
from llmctl.core.stage import Stage
from llmctl.stages import STAGES, load_stage

RUNS = Path("runs")  # where artifacts lie when no -o names a place
TINY = "tiny"  # the recipe whose artifacts are every stage's default INPUT
HOPELESS = (UsageError, NoInput, BadInput, Refused)  # the same command would fail in the same way
SIDE_KINDS = ("documents", "tokens", "model", "web", "conversations", "foreign")
RANK_WAIT = 600.0  # seconds a rank waits for rank 0 to open the run's folder


@dataclass(frozen=True, kw_only=True)
class Request:
    """One run of a stage as it was asked for. inputs None: nothing given, the embedded default."""

    stage: str
    inputs: Sequence[str] | None = None
    out: str | None = None
    recipe: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    force: bool = False
    verify: bool = True

    def argv(self) -> list[str]:
        """The command line that asks for the same run."""
        words = ["llmctl", self.stage, *(self.inputs or [])]
        words += ["--recipe", self.recipe] if self.recipe else []
        words += ["-o", self.out] if self.out else []
        for key, value in self.overrides.items():
            if isinstance(value, tuple):  # a word of it may hold a comma, which --set would split
                flag = f"--{key.replace('_', '-')}"
                words += [w for v in value for w in (flag, v)] or ["--set", f"{key}="]
            else:
                words += ["--set", f"{key}={value}"]
        return words


def run(
    stage: str,
    inputs: Sequence[str | Path] | str | Path | None = None,
    *,
    out: str | Path | None = None,
    recipe: str | None = None,
    force: bool = False,
    verify: bool = True,
    **overrides: Any,
) -> Artifact | None:
    """Run a stage from Python as the command line does; keyword arguments are its settings.

    Returns the finished artifact, at once when it exists already; None for stages that print.
    """
    if isinstance(inputs, str | Path):
        inputs = [inputs]
    request = Request(
        stage=stage,
        inputs=None if inputs is None else [str(i) for i in inputs],
        out=None if out is None else str(out),
        recipe=recipe,
        overrides=overrides,
        force=force,
        verify=verify,
    )
    return execute(request)


def resolve(request: Request) -> tuple[Stage, settings.Resolved]:
    """The stage and its settings, default < recipe < given; nothing given means recipe `tiny`."""
    stage = load_stage(request.stage)
    recipe = request.recipe
    if recipe is None and request.inputs is None and stage.reads and not stage.optional_input:
        recipe = TINY
    sections = settings.read_recipe(recipe, list(STAGES)) if recipe else {}
    for name, section in sections.items():  # a misspelt key anywhere in it is found at once
        settings.resolve(load_stage(name).config, section, {}, f"{recipe}, section {name}")
    where = f"recipe {recipe}"
    return stage, settings.resolve(
        stage.config, sections.get(stage.name, {}), request.overrides, where
    )


def execute(request: Request) -> Artifact | None:
    """Run a stage to its finished artifact. Raises LlmctlError for whatever a user can mend."""
    stage, resolved = resolve(request)
    config = resolved.config
    only_prints = stage.text_mode(config)
    inputs = open_inputs(stage, request, make_default=not only_prints)
    if only_prints or stage.writes is None:
        stage.run(config, inputs, None)
        return None
    assert stage.writes is not None
    record = run_record(stage, config, inputs, request)
    out = Path(request.out) if request.out else default_out(record)
    if "RANK" in os.environ and os.environ["RANK"] != "0":
        _follow_rank_0(stage, config, inputs, out, record)
        return None
    started = time.monotonic()
    with open_draft(
        out, stage.writes, record, force=request.force, volatile=stage.volatile
    ) as draft:
        if isinstance(draft, Artifact):
            console.info(f"{stage.name}: already there, nothing to do")
            return draft
        said = "going on with" if draft.resuming else "making"
        console.info(f"{stage.name}: {said} {out}")
        try:
            artifact = draft.commit(_fill(stage, config, inputs, draft))
        except HOPELESS:
            draft.discard()
            raise
        except Mismatch:  # hopeless as well, but what was measured on the way may say why
            if draft.empty:
                draft.discard()
            raise
        except OSError as error:
            error.filename = error.filename or str(out)  # a write does not say where it was
            raise
    console.info(f"{stage.name}: done in {duration(time.monotonic() - started)}")
    return artifact


def _fill(stage: Stage, config: Any, inputs: list[Artifact], draft: Draft) -> dict[str, Any]:
    """Run the stage, in this process or in ranks; its stats."""
    nproc = getattr(config, "nproc", 1)
    if nproc > 1 and "RANK" not in os.environ:
        return _run_ranks(stage, config, inputs, draft, nproc)
    return stage.run(config, inputs, draft) or {}


def duration(seconds: float) -> str:
    """'4 s', '3 min 20 s', '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def default_out(record: dict[str, Any]) -> Path:
    """runs/STAGE-<first 8 of the fingerprint>: another run never lies there."""
    return RUNS / f"{record['stage']}-{record['fingerprint'][:8]}"


def run_record(
    stage: Stage, config: Any, inputs: Sequence[Artifact], request: Request
) -> dict[str, Any]:
    """run.json: what is being made, from what, and the fingerprint of it."""
    chosen = settings.payload_settings(config)
    references = [i.reference() for i in inputs]
    for name in stage.path_settings:
        value = chosen.get(name)
        many = isinstance(value, list)
        words = value if isinstance(value, list) else [value] if value else []
        words = [w for word in words for w in matched(word)] if many else words
        named = []
        for word in words:
            path, rest = path_in(word, plain=many)
            if path and ("://" not in path or stage.remote):
                side = open_artifact(path, SIDE_KINDS, reader=f"--{name}", verify=request.verify)
                references.append({**side.reference(), "setting": name})
                word = f"content {side.id}{rest}"
            named.append(word)
        if words:
            chosen[name] = named if many else named[0]
    return {
        "stage": stage.name,
        "version": stage.version,
        "fingerprint": fingerprint(
            stage.name, stage.version, chosen, [r["id"] for r in references]
        ),
        "settings": chosen,
        "config": settings.as_dict(config),
        "inputs": references,
        "argv": request.argv(),
    }


def matched(word: str) -> list[str]:
    """The files that a word of a setting matches as a pattern, sorted; the word if it is none."""
    if os.path.exists(word) or not glob.has_magic(word):
        return [word]
    return sorted(p for p in glob.glob(word, recursive=True) if os.path.isfile(p)) or [word]


def names_a_path(value: str) -> bool:
    """Whether a setting's word means a path: a plain word such as gpt2 never does, ./gpt2 does."""
    plain = os.sep not in value and "." not in value
    return bool(value) and not plain and (os.path.exists(value) or "://" in value)


def path_in(word: str, *, plain: bool) -> tuple[str, str]:
    """(path, the rest) of a setting's word: PATH, PATH#choice or PATH=weight; ("", word): no path.

    plain: a word without / and . may be a path as well, as in lists that hold nothing else.
    """
    heads = (word, word.partition("#")[0], word.rpartition("=")[0])
    for head in heads:
        if names_a_path(head) or (plain and head and os.path.exists(head)):
            return head, word[len(head) :]
    return "", word


def open_inputs(stage: Stage, request: Request, *, make_default: bool) -> list[Artifact]:
    """The INPUTs, opened and checked; the embedded default when none was given."""
    words = request.inputs
    if not stage.reads:
        if words:
            raise UsageError(f"{stage.name} takes no INPUT, got {words[0]!r}")
        return []
    if words is None:
        if stage.optional_input:
            return []
        made = default_input(stage) if make_default else existing_default(stage)
        return [made] if made else []
    paths = [path for word in words for path in expand(word)]
    if len(paths) > 1 and not stage.many:
        raise UsageError(f"{stage.name} takes one INPUT, got {len(paths)}: {' '.join(paths[:3])}")
    if not paths:
        raise UsageError(f"{stage.name} needs an INPUT")
    if stage.raw_inputs:
        return [Artifact(Path(path), "foreign") for path in paths]
    if remote := [p for p in paths if "://" in p and not stage.remote]:
        raise UsageError(f"{stage.name} reads local files, got {remote[0]}; fetch it first")
    unique = list(dict.fromkeys(paths))
    if len(unique) < len(paths):
        console.warn(f"{len(paths) - len(unique)} INPUT named twice, read once")
    return [open_artifact(p, stage.reads, reader=stage.name, verify=request.verify) for p in unique]


def expand(word: str) -> list[str]:
    """A path, a URL, or the files a quoted pattern such as 'warc/*.gz' matches, sorted."""
    if os.path.exists(word) or "://" in word or not glob.has_magic(word):
        return [word]
    if found := sorted(glob.glob(word, recursive=True)):
        return found
    raise NoInput(f"{word}: no file matches; check the pattern")


def default_input(stage: Stage) -> Artifact | None:
    """What the tiny recipe hands this stage, made now if it is missing."""
    assert stage.upstream is not None
    if "RANK" in os.environ:
        raise UsageError("under torchrun name the INPUT; the default is made by `llmctl --nproc N`")
    console.info(
        f"{stage.name}: no INPUT, so the embedded default: {stage.upstream} of recipe {TINY}, "
        "made once if it is missing (Ctrl-C keeps what is done)"
    )
    return execute(Request(stage=stage.upstream, recipe=TINY))


def existing_default(stage: Stage) -> Artifact | None:
    """The default INPUT if it has been made before; for --dry-run, which makes nothing."""
    assert stage.upstream is not None
    upstream = load_stage(stage.upstream)
    request = Request(stage=upstream.name, recipe=TINY)
    _, resolved = resolve(request)
    inputs: list[Artifact] = []
    if upstream.reads:
        before = existing_default(upstream)
        if before is None:
            return None
        inputs = [before]
    out = default_out(run_record(upstream, resolved.config, inputs, request))
    if not (out / MANIFEST).is_file() or upstream.writes is None:
        return None
    return open_artifact(out, (upstream.writes,), verify=False)


def dry_run(request: Request) -> None:
    """Say what a run would read, write and cost. Writes nothing."""
    stage, resolved = resolve(request)
    if stage.dry_run is None:
        raise UsageError(f"{stage.name} makes no artifact, so it has no --dry-run")
    stage.dry_run(resolved.config, open_inputs(stage, request, make_default=False))


def _follow_rank_0(
    stage: Stage, config: Any, inputs: list[Artifact], out: Path, record: dict[str, Any]
) -> None:
    """Under plain torchrun: join the run whose folder rank 0 opens."""
    deadline = time.monotonic() + RANK_WAIT
    while time.monotonic() < deadline:
        for name in (MANIFEST, RUN):
            path = out / name
            if path.is_file() and read_json(path).get("fingerprint") == record["fingerprint"]:
                if name == RUN:
                    stage.run(config, inputs, Draft(out, stage.writes or "", True, dict(record)))
                return
        time.sleep(0.2)
    raise OutputBusy(f"{out}: rank 0 did not open it within {RANK_WAIT:.0f} s; see its message")


def _run_ranks(
    stage: Stage, config: Any, inputs: list[Artifact], draft: Draft, nproc: int
) -> dict[str, Any]:
    """Run the stage in `nproc` ranks under torchrun's agent; this process holds the folder."""
    from llmctl.core.ranks import start_ranks

    task = {
        "stage": stage.name,
        "config": settings.as_dict(config),
        "inputs": [i.url or str(i.path) for i in inputs],
        "draft": str(draft.path),
        "resuming": draft.resuming,
    }
    return start_ranks(nproc, task, draft.path)


def run_rank(task: dict[str, Any]) -> dict[str, Any]:
    """One rank's share of a run started by `_run_ranks`; returns the stage's stats."""
    stage = load_stage(task["stage"])
    knobs = settings.settings_of(stage.config)
    config = stage.config(**{k: knobs[k].coerce(v, "rank") for k, v in task["config"].items()})
    inputs = [open_artifact(p, stage.reads, verify=False) for p in task["inputs"]]
    path = Path(task["draft"])
    record = read_json(path / RUN)
    if record.get("stage") != stage.name:
        raise Mismatch(f"{path}: is a run of {record.get('stage')}, not of {stage.name}")
    draft = Draft(path, stage.writes or "", task["resuming"], record)
    return stage.run(config, inputs, draft) or {}
