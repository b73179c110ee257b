"""The escape battery: nothing gets out, nothing stays behind, as root and as a plain user."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from attempts import ATTEMPTS, ENDED
from battery import PLAIN

import walls

BATTERY = Path(__file__).with_name("battery.py")
USERS = ["root", "plain"] if os.getuid() == 0 else ["plain"]
MODES = ["namespaces", "landlock"]


@cache
def results(user):
    """{mode: what the battery says}, of the modes that this kernel has. Where each has a user of
    its own both run at the same time, since most of it is waiting."""
    flags = ["--plain"] if user == "plain" else []
    groups = [MODES] if os.getuid() == 0 else [[mode] for mode in MODES]
    found = {}
    for group in groups:
        running = {mode: _started(mode, *flags) for mode in group if mode in possible(user)}
        for mode, process in running.items():
            out, err = process.communicate(timeout=180)
            assert process.returncode == 0, err[-2000:]
            found[mode] = json.loads(out)
    return found


def possible(user):
    return walls.modes(PLAIN["namespaces"] if user == "plain" and os.getuid() == 0 else 0)


def _started(*words):
    return subprocess.Popen(
        [sys.executable, str(BATTERY), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def of_mode(user, mode):
    if mode not in possible(user):
        pytest.skip(f"this kernel gives {user} no {mode}")
    return results(user)[mode]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*ATTEMPTS, *ENDED])
def test_attempt(name, mode, user):
    found = of_mode(user, mode)[name]
    assert found["problems"] == [], found


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_and_ordinary_programs_still_run(mode, user):
    after = of_mode(user, mode)["after"]
    assert after["mode"] == mode and after["right"]
    assert after["left"] == [] and not after["children"]
    assert after["grown_mib"] < 64
    if user == "root":
        assert after["uid"] >= 61_184  # a user that nobody else is
