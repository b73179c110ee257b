"""The escape battery: nothing gets out, nothing stays behind, as root and as a plain user."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from attempts import ATTEMPTS, ENDED

BATTERY = Path(__file__).with_name("battery.py")
USERS = ["root", "plain"] if os.getuid() == 0 else ["plain"]
MODES = ["namespaces", "landlock"]


@cache
def results(user):
    """{mode: what the battery says, or why there is none}. Where each has a user of its own both
    run at the same time, since most of it is waiting."""
    flags = ["--plain"] if user == "plain" else []
    groups = [MODES] if os.getuid() == 0 else [[mode] for mode in MODES]
    found = {}
    for group in groups:
        running = {mode: _started(mode, *flags) for mode in group}
        for mode, process in running.items():
            out, err = process.communicate(timeout=180)
            if process.returncode and f"AssertionError: {mode}:" in err:
                found[mode] = err.splitlines()[-1]  # this kernel has not what the mode needs
                continue
            assert process.returncode == 0, err[-2000:]
            found[mode] = json.loads(out)
    return found


def _started(*words):
    return subprocess.Popen(
        [sys.executable, str(BATTERY), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def of_mode(user, mode):
    found = results(user)[mode]
    if isinstance(found, str):
        pytest.skip(found)
    return found


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
