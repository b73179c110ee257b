"""What each step took: pages and characters in and out, and why pages were dropped.

Every block of the recipe counts into one `Funnel` of its task; the tasks' funnels are summed at
the end, so the figures do not depend on how the work was split.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl.core import console

# step -> what a reader of the table calls it; the order is the recipe's
STEPS = {
    "read": "read and decode",
    "url": "URL block lists",
    "extract": "main text",
    "language": "language",
    "gopher_repetition": "Gopher repetition",
    "gopher_quality": "Gopher quality",
    "c4": "C4 quality",
    "fineweb_quality": "FineWeb quality",
    "dedup": "near-duplicates",
    "pii": "personal data replaced",
}
COLUMNS = ("pages in", "out", "of all", "Mchar out", "CPU s")


@dataclass
class StepCount:
    """One step's figures; characters are of the text as it comes in and as it goes out."""

    pages_in: int = 0
    pages_out: int = 0
    chars_in: int = 0
    chars_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0  # CPU; differs from run to run, so it stays out of the artifact

    def add(self, other: "StepCount") -> None:
        self.pages_in += other.pages_in
        self.pages_out += other.pages_out
        self.chars_in += other.chars_in
        self.chars_out += other.chars_out
        self.seconds += other.seconds
        self.dropped.update(other.dropped)


class Funnel:
    """Counts by step, and notes: things that happened without a page being dropped."""

    def __init__(self) -> None:
        self.steps: dict[str, StepCount] = {}
        self.notes: Counter[str] = Counter()

    def step(self, name: str) -> StepCount:
        return self.steps.setdefault(name, StepCount())

    def kept(self, name: str, chars_in: int, chars_out: int) -> None:
        step = self.step(name)
        step.pages_in += 1
        step.pages_out += 1
        step.chars_in += chars_in
        step.chars_out += chars_out

    def dropped(self, name: str, rule: str, chars_in: int) -> None:
        step = self.step(name)
        step.pages_in += 1
        step.chars_in += chars_in
        step.dropped[rule] += 1

    def add(self, other: "Funnel") -> None:
        for name, step in other.steps.items():
            self.step(name).add(step)
        self.notes.update(other.notes)

    def ordered(self) -> Iterable[tuple[str, StepCount]]:
        return ((name, self.steps[name]) for name in STEPS if name in self.steps)

    def to_json(self, timing: bool = False) -> list[dict[str, Any]]:
        """funnel.json's rows; reasons by falling count, then by name."""
        rows = []
        for name, step in self.ordered():
            row: dict[str, Any] = {
                "step": name,
                "pages_in": step.pages_in,
                "pages_out": step.pages_out,
                "chars_in": step.chars_in,
                "chars_out": step.chars_out,
                "dropped": dict(sorted(step.dropped.items(), key=lambda kv: (-kv[1], kv[0]))),
            }
            if timing:
                row["seconds"] = step.seconds
            if name == "read" and self.notes:
                row["notes"] = dict(sorted(self.notes.items()))
            rows.append(row)
        return rows

    @classmethod
    def from_json(cls, rows: Sequence[dict[str, Any]]) -> "Funnel":
        funnel = cls()
        for row in rows:
            funnel.steps[row["step"]] = StepCount(
                row["pages_in"],
                row["pages_out"],
                row["chars_in"],
                row["chars_out"],
                Counter(row["dropped"]),
                row.get("seconds", 0.0),
            )
            funnel.notes.update(row.get("notes", {}))
        return funnel

    def show(self) -> None:
        """The table a person looks at, on stderr."""
        first = next((s.pages_in for _, s in self.ordered()), 0)
        timed = any(step.seconds for _, step in self.ordered())
        rows = []
        for name, step in self.ordered():
            why = ", ".join(f"{rule} {n:,}" for rule, n in step.dropped.most_common(3))
            share = f"{step.pages_out / first:.1%}" if first else "-"
            chars = round(step.chars_out / 1e6, 2)
            cpu = round(step.seconds, 1) if timed else None
            rows.append([STEPS[name], why[:64], step.pages_in, step.pages_out, share, chars, cpu])
        console.table(
            "Pages through the filters",
            ["step", "dropped, most frequent reasons", *COLUMNS],
            rows,
            left=2,
        )
