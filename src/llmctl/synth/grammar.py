"""A small generative grammar: templates with choices and slots, compiled once, expanded fast.

    [old|new|]            one of these, each as likely as the other; an empty one is allowed
    {p.he}                a name of the page's context; {P.he} the same with a capital
    {tool}                a word of a list in lexicon.txt, never the same twice running
    {tool+}               its plural
    {x=tool}  ... {x}     the same, kept under a name for the rest of the page: a second {x=tool}
                          says the first one's word, and {tool=tool} fixes {tool} itself
    {3-12}                a number in that range, in digits; {three-twelve} in words;
    {n=3-12}              kept under a name
    {@news.quote}         a template of another section

`a` and `an` are put right after expansion, and so are capitals at the start of a sentence.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from llmctl.synth.lexicon import lexicon, sections

Context = dict[str, Any]
Part = str | Callable[[Random, Context, list[str]], None]

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
_FROM_WORD = {word: n for n, word in enumerate(ONES)} | {
    word: 10 * n for n, word in enumerate(TENS) if n > 1
}


def in_words(n: int) -> str:
    """A whole number below a million in English words."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f"-{ONES[n % 10]}" if n % 10 else "")
    if n < 1000:
        rest = f" and {in_words(n % 100)}" if n % 100 else ""
        return f"{ONES[n // 100]} hundred{rest}"
    thousands, left = divmod(n, 1000)
    tail = f" {in_words(left)}" if left >= 100 else f" and {in_words(left)}" if left else ""
    return f"{in_words(thousands)} thousand{tail}"


def plural(noun: str) -> str:
    """'brush' -> 'brushes', 'jar of honey' -> 'jars of honey'."""
    head, of, rest = noun.partition(" of ")
    if head == "mouse":
        return "mice" + of + rest
    if head in ("deer", "sheep"):
        return noun
    if head.endswith(("s", "sh", "ch", "x")):
        return f"{head}es{of}{rest}"
    if head.endswith("y") and head[-2] not in "aeiou":
        return f"{head[:-1]}ies{of}{rest}"
    if head.endswith("fe"):
        return f"{head[:-2]}ves{of}{rest}"
    if head.endswith("lf"):
        return f"{head[:-1]}ves{of}{rest}"
    return f"{head}s{of}{rest}"


def _pick(options: Sequence[Any], rng: Random) -> Any:
    return options[int(rng.random() * len(options))]


def _choice(options: list[list[Part]]) -> Part:
    plain = [o[0] if o else "" for o in options if not o or (len(o) == 1 and type(o[0]) is str)]
    if len(plain) == len(options):
        words = tuple(str(w) for w in plain)
        n_words = len(words)

        def word(rng: Random, context: Context, out: list[str]) -> None:
            out.append(words[int(rng.random() * n_words)])

        return word
    n_options = len(options)

    def sequence(rng: Random, context: Context, out: list[str]) -> None:
        for part in options[int(rng.random() * n_options)]:
            if type(part) is str:
                out.append(part)
            else:
                part(rng, context, out)  # type: ignore[operator]

    return sequence


def _slot(body: str) -> Part:
    name, _, source = body.rpartition("=")
    if source.startswith("@"):
        target = source[1:]
        return lambda rng, context, out: _run(_pick(compiled(target), rng), rng, context, out)
    if (bounds := re.fullmatch(r"(\w+)-(\w+)", source)) and (value := _number(*bounds.groups())):
        return _keep(name, value)
    if source.rstrip("+") in lexicon():
        return _keep(name, _word(source))
    if source[0].isupper():
        key = source[0].lower() + source[1:]

        def capital(rng: Random, context: Context, out: list[str]) -> None:
            value = context[key]
            out.append(value[0].upper() + value[1:])

        return capital
    return lambda rng, context, out: out.append(context[source])


def _number(low: str, high: str) -> Callable[[Random, Context], str] | None:
    spelled = low in _FROM_WORD and high in _FROM_WORD
    if not spelled and not (low.isdigit() and high.isdigit()):
        return None
    start, stop = (_FROM_WORD[low], _FROM_WORD[high]) if spelled else (int(low), int(high))
    width = stop - start + 1
    render = in_words if spelled else str
    return lambda rng, context: render(start + int(rng.random() * width))


