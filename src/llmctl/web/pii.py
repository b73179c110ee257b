"""Personal data replaced: e-mail and public IP as FineWeb does, phone and SSN of our own.

The patterns for e-mail and IP are datatrove's. Each is tried only around characters it cannot do
without, in windows of bounded length, so hostile text costs linear time. Replacements go round
per document: the same document always gives the same text.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator

from datatrove.data import Document
from datatrove.pipeline.formatters.pii import PIIFormatter

from llmctl.web.blocks import Drop, Step, Task

KINDS = ("email", "ip", "phone", "ssn")
FINEWEB_KINDS = ("email", "ip")
WINDOW = 512  # characters either side of an @; addresses end at 254 (RFC 5321)

_PII = PIIFormatter()
_RUN = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@:\[\]-]*")
_EMAIL = _PII.emails_replacer.regex
_IP = _PII.ip_replacer.regex
_EMAILS = _PII.emails_replacer.replacements
_IPS = _PII.ip_replacer.replacements
# 555-01XX is set aside for fiction (NANPA); area 000 is never issued (SSA).
_PHONES = ("555-0100", "555-0199")
_SSNS = ("000-00-0000",)

# North American numbers with separators, and international ones led by a plus. Bare digit strings
# stay: they are prices, ids and years far more often.
_PHONE = re.compile(
    r"(?<![\w.+/=-])(?:"
    r"\+[1-9]\d{7,14}"
    r"|\+[1-9]\d{0,2}(?:[ .\-]\d{2,8}){2,5}"
    r"|\+[1-9]\d{0,2}[ .\-]?\(\d{1,4}\)[ .\-]?\d{2,8}(?:[ .\-]\d{2,8}){0,4}"
    r"|(?:1[ .\-])?\(\d{3}\)[ .\-]?\d{3}[ .\-]\d{4}"
    r"|(?:1[ .\-])?[2-9]\d{2}([ .\-])[2-9]\d{2}\1\d{4}"
    r")(?![\w/=]|[-.]\d)"
)
# Issued numbers only: no area 000, 666 or 9xx, no group 00, no serial 0000 (SSA, since 2011).
_SSN = re.compile(r"(?<![\w.+-])(?!000|666|9)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])")


def find_emails(text: str) -> Iterator[re.Match[str]]:
    """Non-overlapping matches of datatrove's e-mail pattern."""
    at, done = text.find("@"), 0
    while at >= 0:
        begin = _run_start(text, at, max(done, at - WINDOW))
        run = _RUN.match(text, at, at + WINDOW)
        end = run.end() if run else at + 1
        for match in _EMAIL.finditer(text, begin, end):
            yield match
            done = match.end()
        done = max(done, begin)
        at = text.find("@", max(end, at + 1))


_IN_RUN = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+/=?^_`{|}~.@:[]-"
)


def _run_start(text: str, at: int, least: int) -> int:
    while at > least and text[at - 1] in _IN_RUN:
        at -= 1
    return at


def find_ips(text: str) -> Iterator[re.Match[str]]:
    for match in _IP.finditer(text):
        try:
            if ipaddress.ip_address(match[0]).is_global:
                yield match
        except ValueError:  # leading zeros
            continue


def find_phones(text: str) -> Iterator[re.Match[str]]:
    return (m for m in _PHONE.finditer(text) if 7 <= sum(c.isdigit() for c in m[0]) <= 15)


def find_ssns(text: str) -> Iterator[re.Match[str]]:
    return _SSN.finditer(text)


_FINDERS: dict[str, tuple[Callable[[str], Iterator[re.Match[str]]], tuple[str, ...]]] = {
    "email": (find_emails, _EMAILS),
    "ip": (find_ips, _IPS),
    "ssn": (find_ssns, _SSNS),
    "phone": (find_phones, _PHONES),
}


def replace_pii(text: str, kinds: tuple[str, ...] = KINDS) -> tuple[str, Counter[str]]:
    """The text with personal data of these kinds replaced, and how many of each there were."""
    counts: Counter[str] = Counter()
    for kind, (find, replacements) in _FINDERS.items():
        if kind not in kinds:
            continue
        pieces, end = [], 0
        for match in find(text):
            pieces += [text[end : match.start()], replacements[counts[kind] % len(replacements)]]
            end = match.end()
            counts[kind] += 1
        if pieces:
            text = "".join(pieces) + text[end:]
    return text, counts


class PiiReplacer(Step):
    """Replaces personal data, behind the signature, so that it does not sway deduplication."""

    name = "📞 PII"
    step = "pii"
    type = "✂️ - FORMAT"

    def __init__(self, task: Task, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.task = task
        self.kinds = kinds

    def judge(self, doc: Document) -> Drop | None:
        doc.metadata["_chars"] = len(doc.text)
        doc.text, counts = replace_pii(doc.text, self.kinds)
        doc.metadata["_pii"] = dict(counts)
        return None
