"""What a probe found, as tables: by how often a fact was stated, and against an earlier probe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.core import console
from llmctl.core.console import render_table
from llmctl.core.errors import BadInput, Mismatch, NoInput
from llmctl.core.files import atomic_write
from llmctl.evals.intervals import wilson
from llmctl.evals.probe import Fact, Found, Written, verdict

ASKED, CONVERSATIONS = "asked.jsonl", "conversations.parquet"
REPLIES = Path("state") / "replies.jsonl"  # not judged yet
COLUMNS = ("facts", "asked", "right", "refused", "wrong", "known", "unsure", "unknown")
EARLIER = ("earlier", "split", "facts", "right now", "refused now", "95% interval", "wrong now")


def shares(found: Sequence[Found]) -> dict[str, float]:
    """Shares of all replies that are right, refusals (that are not right), and wrong."""
    n = sum(len(one.replies) for one in found)
    right = sum(one.right for one in found)
    refused = sum(one.refused for one in found)
    if not n:
        return {"right": 0.0, "refused": 0.0, "wrong": 0.0}
    return {"right": right / n, "refused": refused / n, "wrong": (n - right - refused) / n}


def rows_by_group(found: Sequence[Found], known_at: int, unknown_at: int) -> list[dict[str, Any]]:
    """One row for each split and group, in the order they occur."""
    keys = list(dict.fromkeys((one.fact.split, one.fact.group) for one in found))
    rows = []
    for split, group in sorted(keys, key=lambda k: k[0] != "train"):
        mine = [one for one in found if (one.fact.split, one.fact.group) == (split, group)]
        verdicts = [verdict(one.right, known_at, unknown_at) for one in mine]
        row: dict[str, Any] = {"split": split, "group": group, "facts": len(mine)}
        row |= {name: round(share, 4) for name, share in shares(mine).items()}
        rows.append(row | {name: verdicts.count(name) for name in ("known", "unsure", "unknown")})
    return rows


def table(rows: Sequence[Mapping[str, Any]], samples: int) -> str:
    """rows_by_group as text."""
    lines = []
    for row in rows:
        what = "held out" if row["split"] == "test" else "trained on"
        name = f"{what}, {row['group']}" if row["group"] else what
        percents = [f"{row[key]:.1%}" for key in ("right", "refused", "wrong")]
        counts = [row[key] for key in ("known", "unsure", "unknown")]
        lines.append((name, row["facts"], row["facts"] * samples, *percents, *counts))
    return render_table("what the model knows", ("", *COLUMNS), lines)


def read_earlier(folder: Path) -> dict[str, str]:
    """Verdict of each fact in an earlier probe's folder, by `_asked_about`."""
    path = folder / ASKED
    if not path.is_file():
        raise NoInput(f"{path}: no such file; --against names what llmctl probe has written")
    try:
        rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
        return {
            _asked_about(row["fact_id"], row["value"], row["questions"]): row["verdict"]
            for row in rows
        }
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path}: not written by llmctl probe; probe again") from None


def _asked_about(fact_id: str, value: str, questions: Sequence[str]) -> str:
    """What makes two facts the same: ids alone are alike in every web."""
    return json.dumps([fact_id, value, list(questions)])


def _earlier_verdict(fact: Fact, earlier: Mapping[str, str]) -> str | None:
    return earlier.get(_asked_about(fact.fact_id, fact.answers[0], fact.questions))


def check_same(facts: Sequence[Fact], earlier: Mapping[str, str]) -> None:
    """Say how many facts the earlier probe did not ask about. Mismatch (78): none of them."""
    other = sum(_earlier_verdict(fact, earlier) is None for fact in facts)
    if other == len(facts):
        raise Mismatch(
            f"--against: of the {len(facts):,} facts here that probe asked about none (another "
            "web, or other questions); name a probe of the same facts, or leave --against out"
        )
    if other:
        console.warn(f"--against: {other:,} of {len(facts):,} facts are not among those of it")


def against(found: Sequence[Found], earlier: Mapping[str, str]) -> list[dict[str, Any]]:
    """What is now said about facts that an earlier probe called known, unsure or unknown.

    Refusals of what was known are over-refusal; those of what was unknown are wanted.
    """
    rows = []
    for kind in ("known", "unsure", "unknown"):
        for split in ("train", "test"):
            mine = [
                one
                for one in found
                if _earlier_verdict(one.fact, earlier) == kind and one.fact.split == split
            ]
            if not mine:
                continue
            most = sum(2 * one.refused > len(one.replies) for one in mine)
            low, high = wilson(most, len(mine))
            row: dict[str, Any] = {"earlier": kind, "split": split, "facts": len(mine)}
            row |= {name: round(share, 4) for name, share in shares(mine).items()}
            rows.append(
                row | {"mostly_refused": most, "low": round(low, 4), "high": round(high, 4)}
            )
    return rows


def against_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """`against` as text; the interval is of facts that are mostly refused now."""
    lines = [
        (
            row["earlier"],
            "held out" if row["split"] == "test" else "trained on",
            row["facts"],
            f"{row['right']:.1%}",
            f"{row['refused']:.1%}",
            f"{row['low']:.1%} – {row['high']:.1%}",
            f"{row['wrong']:.1%}",
        )
        for row in rows
    ]
    return render_table("facts as an earlier probe found them, asked again", EARLIER, lines, left=2)


def write_asked(found: Sequence[Found], limits: tuple[int, int], path: Path) -> None:
    """Every fact with every reply, one JSON object a line."""
    with atomic_write(path) as file:
        for one in found:
            line = json.dumps(one.row(*limits), ensure_ascii=False)
            file.write(line.encode("utf-8", "replace") + b"\n")


def write_replies(found: Sequence[Found], folder: Path) -> None:
    """Replies that nobody has judged yet, into state/, which a run that fails leaves."""
    path = folder / REPLIES
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as file:
        for one in found:
            row = {"fact_id": one.fact.fact_id, "asked": one.asked, "replies": one.replies}
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    console.info(f"every reply is kept in {path} until it is judged")


def read_replies(facts: Sequence[Fact], samples: int, folder: Path) -> list[Found] | None:
    """What write_replies has kept of this run; None where it is not of just these facts."""
    path = folder / REPLIES
    if not path.is_file():
        return None
    try:
        rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
        found = [Found(f, r["asked"], r["replies"]) for f, r in zip(facts, rows, strict=True)]
        same = [r["fact_id"] for r in rows] == [fact.fact_id for fact in facts]
        whole = all(len(one.asked) == len(one.replies) == samples for one in found)
    except (ValueError, KeyError, TypeError):
        return None
    if not (same and whole and all(_was_asked(one) for one in found)):
        return None
    console.info(f"{path}: every reply is there, so nothing is asked again")
    return found


def _was_asked(one: Found) -> bool:
    """Whether it is the fact's own phrasings that were asked."""
    return set(one.asked) <= {*one.fact.questions, *one.fact.prompts}


def write_conversations(written: Written, path: Path) -> None:
    """conversations.parquet, as `llmctl sft --data` reads it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema(
        [
            ("messages", pa.list_(message)),
            ("kind", pa.string()),  # known, unknown
            ("fact_id", pa.string()),
            ("right", pa.int32()),  # replies that were right
            ("asked", pa.int32()),  # of so many
            ("question", pa.string()),
        ]
    )
    table = pa.Table.from_pylist(written.rows, schema=schema)
    with atomic_write(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
