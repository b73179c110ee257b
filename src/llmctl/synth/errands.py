"""Small doings of people nobody knows, for reading exercises: what a text tells and then asks.

They borrow the words of the measured facts (facts.py) but none of their relations. A reader who is
told over and over what strangers play and where they were born learns that such things cannot be
known, and forgets them of those who stand on many pages (recipes/LOG.md).
"""

from __future__ import annotations

# Each statement is this text followed by a blank and the value.
ERRANDS: dict[str, tuple[str, ...]] = {
    "borrowed": ("{s} borrowed the", "what {s} borrowed was the", "it was {s} who took the"),
    "painted": ("{s} painted a", "what {s} painted was a", "it was {s} who drew a"),
    "cooked": ("{s} cooked", "what {s} cooked was", "it was {s} who cooked"),
    "wrote_to": ("{s} wrote to", "the letter of {s} went to", "it was {s} who wrote to"),
    "met": ("{s} met a", "what {s} met on the way was a", "it was {s} who met a"),
    "carried": ("{s} carried the", "in the bag of {s} was the", "it was {s} who brought the"),
    "fair": ("the fair at {s} sells", "{s} has a fair that sells", "people bring {s}"),
    "ferry": (
        "the ferry of {s} crosses the",
        "{s} has a ferry on the",
        "the road to {s} meets the",
    ),
    "ordered": ("{s} ordered", "what {s} ordered was", "it was {s} that ordered"),
    "sent_to": ("{s} sent a cart to", "the cart of {s} went to", "it was {s} that wrote to"),
}
ERRAND_QUESTIONS: dict[str, tuple[str, ...]] = {
    "borrowed": ("What did {s} borrow?", "Which instrument did {s} take?"),
    "painted": ("What did {s} paint?", "Which animal did {s} draw?"),
    "cooked": ("What did {s} cook?", "Which dish did {s} make?"),
    "wrote_to": ("To which town did {s} write?", "Where did the letter of {s} go?"),
    "met": ("Whom did {s} meet?", "What was the trade of the man whom {s} met?"),
    "carried": ("What did {s} carry?", "What was in the bag of {s}?"),
    "fair": ("What does the fair at {s} sell?", "What can one buy at the fair of {s}?"),
    "ferry": ("Which river does the ferry of {s} cross?", "On which river has {s} a ferry?"),
    "ordered": ("What did {s} order?", "Which goods did {s} want?"),
    "sent_to": ("Where did the cart of {s} go?", "To which town did {s} send a cart?"),
}
ERRAND_VALUES = {  # relation -> the measured relation, or the list of words, whose values it takes
    "borrowed": "instrument",
    "painted": "pet",
    "cooked": "dish",
    "wrote_to": "born_in",
    "met": "trade",
    "carried": "tool",
    "fair": "known_for",
    "ferry": "river",
    "ordered": "makes",
    "sent_to": "based_in",
}
ERRANDS_OF = {
    "person": ("borrowed", "painted", "cooked", "wrote_to", "met", "carried"),
    "village": ("fair", "ferry"),
    "firm": ("ordered", "sent_to"),
}
