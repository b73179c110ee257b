"""What `rl` asks its questions from: problems, or the prompts of preferences or conversations."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llmctl.artifacts.lineage import find_upstream
from llmctl.artifacts.store import Artifact, Draft
from llmctl.core import console
from llmctl.core.distributed import World
from llmctl.core.errors import BadInput, Mismatch, NoInput
from llmctl.data.conversations.rows import json_lines
from llmctl.data.problems import FILE, HELD_OUT, Message, Problem, read_problems
from llmctl.tokenizer.chat import ChatFormat, check_messages

ANSWERED = ({"answer"}, {"test_list"})  # keys of rows that say what is right
RANKED = ({"chosen"}, {"responses"}, {"ranks"}, {"outputs"}, {"ranked"}, {"response 1"})


def data_path(given: str, model: Artifact, *, prompts_only: bool) -> Path:
    """The file or folder to read: as given, else of the synthetic web the model was made from.

    prompts_only: no answers are needed, so the prompts of its rankings are taken.
    """
    if given:
        if not Path(given).exists():
            raise NoInput(f"{given}: no such file or folder of problems; check --data")
        return Path(given)
    web = find_upstream(model, "web", "name problems with --data")
    ranked = web / "preferences.parquet"
    return ranked if prompts_only and ranked.is_file() else web / FILE


def read_questions(path: Path, *, max_bad: float) -> list[Problem]:
    """The problems of a file or folder; of preferences and conversations, which have no answers,
    the prompts: each once."""
    keys = _first_keys(path)
    if any(k <= keys for k in ANSWERED) and not any(k <= keys for k in RANKED):
        return read_problems(path, max_bad=max_bad)
    if any(k <= keys for k in RANKED) or "message_tree_id" in keys:
        from llmctl.data.preferences import read_preferences

        rankings = read_preferences(path, max_bad=max_bad).rows
        return _prompts((r.prompt, r.where, r.split) for r in rankings)
    from llmctl.data.conversations import read_conversations

    rows = read_conversations(path, max_bad=max_bad).rows
    return _prompts((_until_answer(r.messages), r.where, "") for r in rows)


def _first_keys(path: Path) -> set[str]:
    """Keys of the first row, to tell what a file holds."""
    if path.is_dir():
        if (path / FILE).is_file():
            return {"prompt", "answer"}
        path = next((p for p in sorted(path.glob("*")) if p.suffix in (".jsonl", ".parquet")), path)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return set(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{path}: damaged ({str(error).splitlines()[0]})") from None
    if not path.is_file():
        return set()
    with open(path, "rb") as handle:
        rows = (row.value for row in json_lines(path, handle) if row.value is not None)
        return set(next(rows, {}))


def _until_answer(messages: Sequence[Message]) -> list[Message]:
    """What a conversation says before its last answer, up to a question."""
    last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=0)
    kept = list(messages[:last])
    while kept and kept[-1]["role"] != "user":
        kept.pop()
    return kept


def _prompts(found: Iterable[tuple[list[Message], str, str]]) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for prompt, where, split in found:
        if not prompt or check_messages(prompt, prompt=True):
            continue
        key = json.dumps(prompt, sort_keys=True, ensure_ascii=False)
        drawn = int.from_bytes(hashlib.sha256(key.encode("utf-8", "replace")).digest()[:4], "big")
        split = split or ("test" if drawn % HELD_OUT == 0 else "train")
        problems.setdefault(key, Problem(prompt, "", "", split, where))
    if not problems:
        raise NoInput("no prompt that a user ends was found in the data")
    return list(problems.values())


def choose(problems: Sequence[Problem], *, difficulty: Sequence[str], system: str) -> list[Problem]:
    """Only those of the difficulties named, with the system message before those without one."""
    if difficulty:
        problems = [p for p in problems if str(p.meta.get("difficulty")) in difficulty]
        if not problems:
            raise NoInput(
                f"no problem has difficulty {' or '.join(difficulty)}; see meta.difficulty"
            )
    if not system:
        return list(problems)
    first = {"role": "system", "content": system}
    return [
        p if p.prompt[0]["role"] == "system" else _with_prompt(p, [first, *p.prompt])
        for p in problems
    ]


def _with_prompt(problem: Problem, prompt: list[Message]) -> Problem:
    return Problem(
        prompt, problem.answer, problem.verifier, problem.split, problem.where, problem.meta
    )


def encode_prompts(
    problems: Sequence[Problem], format: ChatFormat, *, room: int
) -> tuple[list[Problem], list[list[int]]]:
    """Those that leave the model room for an answer (prompts of at most `room` tokens), and their
    ids, up to where the answer begins. Others are dropped, counted and told."""
    kept, ids = [], []
    for problem in problems:
        rendered: Any = format.render(problem.prompt, generation=True)
        if len(rendered.ids) <= room:
            kept.append(problem)
            ids.append(list(rendered.ids))
    if dropped := len(problems) - len(kept):
        console.warn(f"{dropped:,} prompts of more than {room:,} tokens dropped")
    return kept, ids


def own_copy(folder: Path, name: str, draft: Draft, world: World) -> Path:
    """A reward model as it is now, inside the run: one that changes meanwhile, perhaps because it
    is trained on, must not change the run. Mismatch (78) when a resumed run finds another."""
    source = Artifact(folder, "foreign").id
    copy = draft.path / "state" / f"{name}-{source[:16]}"
    if world.is_main:
        if draft.remember(name, source) != source:
            raise Mismatch(f"{folder}: not the model this run began with; start anew with --force")
        if not copy.is_dir():
            new = copy.with_name(f"{copy.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(
                folder, new, ignore=shutil.ignore_patterns("state", ".lock", "run.json")
            )
            new.rename(copy)
    world.wait()
    return copy
