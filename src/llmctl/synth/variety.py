"""Small changes of wording that keep pages of the same templates apart.

Near-duplicate filters compare runs of five words. In a web of gigabytes many pages share some
templates; where common phrases have several forms, shared sentences share fewer runs.
"""

from __future__ import annotations

import re
from random import Random

_EITHER_WAY = (
    ("nobody", "no one"),
    ("everybody", "everyone"),
    ("somebody", "someone"),
    ("anybody", "anyone"),
    ("almost", "nearly"),
)
_FORMS = {  # phrase -> other ways to say it; the phrase itself stays one of them
    "cannot": ("can't",),
    "do not": ("don't",),
    "does not": ("doesn't",),
    "did not": ("didn't",),
    "is not": ("isn't",),
    "was not": ("wasn't",),
    "are not": ("aren't",),
    "were not": ("weren't",),
    "has not": ("hasn't",),
    "have not": ("haven't",),
    "will not": ("won't",),
    "would not": ("wouldn't",),
    "could not": ("couldn't",),
    "it is": ("it's",),
    "that is": ("that's",),
    "i am": ("I'm",),
    "we are": ("we're",),
    "you are": ("you're",),
    "they are": ("they're",),
    "i would": ("I'd",),
    "because": ("since", "as"),
    "shall": ("will",),
    "at once": ("immediately", "straight away"),
    "until": ("till",),
    "large": ("big",),
    "began": ("started",),
    "begins": ("starts",),
    "begin": ("start",),
    "the whole": ("the entire",),
    "a few": ("several", "some"),
    "in the end": ("finally", "eventually"),
    "one can": ("you can",),
    "so that": ("so",),
    "once more": ("again", "one more time"),
    "often": ("frequently",),
    "perhaps": ("maybe",),
    "next to": ("beside",),
    "very": ("really", "rather"),
    "has to": ("must",),
    "wanted to know": ("asked",),
    "came back": ("returned",),
    "went home": ("walked home",),
    "answered": ("replied",),
    "for a while": ("for some time",),
    "for a long time": ("for ages",),
    "of course": ("naturally",),
}
for _one, _other in _EITHER_WAY:
    _FORMS[_one], _FORMS[_other] = (_other,), (_one,)
_PHRASE = re.compile(
    r"\b(?:" + "|".join(sorted(_FORMS, key=len, reverse=True)) + r")\b(?! of\b)(?=[ ,;]\w| \")",
    re.IGNORECASE,
)


def vary(text: str, rng: Random) -> str:
    """The text with each common phrase in one of its forms, chosen anew at each place.

    A phrase at the end of a clause stays as it is ("I know what it is").
    """

    def other(match: re.Match[str]) -> str:
        phrase = match[0]
        if phrase == "Because":  # an answer, which nothing else can begin
            return phrase
        forms = _FORMS[phrase.lower()]
        at = int(rng.random() * (len(forms) + 1))
        if at == len(forms):
            return phrase
        form = forms[at]
        return form[0].upper() + form[1:] if phrase[0].isupper() else form

    return _PHRASE.sub(other, text)
