"""Personal data planted into good pages: e-mail, public IP, phone and social security numbers.

Made up from the seed. E-mail domains end in .example and phone numbers lie in the 555-01xx block
kept for fiction, so they are nobody's. A filter finds social security numbers only in ranges that
are given out, and addresses only in public space: those may by chance be somebody's.
"""

from __future__ import annotations

import ipaddress
from random import Random

from llmctl.synth.grammar import Context, expand

KINDS = ("email", "ip", "phone", "ssn")
_BOXES = ("info", "office", "post", "hello", "contact", "news", "orders", "letters")
_PHONES = ("({area}) 555-{line}", "{area}-555-{line}", "+1 {area} 555 {line}", "{area}.555.{line}")


def email(rng: Random, context: Context, host: str) -> str:
    """first.surname@site or box@site."""
    domain = host.removeprefix("www.")
    if rng.random() < 0.5:
        return f"{context['r.f']}.{context['r.s']}@{domain}".lower()
    return f"{rng.choice(_BOXES)}{rng.choice(('', str(rng.randint(2, 99))))}@{domain}"


def ip(rng: Random) -> str:
    """A public IPv4 address."""
    while True:
        address = ".".join(str(rng.randint(1, 250)) for _ in range(4))
        if ipaddress.ip_address(address).is_global and not address.startswith(("0", "224")):
            return address


def phone(rng: Random) -> str:
    """A fictional number of North America in one of the usual forms."""
    form = _PHONES[int(rng.random() * len(_PHONES))]
    area = f"{rng.randint(2, 9)}{rng.randint(0, 8)}{rng.randint(1, 9)}"
    return form.format(area=area, line=f"01{rng.randint(0, 99):02d}")


def ssn(rng: Random) -> str:
    """Three, two and four digits with dashes, in the ranges that were once given out."""
    area = rng.choice([n for n in (rng.randint(1, 772), rng.randint(1, 665)) if n != 666])
    return f"{area:03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"


def sentence(kind: str, rng: Random, context: Context, host: str) -> tuple[str, str]:
    """A sentence that gives away a piece of personal data, and the piece."""
    makers = {"ip": ip, "phone": phone, "ssn": ssn}
    value = email(rng, context, host) if kind == "email" else makers[kind](rng)
    context["value"] = value
    return expand(f"pii.{kind}", rng, context, set()), value
