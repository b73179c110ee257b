"""Imported by the fork server alone, for its effect: what every worker needs is loaded once.

The workers are forked from a process that has the parser, the tokenizer and the lists' index in
memory already, and share those pages.
"""

import gc

from llmctl.web import dedup, extract_child, filters, language, reader, repetition, urls, worker
from llmctl.web.words import word_facts, words_for

for _name in extract_child.EXTRACTORS:
    extract_child.load(_name)
words_for("en").split("Warm.")
word_facts()
language.model()
urls.suffixes()
gc.collect()
gc.freeze()  # a collection in a worker would copy the shared pages

__all__ = ["dedup", "filters", "reader", "repetition", "worker"]
