"""What holds: walls that are missing or have fallen are noticed, and then nothing runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import walls
from llmctl import sandbox
from llmctl.core.errors import Refused
from llmctl.sandbox import Limits

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"
pytestmark = pytest.mark.usefixtures("walls")


def kept_by(lines):
    """A pool, checked, whose keepers run these lines before anything else."""
    from llmctl.sandbox import keeper

    boot = keeper.BOOT.replace("zygote.main", f"{lines}\nzygote.main")
    pool = sandbox._Pool()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "BOOT", boot)
        pool.check()
    return pool


# What a kernel without this or that would answer: a filter that is there before the sandbox is.
WITHOUT = """
import ctypes, os, struct, sys
from llmctl.sandbox import kernel
def without(answers):
    load, equal, give = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 0)]
    for number, error in answers.items():
        code += [(equal, 0, 1, number), (give, 0, 0, 0x00050000 | error)]
    code.append((give, 0, 0, 0x7FFF0000))
    kernel.no_new_privileges()
    kernel.seccomp(b"".join(struct.pack("=HBBI", *c) for c in code))
UNSHARE, LANDLOCK, MOUNT = {272: 1}, {444: 38, 445: 38, 446: 38}, {165: 1}
without(%s)
from llmctl import sandbox
from llmctl.core.errors import Refused
print(sandbox.mode(), "|", sandbox.available())
try:
    print(sandbox.run_python("open('MARK', 'w'); print('has run')"))
except Refused as error:
    print("refused:", error.code, error)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
@pytest.mark.parametrize(
    ("missing", "mode"),
    [
        ("{}", "namespaces"),
        ("LANDLOCK", "namespaces"),
        ("UNSHARE", "landlock"),
        ("MOUNT", "landlock"),
        ("UNSHARE | LANDLOCK", None),
        ("UNSHARE | LANDLOCK | MOUNT", None),
    ],
)
def test_without_walls_nothing_runs(tmp_path, missing, mode):
    if mode is not None and mode not in walls.modes():
        pytest.skip(f"this kernel has no {mode}")
    code = WITHOUT.replace("MARK", str(tmp_path / "mark")) % missing
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{mode} | ")
    assert not (tmp_path / "mark").exists()
    if mode is None:
        assert "refused: 77 no isolation on this machine" in done.stdout
        assert "landlock:" in done.stdout and "namespaces:" in done.stdout


def test_a_filter_that_cannot_be_installed_is_a_refusal():
    """The last wall missing: the child says so and runs nothing."""
    pool = kept_by(
        "from llmctl.sandbox import kernel\ndef no(f): raise OSError('no seccomp')\n"
        "kernel.seccomp = no"
    )
    assert "no seccomp" in pool.reason
    with pytest.raises(Refused, match="no isolation"), pool.keeper():
        pass


def test_a_filter_that_filters_nothing_is_noticed():
    pool = kept_by("from llmctl.sandbox import kernel\nkernel.seccomp = lambda filter: None")
    assert "got through" in pool.reason


def test_where_a_wall_has_fallen_tests_fail_and_are_not_skipped(tmp_path):
    """Whether there are walls to test is asked of the kernel."""
    fallen = "from llmctl import sandbox\nsandbox._no_sandbox_here = lambda: 'a wall fell'\n"
    (tmp_path / "fallen.py").write_text(fallen)
    tests = (
        "sandbox/test_sandbox.py::test_each_run_is_new_and_like_the_one_before",
        "reward/test_python_tests.py::test_a_right_program_passes_and_a_wrong_one_says_where",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "fallen", "-p", "no:cacheprovider"]
        + [f"{HERE.parent}/{name}" for name in tests],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{SRC}"},
    )
    assert "2 failed" in done.stdout and "skipped" not in done.stdout, done.stdout


def test_a_python_in_a_folder_named_llmctl_keeps_its_library():
    pool = kept_by("sys.path.append('/opt/llmctl-env/lib/python3')")
    with pool.keeper() as keeper:
        code = "import sys\n'/opt/llmctl-env/lib/python3' in sys.path"
        run = keeper.run(code, stdin="", show=True, calls=(), limits=Limits())
    pool.close()
    assert run.printed == b"True\n"


def test_where_pythons_library_is_out_of_reach_nothing_runs():
    """Else a right program that imports something would be taken for a wrong one."""
    pool = kept_by(
        "from llmctl.sandbox import jail\nbuild = jail.build\n"
        "def bare(mode): sys.path.clear(); return build(mode)\njail.build = bare"
    )
    assert "No module named 'csv'" in pool.reason
