"""What runs, what comes back, what is cut off; and that nothing runs without walls."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llmctl import sandbox
from llmctl.sandbox import Call, Failure, Limits, run_cases, run_python
from llmctl.sandbox.values import NotPlain, decode, encode, same

SRC = Path(__file__).parents[2] / "src"
pytestmark = pytest.mark.usefixtures("walls")


def test_a_cell_shows_what_it_prints_and_its_last_value():
    done = run_python("x = 6\nprint('six')\nx * 7")
    assert (done.stdout, done.error, done.exit, done.killed) == ("six\n42\n", None, 0, None)
    assert run_python("x = 1; None").stdout == ""
    assert run_python("print(input() + input())", stdin="a\nb\n").stdout == "ab\n"
    assert run_python("").error is None


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("a = 1\nb = c", "NameError: name 'c' is not defined (line 2)"),
        ("def f(:\n  pass", "SyntaxError: invalid syntax (line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import os; os._exit(0)", "SystemExit: ended by os._exit"),
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("bytearray(10 ** 12)", "MemoryError"),
        ("import ctypes; ctypes.string_at(0)", "crashed (signal 11)"),
        ("raise SystemExit('a\\nb')", "SystemExit: a"),
        ("raise SyntaxError('a\\nb')", "SyntaxError: a"),
        ("raise ValueError('a\\u2028b\\rc \\ud800')", "ValueError: a b c \\ud800"),
        ("raise type('A\\nB', (Exception,), {})", "A B"),
        ('import os\nos.write(3, b\'{"error": "a\\\\nb"}\\n\')\nos._exit(0)', "a b"),
        ("import os\nos.write(3, b'{\"error\": 3}\\n')\nos._exit(0)", "no readable reply"),
    ],
)
def test_errors_are_one_line(code, error):
    assert run_python(code).error == error


@pytest.mark.parametrize("code", ["(" * 5000 + ")" * 5000, "\x00", "def f(): return f()\nf()"])
def test_odd_programs_end_in_one_line_too(code):
    found = run_python(code).error
    assert found and "\n" not in found and "Error" in found


def test_each_run_is_new_and_like_the_one_before():
    code = "import random, os\nopen('/tmp/x', 'a').write('y') if os.path.isdir('/tmp') else 0\n"
    code += (
        "print(random.random(), hash('a'), list({'b', 'c', 'd'}), globals().get('seen'))\nseen = 1"
    )
    first, second = run_python(code), run_python(code)
    assert first.stdout == second.stdout and "None" in first.stdout
    left = "import os\nos.path.isdir('/tmp') and os.listdir('/tmp') or []"
    assert run_python(left).stdout == "[]\n"


def test_limits_end_a_run_and_say_which():
    quick = Limits(cpu_seconds=1, wall_seconds=0.4, output_bytes=1000)
    done = run_python("print('begun')\nimport time\ntime.sleep(60)", limits=quick)
    assert (done.killed, done.stdout) == ("time", "begun\n") and done.seconds < 1.4
    assert done.error == "TimeoutError: stopped after 0.4 s"
    done = run_python("while True: print('x' * 99)", limits=quick)
    assert (done.killed, len(done.stdout), done.truncated) == ("output", 1000, True)
    slow = Limits(cpu_seconds=1, wall_seconds=30.0)
    done = run_python("while True: pass", limits=slow)
    assert (done.killed, done.error) == ("cpu", "TimeoutError: stopped after 1 s of computing")
    assert run_python("2 + 2").stdout == "4\n"


def test_output_is_decoded_whatever_it_is():
    assert run_python("import os\nos.write(1, b'\\xff\\x00ok')").stdout == "\ufffd\x00ok4\n"
    assert run_python("print('\\ud800 é')").stdout == "\\ud800 é\n"


@pytest.mark.parametrize(
    "line",
    [
        "sys.stdout.close()",
        "sys.stdout = None",
        "del sys.stdout, sys.stderr",
        "sys.stdout = sys.stderr = open(1, 'w', closefd=False); print('led', end='')",
        "sys.stdout = type('', (), {'flush': lambda self: 1 / 0, 'write': len})()",
    ],
)
def test_a_program_may_do_what_it_likes_with_its_output(line):
    code = f"import sys\nprint('begun', end=' ')\n{line}\ndef f(x): return x + 1\n"
    done = run_python(code)
    assert (done.error, done.exit) == (None, 0)
    assert done.stdout == ("begun led" if "led" in line else "begun ")
    assert run_cases(code, [Call(source="f(1)"), Call(source="f(2)")]) == [2, 3]


# Looks for what another program has left in the heap: memory is read by writing it to a pipe, since
# that fails, and does not crash, where there is none
SCAN = """
import ctypes, os, re
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
page, ends, found = libc.sbrk(0) & ~4095, os.pipe(), 0
while libc.write(ends[1], ctypes.c_void_p(page - 4096), 4096) == 4096:
    page -= 4096
    found += len(re.findall(rb"left[0-9a-f]{32}over", os.read(ends[0], 4096)))
