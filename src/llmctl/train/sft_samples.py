"""What a model in tuning answers to fixed prompts: before, while it learns, and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmctl.core import console
from llmctl.core.files import atomic_write
from llmctl.core.terminal import one_line
from llmctl.infer.engine import Engine
from llmctl.infer.params import SamplingParams
from llmctl.model.transformer import Transformer
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import ChatFormat
from llmctl.train.hooks import attempt

FILE = "samples.jsonl"


class Samples:
    """Answers of one model, the likeliest ones, so that before and after can be compared."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        format: ChatFormat,
        prompts: Sequence[str],
        max_tokens: int,
    ) -> None:
        """prompts: what a user says; one that leaves no room for an answer is left out."""
        self.model, self.tokenizer = model, tokenizer
        self.params = SamplingParams(
            max_tokens=max_tokens, temperature=0.0, stop_ids=tuple(sorted(format.stop_ids))
        )
        self.prompts: list[tuple[str, list[int]]] = []
        self._said = 0
        for text in prompts:
            ids = format.render([{"role": "user", "content": text}], generation=True).ids
            if len(ids) < model.config.max_seq_len:
                self.prompts.append((text, ids))
            else:
                console.warn(f"sample prompt {one_line(text, 40)!r} is longer than the context")

    def answers(self, prompts: Sequence[tuple[str, list[int]]]) -> list[dict[str, Any]]:
        """prompt, text and finish_reason of each."""
        engine = Engine(self.model, self.tokenizer)
        done = engine.generate([ids for _, ids in prompts], self.params)
        return [
            {"prompt": text, "text": c.text, "finish_reason": c.finish_reason}
            for (text, _), c in zip(prompts, done)
        ]

    def next_one(self) -> str:
        """One prompt and its answer, each call the next prompt."""
        prompt = self.prompts[self._said % len(self.prompts)]
        self._said += 1
        return f"{prompt[0]} → {self.answers([prompt])[0]['text']}"

    def keep(self, folder: Path, when: str, step: int) -> None:
        """Add the answers to samples.jsonl, unless it has some of this `when` already."""
        old = read_samples(folder)
        if not self.prompts or any(row["when"] == when for row in old):
            return
        found = attempt(lambda: self.answers(self.prompts), step)
        rows = [*old, *({"when": when, "step": step, **row} for row in found or [])]
        with atomic_write(folder / FILE) as handle:
            for row in rows:
                handle.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
                handle.write(b"\n")

    def show(self, folder: Path) -> None:
        """What is in samples.jsonl, an answer below the other."""
        rows = read_samples(folder)
        for prompt in dict.fromkeys(row["prompt"] for row in rows):
            console.info(f"  {one_line(prompt, 90)}")
            for row in (r for r in rows if r["prompt"] == prompt):
                console.info(f"    {row['when']:>6}: {one_line(row['text'], 200)}")


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """Rows of samples.jsonl: when (before, after), step, prompt, text, finish_reason."""
    path = folder / FILE
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
