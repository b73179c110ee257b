"""Personal data: e-mail and IP exactly as datatrove replaces them, phone and SSN of our own."""

import random
import time

import pytest
from datatrove.pipeline.formatters import PIIFormatter

from llmctl.web.pii import replace_pii


def theirs(text: str) -> str:
    return PIIFormatter().format(text)


def test_email_and_ip_equal_datatroves():
    rng = random.Random(1)
    pieces = (
        "a.b@c.org x@y @ a@@b.com <me@example.co.uk> mailto:x+y@z-w.info, 8.8.8.8 10.0.0.1 "
        "1.2.3.4.5 256.1.1.1 192.168.1.1 99.98.97.96:80 v1.2.3 user@[1.2.3.4] é@b.de a@b.c/d"
    ).split()
    for _ in range(400):
        text = "".join(rng.choice(pieces) + rng.choice(" ,.;\n@é") for _ in range(12))
        assert replace_pii(text, ("email", "ip"))[0] == theirs(text), text


@pytest.mark.parametrize(
    "number",
    [
        "(206) 555-0143",
        "206-555-0143",
        "206.555.0143",
        "1-206-555-0143",
        "+1 (206) 555-0143",
        "+12065550143",
        "+44 20 7946 0958",
        "+49-30-901820",
    ],
)
def test_phones_go(number):
    text, found = replace_pii(f"Call {number}, or come by.")
    assert found == {"phone": 1} and number not in text and text.endswith(", or come by.")


@pytest.mark.parametrize("number", ["219-09-9999", "078 05 1120"])
def test_ssns_go(number):
    text, found = replace_pii(f"His number is {number}.")
    assert found == {"ssn": 1} and text == "His number is 000-00-0000."


@pytest.mark.parametrize(
    "text",
    [
        "In 2024-05-17 they sold 1,234,567 units for $555.0143.",
        "ISBN 978-3-16-148410-0, pages 100-200, 3.14159",
        "order 20655501431234 and 666-12-3456 and 900-12-3456 and 123-45-67890",
        "version 1.206.555.0143x and http://a.example/206-555-0143/",
    ],
)
def test_other_numbers_stay(text):
    assert replace_pii(text, ("phone", "ssn"))[0] == text


def test_kinds_are_chosen():
    text = "me@example.net 9.9.9.9 206-555-0143 219-09-9999"
    assert replace_pii(text, ()) == (text, {})
    assert replace_pii(text, ("ssn",))[0].startswith("me@example.net 9.9.9.9 206-555-0143 000")


def test_hostile_text_costs_linear_time():
    begin = time.process_time()
    for text in ("a.a." * 100_000 + "@", "@" * 100_000, "1.1." * 100_000, "+1-11" * 100_000,
                 "a@a." * 100_000, "(206) " * 100_000):  # fmt: skip
        replace_pii(text)
    assert time.process_time() - begin < 10
