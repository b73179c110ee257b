"""Imported by the fork server alone, for its effect: what every worker needs is loaded once.

The workers are forked from a process that has the parser, the tokenizer and the lists' index in
memory already, and share those pages.
"""

import gc
import sys

# spaCy's parts try these on import, where installed: 1.7 CPU seconds and 190 MB for nothing here.
for _framework in ("torch", "tensorflow", "mxnet", "cupy"):
    sys.modules.setdefault(_framework, None)  # type: ignore[arg-type]

from llmctl.web import dedup, extract_child, filters, language, reader, repetition, urls, worker  # noqa: E402
from llmctl.web.words import word_facts, words_for  # noqa: E402

for _name in extract_child.EXTRACTORS:
    extract_child.load(_name)
words_for("en").split("Warm.")
word_facts()
language.model()
urls.suffixes()
gc.collect()
gc.freeze()  # a collection in a worker would copy the shared pages

__all__ = ["dedup", "filters", "reader", "repetition", "worker"]
