"""Preference data of any known form -> rankings. The form is detected and told, never assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadInput
from llmctl.data.conversations.rows import find_files, read_rows
from llmctl.data.preferences import lists, pairs
from llmctl.data.preferences.ranking import Message, Ranking, Uninformative, Unusable, usable

__all__ = ["Message", "Preferences", "Ranking", "Skip", "read_preferences"]

Reader = Callable[[dict[str, Any], str], list[Ranking]]


@dataclass(frozen=True)
class Format:
    """A known form of rows: the keys that tell it, and its reader."""

    name: str
    keys: frozenset[str]
    read: Reader
    test: Callable[[dict[str, Any]], bool] = lambda row: True


def _format(name: str, keys: str, read: Reader, test: Any = lambda row: True) -> Format:
    return Format(name, frozenset(keys.split(",")), read, test)


FORMATS = (  # the first that fits
    _format("ranked responses", "prompt,responses,ranks", lists.own),
    _format("OASST trees", "message_tree_id,prompt", lists.oasst_tree),
    _format("OASST rankings", "messages,ranked", lists.oasst_rankings),
    _format("Auto-J", "prompt,response 1,response 2,label", pairs.auto_j),
    _format("PandaLM by prompt", "instruction,outputs,pairs", pairs.panda_lm),
    _format("PandaLM", "instruction,response1,response2,annotator1", pairs.panda_lm_rows),
    _format("LLaMA-Factory", "conversations,chosen,rejected", pairs.llama_factory),
    _format("HH-RLHF", "chosen,rejected", pairs.hh, pairs.is_hh),
    _format("chosen and rejected", "chosen,rejected", pairs.trl),
)
UNRANKED = ("completions", "responses", "outputs", "generations", "candidates")


@dataclass
class Skip:
    """How often one reason left something out, where first, and whether that is damage."""

    count: int = 0
    first: str = ""
    bad: bool = False


@dataclass
class Preferences:
    """What was read: rankings that can be compared, the forms found, what was left out and why."""

    rows: list[Ranking] = field(default_factory=list)
    formats: dict[str, int] = field(default_factory=dict)  # name -> rows of that form
    skipped: dict[str, Skip] = field(default_factory=dict)
    n_rows: int = 0

    @property
    def format(self) -> str:
        """The forms' names."""
        return ", ".join(self.formats)

    @property
    def n_pairs(self) -> int:
        """Comparisons in all rankings."""
        return sum(len(r.pairs) for r in self.rows)

    @property
    def n_bad(self) -> int:
        """Damaged rows."""
        return sum(s.count for s in self.skipped.values() if s.bad)

    def skip(self, reason: str, where: str, bad: bool = False) -> None:
        """Count something left out."""
        entry = self.skipped.setdefault(reason, Skip(first=where, bad=bad))
        entry.count += 1

    def describe_skipped(self) -> list[str]:
        """'12 x tied (first: file:3)' for each reason, most frequent first."""
        order = sorted(self.skipped.items(), key=lambda item: -item[1].count)
        return [f"{s.count:,} x {reason} (first: {s.first})" for reason, s in order]


def read_preferences(path: Path | str, *, max_bad: float = 0.01) -> Preferences:
    """The rankings of a file, a folder of files, or a synthetic web artifact.

    Ties, identical and empty responses are left out and counted; so are damaged rows, and BadInput
    (65) is raised when they are more than the share `max_bad`, when a file has no known form, holds
    no preference, or when nothing is left.
    """
    path = Path(path)
    found = Preferences()
    for file in find_files(path, "preferences"):
        _read_file(file, found)
    if found.n_bad > max_bad * found.n_rows:
        worst = [f"{s.count:,} x {r} (first: {s.first})" for r, s in found.skipped.items() if s.bad]
        raise BadInput(
            f"{path}: {found.n_bad:,} of {found.n_rows:,} rows cannot be read: "
            f"{'; '.join(worst[:4])}; mend them or allow more with --max-bad (now {max_bad})"
        )
    if not found.rows:
        why = "; ".join(found.describe_skipped()[:4]) or "it holds no row"
        raise BadInput(f"{path}: no ranking to learn from: {why}")
    return found


def _read_file(file: Path, found: Preferences) -> None:
    form: Format | None = None
    for row in read_rows(file):
        found.n_rows += 1
        if row.value is None:
            found.skip(row.why, row.where, bad=True)
            continue
        if form is None:
            form = detect(row.value, row.where)
            found.formats.setdefault(form.name, 0)
        found.formats[form.name] += 1
        _read_row(form, row.value, row.where, found)


def _read_row(form: Format, row: dict[str, Any], where: str, found: Preferences) -> None:
    try:
        rankings = form.read(row, where)
    except Uninformative as error:
        found.skip(str(error), where)
        return
    except Unusable as error:
        found.skip(str(error), where, bad=True)
        return
    except (KeyError, TypeError, AttributeError, IndexError):
        found.skip(f"not as {form.name} has it", where, bad=True)
        return
    for ranking in rankings:
        try:
            whole, left_out = usable(ranking)
        except Uninformative as error:
            found.skip(str(error), where)
            continue
        for reason in left_out:
            found.skip(reason, where)
        found.rows.append(whole)


def detect(row: dict[str, Any], where: str) -> Format:
    """The form of a row by its keys. BadInput (65) says what is missing."""
    for form in FORMATS:
        if form.keys <= row.keys() and form.test(row):
            return form
    for key in UNRANKED:
        if key in row:
            raise BadInput(
                f"{where}: {key!r} without any rank, label or vote: answers nobody has compared; "
                "rank them first (rows of prompt, responses, ranks)"
            )
    raise BadInput(f"{where}: no known form of preferences (keys {_names(row)}); known: {_known()}")


def _names(keys: Iterable[str]) -> str:
    return ", ".join(repr(str(k)[:40]) for k in list(keys)[:12])


def _known() -> str:
    return "; ".join(f"{f.name} ({', '.join(sorted(f.keys))})" for f in FORMATS)