found, page < libc.sbrk(0) - (1 << 20)
"""


def test_a_run_finds_nothing_of_an_earlier_one_in_its_memory():
    words = " ".join(f"left{os.urandom(16).hex()}over" for _ in range(400))
    stdin = "\n".join(f"left{os.urandom(16).hex()}over" for _ in range(400))
    assert run_python(f"len({words!r})", stdin=stdin).stdout == "16399\n"
    call = Call(function="len", args=(words.replace(" ", "."),))
    assert run_cases("def len(x): return 1", [call]) == [1]
    assert run_python(SCAN).stdout == "(0, True)\n"
    own = "x = ('left' + 'a' * 32 + 'over') * int('400')\n"
    assert run_python(own + SCAN).stdout[:2] == "(3"  # what is there it finds, but at pages' ends


def test_flags_set_on_a_runs_input_end_with_it():
    flags = "import fcntl, os\nfcntl.fcntl(0, fcntl.F_GETFL) & (os.O_APPEND | os.O_NONBLOCK)"
    set_them = "import fcntl, os\nfcntl.fcntl(0, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)"
    assert run_python(set_them).error is None
    assert run_python(flags).stdout == "0\n"
    assert run_python("import os\nos.read(0, 9)").stdout == "b''\n"


def test_code_larger_than_a_pipe_is_handed_in_whole():
    code = f"import sys\nx = {'é' * 300_000!r}\nlen(x), len(sys.stdin.read())"
    assert run_python(code, stdin="\n" * 1_000_000).stdout == "(300000, 1000000)\n"


def test_the_standard_library_is_there_and_nothing_else_is():
    done = run_python("import sqlite3, decimal, zlib, json, unicodedata\ndecimal.Decimal(1) / 3")
    assert done.error is None and done.stdout.startswith("Decimal('0.333")
    assert "ModuleNotFoundError" in run_python("import numpy").error
    assert "ModuleNotFoundError" in run_python("import llmctl.core.files").error


def test_calls_get_plain_values_and_nothing_else():
    code = "class Same:\n def __eq__(self, o): return True\n"
    code += "def f(x): return [x, (1, 2.5), {'a': {3}}, None, b'b', 10 ** 400]\n"
    calls = [Call(source="f(True)"), Call(source="Same()"), Call(function="f", args=("é",))]
    calls += [Call(source="1 / 0"), Call(source="g()"), Call(source="f")]
    found = run_cases(code, calls)
    assert found[0] == [True, (1, 2.5), {"a": {3}}, None, b"b", 10**400]
    assert found[1] == Failure("NotPlain: a value of type Same cannot be compared")
    assert found[2][0] == "é"
    assert [f.error.split(":")[0] for f in found[3:]] == [
        "ZeroDivisionError",
        "NameError",
        "NotPlain",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise KeyboardInterrupt",
        'import os\nos.write(3, b\'{"error": null}\\n{"nonce": "x", "value": true}\\n\')\n'
        "os._exit(0)",
        "import os\nos.write(3, b'{\"error\": null}\\n' * 9)\nos._exit(0)",
        "import os\nos.write(3, b'[' * 100000 + b'\\n')\nos._exit(0)",
        "import os\nos.close(3)",
        "import os\nos.close(4)",
        "import json\njson.loads = json.dumps = lambda *a, **k: '{}'",
        "import sys\nsys.modules['llmctl.sandbox.cell']._answer = lambda *a: {'value': True}\n"
        "import os\nos._exit(0)",
    ],
)
def test_answers_cannot_be_given_before_they_are_asked_for(code):
    assert not [v for v in run_cases(code, [Call(source="f()")]) if v is True]


def test_arguments_larger_than_a_pipe_do_not_block():
    big = "x" * 3_000_000
    found = run_cases("def f(x): return len(x)", [Call(function="f", args=(big,))])
    assert found == [3_000_000]
    quick = Limits(wall_seconds=0.5)
    found = run_cases("import time\ntime.sleep(9)", [Call(function="f", args=(big,))], limits=quick)
    assert isinstance(found[0], Failure)


def test_values_are_compared_by_type_and_value():
    assert same([1, {"a": (2.0, None)}], [1, {"a": (2.0, None)}])
    for a, b in ((True, 1), (1, 1.0), ([1], (1,)), ({1: 2}, {True: 2}), ({1}, {1.0})):
        assert not same(a, b)
    for a, b in (("1", 1), ({1, 2}, frozenset({1, 2})), (float("nan"), float("nan"))):
        assert not same(a, b)
    assert same([1, {2: 3.0}], [1.0, {2.0: 3}], exact=False) and not same(True, 1, exact=False)


def test_values_come_back_as_they_went():
    from hypothesis import given, settings
    from hypothesis import strategies as st

    plain = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
    plain |= st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
    keys = st.recursive(plain, lambda x: st.tuples(x, x) | st.frozensets(x), max_leaves=4)
    whole = st.recursive(
        keys, lambda x: st.lists(x) | st.dictionaries(keys, x) | st.tuples(x, x), max_leaves=4
    )

    @settings(max_examples=25, deadline=None)
    @given(whole)
    def there_and_back(value):
        import json

        assert same(decode(json.loads(json.dumps(encode(value)))), value)

    there_and_back()
    with pytest.raises(NotPlain):
        encode(object())
    for wrong in ({}, {"int": []}, {"what": 1}, [1], {"set": [{"list": []}]}, {"dict": [[1]]}):
        with pytest.raises(ValueError):
            decode(wrong)


def test_a_reply_may_not_be_deep_large_or_slow_to_look_at():
    collide = [{"int": hex(i * (2**61 - 1))} for i in range(8_000)]  # all of the same hash
    deep = None
    for _ in range(100):
        deep = {"list": [deep]}
    long = {"tuple": [{"tuple": [None] * 1000}] * 3}  # few members, but each is looked at whole
    for raw in (
        {"set": collide},
        {"frozenset": collide},
        {"dict": [[key, None] for key in collide]},
        {"list": [{"set": collide[i : i + 500]} for i in range(0, 8_000, 500)]},
        {"set": long["tuple"]},
        {"list": [None] * 100_001},
        {"int": "0x1" + "0" * 4_000},
        deep,
    ):
        with pytest.raises(ValueError):
            decode(raw)
    assert len(decode({"set": collide[:1_000]})) == 1_000 and decode(long)
    for value in (set(range(8_000)), dict.fromkeys(range(8_000)), 10**5_000):
        with pytest.raises(NotPlain):
            encode(value)


def test_runs_from_several_threads_do_not_meet():
    found = {}

    def work(i):
        found[i] = [run_python(f"{i} * 1000 + {k}").stdout for k in range(4)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: [f"{i * 1000 + k}\n" for k in range(4)] for i in range(4)}


def test_running_code_can_be_stopped():
    threading.Timer(0.3, sandbox.stop_running).start()
    started = time.monotonic()
    done = run_python("import time\ntime.sleep(60)", limits=Limits(wall_seconds=50))
    assert (done.killed, done.error) == ("stopped", "stopped")
    assert time.monotonic() - started < 10
    assert run_python("1 + 1").stdout == "2\n"


def test_whoever_stops_ends_only_what_is_his():
    mine, others, found = object(), object(), {}

    def work(owner):
        found[owner] = run_python("import time\ntime.sleep(1)\n7", owner=owner)

    threads = [threading.Thread(target=work, args=(owner,)) for owner in (mine, others)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    sandbox.stop_running(mine)
    for thread in threads:
        thread.join()
    assert found[mine].killed == "stopped"
    assert (found[others].killed, found[others].stdout) == (None, "7\n")


def test_a_keeper_stopped_at_the_very_end_is_not_used_again():
    pool = sandbox._mine()
    with pool.keeper() as keeper:
        keeper.stop()  # after the run, before it is given back
    assert keeper.process.poll() is not None and keeper not in pool.idle
    with pool.keeper() as another:
        assert another is not keeper
    assert run_python("1 + 1").stdout == "2\n"


def test_a_killed_program_takes_its_sandbox_with_it(tmp_path):
    code = "from llmctl import sandbox; print(sandbox.mode(), flush=True); "
    code += (
        "sandbox.run_python('import time; time.sleep(60)', limits=sandbox.Limits(wall_seconds=60))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    assert process.stdout.readline()
    time.sleep(0.3)
    below = _below(process.pid)
    assert below
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in below if _alive(pid)]


def _below(pid):
    from battery import descendants

    return descendants(pid)


def _alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]
    except OSError:
        return False
