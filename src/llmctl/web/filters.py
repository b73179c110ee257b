"""Gopher quality, C4 and FineWeb's own rules, with datatrove's thresholds and verdicts.

Each block inherits its datatrove namesake's settings, so a threshold has one source, and says
with every drop what it measured.
"""

from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter
from datatrove.pipeline.filters.c4_filters import (
    CITATION_REGEX,
    ELLIPSIS,
    END_PUNCTUATION,
    POLICY_SUBSTRINGS,
)
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates

from llmctl.web.blocks import Drop, Step, Task
from llmctl.web.words import word_facts, words_for


class GopherQuality(Step, GopherQualityFilter):
    """Gopher's quality rules (Rae et al. 2021, arXiv:2112.11446, A1.1)."""

    name = "🥇 Gopher Quality"
    step = "gopher_quality"

    def __init__(self, task: Task, language: str = "en") -> None:
        GopherQualityFilter.__init__(self, language=language)
        self.task = task

    def judge(self, doc: Document) -> Drop | None:
        text = doc.text
        words = words_for(self.language).split(text)
        facts = word_facts().of(words)
        spelt = [len(w) for w, (more, _) in zip(words, facts) if more]
        return (
            self._lengths(spelt)
            or self._symbols(text, len(words))
            or self._lines(text.splitlines())
            or self._vocabulary(words, sum(alpha for _, alpha in facts))
        )

    def _lengths(self, spelt: list[int]) -> Drop | None:
        """Number and mean length of the words that are more than punctuation."""
        if len(spelt) < self.min_doc_words:
            return Drop("gopher_short_doc", len(spelt), self.min_doc_words)
        if len(spelt) > self.max_doc_words:
            return Drop("gopher_long_doc", len(spelt), self.max_doc_words)
        mean = sum(spelt) / len(spelt)
        if mean < self.min_avg_word_length:
            return Drop("gopher_below_avg_threshold", mean, self.min_avg_word_length)
        if mean > self.max_avg_word_length:
            return Drop("gopher_above_avg_threshold", mean, self.max_avg_word_length)
        return None

    def _symbols(self, text: str, n_words: int) -> Drop | None:
        most = self.max_symbol_word_ratio
        hashes = text.count("#") / n_words
        if hashes > most:
            return Drop("gopher_too_many_hashes", hashes, most)
        ellipses = (text.count("...") + text.count("…")) / n_words
        if ellipses > most:
            return Drop("gopher_too_many_ellipsis", ellipses, most)
        return None

    def _lines(self, lines: list[str]) -> Drop | None:
        bullets = sum(s.lstrip().startswith(("•", "-")) for s in lines) / len(lines)
        if bullets > self.max_bullet_lines_ratio:
            return Drop("gopher_too_many_bullets", bullets, self.max_bullet_lines_ratio)
        cut = sum(s.rstrip().endswith(("...", "…")) for s in lines) / len(lines)
        if cut > self.max_ellipsis_lines_ratio:
            return Drop("gopher_too_many_end_ellipsis", cut, self.max_ellipsis_lines_ratio)
        return None

    def _vocabulary(self, words: list[str], alphabetic: int) -> Drop | None:
        share = alphabetic / len(words)
        if share < self.max_non_alpha_words_ratio:  # datatrove's name; it is the least alpha share
            return Drop("gopher_below_alpha_threshold", share, self.max_non_alpha_words_ratio)
        stops = len(self.stop_words.intersection(words))
        if stops < self.min_stop_words:
            return Drop("gopher_enough_stop_words", stops, self.min_stop_words)
        return None


class C4Quality(Step, C4QualityFilter):
    """C4's line rules (Raffel et al. 2020, 2.2); FineWeb leaves out the one on final stops."""

    name = "⛰ C4 Quality"
    step = "c4"

    def __init__(
        self, task: Task, language: str = "en", terminal_punctuation: bool = False
    ) -> None:
        C4QualityFilter.__init__(
            self, filter_no_terminal_punct=terminal_punctuation, language=language
        )
        self.task = task

    def judge(self, doc: Document) -> Drop | None:
        kept, missing = [], self.min_num_sentences
        tokenizer = words_for(self.language)
        for raw in doc.text.splitlines():
            line = raw.strip()
            words = line.split()
            if len(line) > self.max_word_length and max(map(len, words)) > self.max_word_length:
                continue
            if "[" in line:
                line = CITATION_REGEX.sub("", line)
            if self.filter_no_terminal_punct and not _ends_well(line):
                continue
            if len(words) < self.min_words_per_line:
                continue
            lower = line.lower()
            if "lorem ipsum" in lower:
                return Drop("lorem_ipsum")
            if "javascript" in lower:
                continue
            if "{" in line:
                return Drop("curly_bracket")
            if any(phrase in lower for phrase in POLICY_SUBSTRINGS):
                continue
            if missing > 0:
                missing -= tokenizer.sentences(line, missing)
            kept.append(line)
        if missing > 0:
            found = self.min_num_sentences - missing
            return Drop("too_few_sentences", found, self.min_num_sentences)
        doc.text = "\n".join(kept).strip()
        return None


def _ends_well(line: str) -> bool:
    return line.endswith(END_PUNCTUATION) and not line.endswith(ELLIPSIS)


class FineWebQuality(Step, FineWebQualityFilter):
    """FineWeb's own rules (Penedo et al. 2024, arXiv:2406.17557, section 3.6)."""

    name = "🍷 FineWeb Quality"
    step = "fineweb_quality"

    def __init__(self, task: Task, language: str = "en") -> None:
        FineWebQualityFilter.__init__(self, language=language)
        self.task = task

    def judge(self, doc: Document) -> Drop | None:
        text = doc.text
        lines = [line for line in text.split("\n") if line.strip()]
        if not lines:
            return Drop("empty", 0, 1)
        ended = sum(line.endswith(self.stop_chars) for line in lines) / len(lines)
        if ended < self.line_punct_thr and not (ended == 0 and self.line_punct_exclude_zero):
            return Drop("line_punct_ratio", ended, self.line_punct_thr)
        short = sum(len(line) <= self.short_line_length for line in lines) / len(lines)
        if short > self.short_line_threshold:
            return Drop("short_line_ratio", short, self.short_line_threshold)
        repeated = find_duplicates(lines)[1] / len(text.replace("\n", ""))
        if repeated > self.char_duplicates_ratio:
            return Drop("char_dup_ratio", repeated, self.char_duplicates_ratio)
        words, breaks = len(words_for(self.language).split(text)), text.count("\n")
        if breaks / words > self.new_line_ratio:
            return Drop("list_ratio", breaks / words, self.new_line_ratio)
        return None
