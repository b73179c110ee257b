"""What every test may use: where shared real data lies, a clean working folder, a way to run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from walls import modes

# A property is a law, not a stopwatch: a busy machine must not fail it.
settings.register_profile("llmctl", deadline=None)
settings.load_profile("llmctl")
# A shell starts background jobs with Ctrl-C ignored, and children inherit that: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shared() -> Path:
    """The folder of real data named by LLMCTL_SHARED; the test is skipped without it."""
    folder = os.environ.get("LLMCTL_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: set LLMCTL_SHARED")
    return Path(folder)


@pytest.fixture(scope="session")
def walls() -> None:
    """The test is skipped where the kernel has nothing to build the sandbox's walls of."""
    if not modes():
        pytest.skip("no isolation here: neither namespaces nor Landlock")


@pytest.fixture
def llmctl(tmp_path):
    """Run the command line in a fresh folder: llmctl("tokenize", …) -> CompletedProcess of text."""

    def call(*words: str, cwd: Path = tmp_path, stdin: str | None = None, **environment: str):
        given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            [sys.executable, "-m", "llmctl", *map(str, words)],
            cwd=cwd,
            env={**os.environ, "NO_COLOR": "1", **environment},
            capture_output=True,
            text=True,
            timeout=200,
            **given,
        )

    return call