def _word(source: str) -> Callable[[Random, Context], str]:
    fixed = source.rstrip("+")
    words, memory, several = lexicon()[fixed], "~" + fixed, source.endswith("+")
    if several:
        words = tuple(plural(word) for word in words)
    n_words = len(words)

    def draw(rng: Random, context: Context) -> str:
        if fixed in context:
            return plural(context[fixed]) if several else context[fixed]
        at = int(rng.random() * n_words)
        if at == context.get(memory):
            at = (at + 1) % n_words
        context[memory] = at
        return words[at]

    return draw


def _keep(name: str, draw: Callable[[Random, Context], str]) -> Part:
    if not name:
        return lambda rng, context, out: out.append(draw(rng, context))

    def keep(rng: Random, context: Context, out: list[str]) -> None:
        if name not in context:
            context[name] = draw(rng, context)
        out.append(context[name])

    return keep


def parse(template: str) -> list[Part]:
    """A template as literal strings and callables that append to a list."""
    parts, at = _sequence(template, 0, nested=False)
    if at != len(template):
        raise ValueError(f"template ends early at {at}: {template}")
    return parts


def _sequence(template: str, at: int, *, nested: bool) -> tuple[list[Part], int]:
    parts: list[Part] = []
    start = at
    while at < len(template) and not (nested and template[at] in "|]"):
        if template[at] not in "[{":
            at += 1
            continue
        if at > start:
            parts.append(template[start:at])
        if template[at] == "{":
            end = template.index("}", at)
            parts.append(_slot(template[at + 1 : end]))
            at = end + 1
        else:
            options: list[list[Part]] = []
            while template[at] != "]":
                option, at = _sequence(template, at + 1, nested=True)
                options.append(option)
                if at >= len(template):
                    raise ValueError(f"template has an open [: {template}")
            parts.append(_choice(options))
            at += 1
        start = at
    if at > start:
        parts.append(template[start:at])
    return parts, at


@functools.cache
def compiled(section: str) -> tuple[list[Part], ...]:
    """The templates of a section, ready to expand."""
    if section not in sections():
        raise KeyError(f"no section {section!r} in the prose files")
    return tuple(parse(line) for line in sections()[section])


def _run(parts: list[Part], rng: Random, context: Context, out: list[str]) -> None:
    for part in parts:
        if type(part) is str:
            out.append(part)
        else:
            part(rng, context, out)  # type: ignore[operator]


_ARTICLE = re.compile(r"\b([Aa])n? (?=([A-Za-z]+))")
_START = re.compile(r"(?:^|(?<=[.!?] ))([\"(]?)([a-z])")
_SILENT = ("hour", "hones", "heir", "honour")  # an hour
_SOUNDED = ("uni", "use", "usu", "one", "eu", "uk")  # a unit, a ukulele


def _article(match: re.Match[str]) -> str:
    word = match[2].lower()
    vowel = word[0] in "aeiou" and not word.startswith(_SOUNDED) or word.startswith(_SILENT)
    return f"{match[1]}n " if vowel else f"{match[1]} "


def polish(text: str) -> str:
    """Put articles and capitals right."""
    text = _ARTICLE.sub(_article, text)
    return _START.sub(lambda m: m[1] + m[2].upper(), text)


def expand_raw(section: str, rng: Random, context: Context, used: set[tuple[str, int]]) -> str:
    """`expand` without English polish, for other languages."""
    choices = compiled(section)
    at = start = int(rng.random() * len(choices))
    while (section, at) in used:
        at = (at + 1) % len(choices)
        if at == start:
            break
    used.add((section, at))
    out: list[str] = []
    _run(choices[at], rng, context, out)
    return "".join(out)


def expand(section: str, rng: Random, context: Context, used: set[tuple[str, int]]) -> str:
    """One template of a section, expanded; a template is not used twice while others are left.

    `used` remembers for a page which templates it has had.
    """
    return polish(expand_raw(section, rng, context, used))


def expand_text(template: str, rng: Random, context: Context) -> str:
    """Expand a template given as text (compiled once, then remembered)."""
    out: list[str] = []
    _run(_parsed(template), rng, context, out)
    return polish("".join(out))


@functools.lru_cache(maxsize=4096)
def _parsed(template: str) -> list[Part]:
    return parse(template)
