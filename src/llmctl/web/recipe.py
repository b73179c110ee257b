"""The whole recipe: plan the tasks, run them, remove duplicates, write the parts and the funnel."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmctl.core import console
from llmctl.core.errors import BadInput
from llmctl.core.files import read_json, write_json
from llmctl.web.funnel import Funnel, StepCount
from llmctl.web.inputs import (
    InputFile,
    plan_shares,
    refuse_bad,
    refuse_hopeless,
    why_bad,
    without_repeats,
)
from llmctl.web.plan import WORK, Plan, Settings
from llmctl.web.supervise import run_tasks

FUNNEL = "funnel.json"


def run_recipe(settings: Settings, files: Sequence[InputFile], folder: Path) -> dict[str, Any]:
    """Fill `folder` with parts, funnel.json and, if asked for, rejected/; returns the statistics.

    May be called again after any interruption: finished tasks are kept, and the files come out
    the same.
    """
    if not (folder / FUNNEL).exists():  # it is written last: with it, everything else is complete
        plan = Plan(settings=settings, shares=_planned(files), work=folder / WORK)
        refuse_hopeless(plan.shares)
        plan.work.mkdir(parents=True, exist_ok=True)
        if settings.url_lists:
            _unpack_lists(plan)
        run_tasks(plan)
        finish(plan, folder).show()
    else:
        Funnel.from_json(read_json(folder / FUNNEL)).show()
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return statistics(folder, read_json(folder / FUNNEL))


def _planned(files: Sequence[InputFile]) -> list[Any]:
    return plan_shares(without_repeats(files))


def _unpack_lists(plan: Plan) -> None:
    if not (plan.lists / "domains").exists():
        from llmctl.web.urls import unpack_lists

        unpack_lists(plan.lists)


def finish(plan: Plan, folder: Path) -> Funnel:
    """From the tasks' files to the artifact's: one pass in input order, in this process alone."""
    from llmctl.web.dedup import duplicates
    from llmctl.web.parts import SCHEMA, Parts

    reports = [read_json(plan.tasks / f"{rank:05d}.json") for rank in range(len(plan.shares))]
    funnel = Funnel()
    for report in reports:
        funnel.add(Funnel.from_json(report["funnel"]))
    check_files([row for report in reports for row in report["files"]], plan, funnel)
    sizes = [
        (plan.tasks / f"{rank:05d}.sig", report["documents"]) for rank, report in enumerate(reports)
    ]
    removed = duplicates(sizes, plan.settings.dedup)
    parts = Parts(folder, SCHEMA, plan.settings.part_bytes)
    rejects = _reject_writer(plan, folder)
    funnel.steps["pii"] = StepCount(seconds=funnel.step("pii").seconds)  # of the documents kept
    replaced: Counter[str] = Counter()
    at = 0
    for rank in range(len(plan.shares)):
        if rejects:
            _copy_rejected(plan, rank, rejects)
        for row in _rows(plan, rank):
            _settle(row, bool(removed[at]), plan.settings.dedup, funnel, replaced, parts, rejects)
            at += 1
    if not parts.rows and not parts.files and not plan.settings.allow_empty:
        funnel.show()
        raise BadInput(nothing_left(funnel))
    parts.close(at_least_one=plan.settings.allow_empty)
    if rejects:
        rejects.close()
    funnel.notes.update({f"replaced_{kind}": n for kind, n in replaced.items()})
    write_json(folder / FUNNEL, funnel.to_json())
    return funnel


def _rows(plan: Plan, rank: int) -> Iterator[dict[str, Any]]:
    from llmctl.web.parts import rows_of

    return rows_of(plan.tasks / f"{rank:05d}.parquet")


def _reject_writer(plan: Plan, folder: Path) -> Any:
    from llmctl.web.parts import REJECTED, Parts

    if not plan.settings.keep_rejected:
        return None
    return Parts(folder / "rejected", REJECTED, plan.settings.part_bytes)


def _copy_rejected(plan: Plan, rank: int, rejects: Any) -> None:
    from llmctl.web.parts import rows_of

    for row in rows_of(plan.tasks / f"{rank:05d}.rejected.parquet"):
        rejects.add(row)


def _settle(
    row: dict[str, Any],
    duplicate: bool,
    dedup: str,
    funnel: Funnel,
    replaced: Counter[str],
    parts: Any,
    rejects: Any,
) -> None:
    """Keep a row or drop it as a duplicate, and count it in the two last steps."""
    chars, found = row.pop("_chars"), json.loads(row.pop("_pii"))
    if duplicate:
        funnel.dropped("dedup", f"{dedup}_duplicate", chars)
        if rejects:
            rule = f"{dedup}_duplicate"
            rejects.add({**row, "step": "dedup", "rule": rule, "value": None, "threshold": None})
        return
    funnel.kept("dedup", chars, chars)
    funnel.kept("pii", chars, len(row["text"]))
    replaced.update(found)
    parts.add(row)


def check_files(rows: Sequence[dict[str, Any]], plan: Plan, funnel: Funnel) -> None:
    """Say which inputs were damaged; BadInput when too many could not be read at all."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:  # the shares of one file, in order
        known = first.setdefault(row["file"], {**row, "damage": Counter()})
        known["damage"].update(row["damage"])
        known["partial"] |= row["partial"]
        if known["first_damage"] < 0:
            known["first_damage"] = row["first_damage"]
    bad = [(name, why_bad(row["kind"])) for name, row in first.items() if row["bad"]]
    refuse_bad(bad, len(first), plan.settings.max_bad_files)
    damaged = [(name, row) for name, row in first.items() if row["damage"]]
    for name, row in damaged[:20]:
        what = ", ".join(f"{reason} {n:,}" for reason, n in sorted(row["damage"].items()))
        console.warn(
            f"{name}: damaged from byte {row['first_damage']:,}: {what}; the other records are kept"
        )
    funnel.notes.update({"files": len(first)})
    for note, n in (("files_unreadable", len(bad)), ("files_damaged", len(damaged))):
        if n:
            funnel.notes[note] = n


def nothing_left(funnel: Funnel) -> str:
    """The sentence for a run that kept no page: where they went."""
    worst = max(
        ((step.dropped.total(), name) for name, step in funnel.ordered()), default=(0, "read")
    )[1]
    step = funnel.step(worst)
    why = ", ".join(f"{rule} {n:,}" for rule, n in step.dropped.most_common(3)) or "none was there"
    read = funnel.step("read")
    records, pages = read.pages_in, read.pages_out
    return (
        f"no document is left of {records:,} records ({pages:,} pages); most went at step "
        f"{worst!r} ({why}); give other input, relax a step, or add --allow-empty"
    )


def statistics(folder: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says of the documents."""
    import pyarrow.parquet as pq

    parts = sorted(folder.glob("part-*.parquet"))
    read, last = rows[0], rows[-1]
    notes = read.get("notes", {})
    return {
        "documents": sum(pq.read_metadata(part).num_rows for part in parts),
        "characters": last["chars_out"],
        "pages": read["pages_out"],
        "records": read["pages_in"],
        "files": notes.get("files", 0),
        "dropped": {row["step"]: row["pages_in"] - row["pages_out"] for row in rows},
        "replaced": {
            k.removeprefix("replaced_"): v for k, v in notes.items() if k.startswith("replaced_")
        },
    }
