"""Programs graded: right ones pass, cheats do not, whatever they do to their own process."""

import json
import time

import pytest

from llmctl.reward.python_tests import grade_tests, taken_apart
from llmctl.sandbox import Limits

pytestmark = pytest.mark.usefixtures("walls")
RIGHT = "def square(x):\n    return x * x\n"
TESTS = ["assert square(3) == 9", "assert square(-12) == 144", "assert square(0) == 0"]


def passed(grade):
    """All gradable tests passed, and there is one."""
    return grade.n_passed == grade.total > 0


def test_a_right_program_passes_and_a_wrong_one_says_where():
    grade = grade_tests(RIGHT, TESTS)
    assert (passed(grade), grade.n_passed, grade.total, grade.failures) == (True, 3, 3, ())
    grade = grade_tests("def square(x): return 9", TESTS)
    assert (passed(grade), grade.n_passed, grade.share) == (False, 1, 1 / 3)
    assert grade.failures[0] == "square(-12): wrong value 9"
    assert grade_tests("def square(x)", TESTS).failures[0].endswith("expected ':'")
    assert (
        grade_tests("", TESTS).failures[0] == "square(3): NameError: name 'square' is not defined"
    )


def test_setup_runs_before_the_tests():
    code = "class Node:\n    def __init__(self, v): self.v = v\ndef value(n): return n.v"
    assert passed(grade_tests(code, ["assert value(root) == 5"], "root = Node(5)"))


@pytest.mark.parametrize(
    ("test", "call", "right", "wrong"),
    [
        ("assert f(1) == [1, 'a']", "f(1)", [1, "a"], [1.0, "a"]),
        ("assert (1, 2) == f()", "f()", (1, 2), [1, 2]),
        ("assert set(f(1)) == set([2, 3])", "f(1)", [3, 2, 2], [2]),
        ("assert sorted(f(1), reverse=True) == [3, 1]", "f(1)", (1, 3), (1, 2)),
        ("assert round(f(), 2) == 1.23", "f()", 1.2345, 1.3),
        ("assert math.isclose(f(2), 0.5, rel_tol=0.01)", "f(2)", 0.501, 0.6),
        ("assert abs(f() - 2.5) < 1e-3", "f()", 2.5001, 2.6),
        ("assert abs(2.5 - f()) <= 0.1", "f()", 2.45, None),
        ("assert f('x')", "f('x')", [0], []),
        ("assert not f('x')", "f('x')", 0, 1),
        ("assert f() is None", "f()", None, False),
        ("assert f() is True", "f()", True, 1),
        ("assert f() != 3", "f()", 4, 3),
        ("assert f(2) > 1.5", "f(2)", 2, 1),
        ("assert A().b(1)[0] == -1", "A().b(1)", [-1], [1]),
        ("assert f()[:2] == [1, 2]", "f()", [1, 2, 3], [1, 3]),
        ("assert f() == float('inf')", "f()", float("inf"), 1e308),
        ("assert f() == {1: {2, 3}}", "f()", {1: {2, 3}}, {True: {2, 3}}),
    ],
)
def test_assertions_are_taken_apart(test, call, right, wrong):
    [(found, judge)] = taken_apart(test)
    assert found.source == call
    assert judge(right) is True
    try:
        assert judge(wrong) is False
    except TypeError:
        assert wrong is None


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1) == f(1)",
        "assert 1 == 1",
        "assert True",
        "assert f(1) == g",
        "print(f(1))",
        "assert f(1) == 1; assert f(2) == 2",
        "assert abs(f(1) - x) < 3",
        "assert 1 < f(1) < 3",
        "no python at all",
        "assert (" * 500,
        "assert eval('square(3) == 8')",
        "assert same(square(3), 8)",
        "assert near.same(square(3), 8)",
    ],
)
def test_other_assertions_are_counted_not_guessed(test):
    setup = "def same(a, b): return a == b\nimport operator as near"
    grade = grade_tests(RIGHT, [test], setup)
    assert (grade.total, grade.share, passed(grade), grade.ungradable) == (0, None, False, (test,))


def test_each_part_of_an_and_is_a_case():
    grade = grade_tests(RIGHT, ["assert square(3) == 9 and square(2) == 5 and square(1)"])
    assert (grade.n_passed, grade.total) == (2, 3)
    assert grade.failures == ("square(2): wrong value 4",)
    assert taken_apart("assert f(1) == 1 and f(2) == 2 and f(3)")[1][0].source == "f(2)"


@pytest.mark.parametrize(
    "test",
    [
        "assert square(2) == 5 and square(3) == 8",
        "assert square(2) == 5 or square(3) == 8",
        "assert all(square(x) == y for x, y in ((2, 5), (3, 8)))",
        "assert (square(2) == 5) == True",
        "assert bool(square(2) == 5)",
        "assert not square(2) != 5",
        "assert int(square(2) == 5) == 1",
        "assert [5, 8].__contains__(square(2))",
        "assert [square(2)] == [5]",
        "assert len([x for x in [5] if x == square(2)]) == 1",
        "assert square(2).__eq__(5)",
        "assert square(2).startswith('5')",
        "assert operator.eq(square(2), 5)",
        "assert {True: 1}[square(2) == 5] == 1",
        "assert (lambda v: v == 5)(square(2))",
        "assert math.isclose(square(2), 5) == True",
        "assert square(2) == 5 if square(2) == 5 else square(2) == 5",
    ],
)
def test_what_is_expected_is_never_compared_by_the_program(test):
    code = "import math, operator\nmath.isclose = lambda *a: True\n"
    code += "class E:\n def __eq__(s, o): return True\n def __ne__(s, o): return False\n"
    code += " def __hash__(s): return 5\n def startswith(s, o): return True\n"
    grade = grade_tests(code + "def square(x): return E()", [test])
    assert grade.n_passed == 0 and not passed(grade)


def test_what_is_expected_never_enters_the_sandbox():
    code = "import gc, sys, os, inspect\ndef f(x):\n    found = []\n"
    code += "    for o in gc.get_objects():\n        if isinstance(o, (str, list, tuple, dict)):\n"
    code += "            found.append(repr(o)[:3000])\n"
    code += "    found.append(repr([fr.frame.f_locals for fr in inspect.stack()])[:5000])\n"
    code += "    return '\\n'.join(found).count(x[::-1])\n"
    # the canary stands in the expectation alone; the call carries it backwards
    from llmctl.sandbox import run_cases

    [(call, _)] = taken_apart("assert f('0913-yranac') == [8274, 'canary-3190']")
    assert run_cases(code, [call]) == [0]


CHEATS = {
    "sys.exit(0)": "import sys; sys.exit(0)",
    "os._exit(0)": "import os; os._exit(0)",
    "exit in the call": "def square(x):\n import os; os._exit(0)",
    "SystemExit in the call": "def square(x): raise SystemExit(0)",
    "quit": "quit()",
    "equal to everything": "class E:\n def __eq__(s, o): return True\n __hash__ = None\n"
    "def square(x): return E()",
    "an int equal to everything": "class E(int):\n def __eq__(s, o): return True\n"
    " def __ne__(s, o): return False\n __hash__ = int.__hash__\ndef square(x): return E(7)",
    "a str equal to everything": "class E(str):\n def __eq__(s, o): return True\n"
    " __hash__ = str.__hash__\ndef square(x): return E('9')",
    "a list equal to everything": "class E(list):\n def __eq__(s, o): return True\n"
    "def square(x): return E()",
    "a type called int": "class int(object):\n def __eq__(s, o): return True\n"
    "int.__name__ = 'int'\ndef square(x): return int()",
    "printing a verdict": "print('PASSED 3 of 3 OK'); print('{\"passed\": true}')",
    "writing replies": "import os\nfor _ in range(9): os.write(3, b'{\"error\": null}\\n')",
    "writing answers": "import os, json\nfor v in (9, 144, 0):\n"
    " os.write(3, json.dumps({'value': {'int': hex(v)}}).encode() + b'\\n')\nos._exit(0)",
    "echoing the word with nothing": "import os, json\ndef square(x):\n"
    ' os.write(3, b\'{"value": {"int": "0x9"}}\\n\'); os._exit(0)',
    "json turned": "import json\njson.dumps = lambda *a, **k: '{}'\ndef square(x): return 1",
    "the encoder turned": "import sys\nm = sys.modules['llmctl.sandbox.values']\n"
    "m.encode = lambda v: True\ndef square(x): return 1",
    "the comparer turned": "import sys\nm = sys.modules['llmctl.sandbox.values']\n"
    "m.same = lambda *a, **k: True\ndef square(x): return 1",
    "the answerer turned": "import sys\nm = sys.modules['llmctl.sandbox.cell']\n"
    "m._answer = lambda *a: {'value': True}\ndef square(x): return 1",
    "builtins turned": "import builtins\nbuiltins.isinstance = lambda *a: True\n"
    "builtins.type = lambda *a: int\ndef square(x): return 1",
    "assert turned off": "import sys\nsys.flags = None\ndef square(x): return 1",
    "AssertionError replaced": "import builtins\nclass A(BaseException): pass\n"
    "builtins.AssertionError = A\ndef square(x): return 1",
    "True for 1": "def square(x): return True",
    "a float for an int": "def square(x): return float(x * x)",
    "text for a number": "def square(x): return str(x * x)",
    "an endless loop": "def square(x):\n while True: pass",
    "sleep": "import time; time.sleep(60)",
    "a flood": "while True: print('x' * 10000)",
    "a crash": "import ctypes; ctypes.string_at(0)",
    "memory": "x = [bytearray(10 ** 8) for _ in range(100)]",
    "nothing": "",
    "a generator": "def square(x):\n yield x * x",
    "a fork that answers": "import os\nif os.fork() == 0: os._exit(0)\ndef square(x): return x * x",
    "deep": "def square(x):\n a = []\n for _ in range(100000): a = [a]\n return a",
    "a number that cannot be printed": "def square(x): return 10 ** 5000",
    "itself": "def square(x):\n a = []; a.append(a); return a",
}


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_is_paid(name):
    wall = 1.0 if name == "sleep" else 120.0
    limits = Limits(cpu_seconds=1, wall_seconds=wall, output_bytes=10_000)
    grade = grade_tests(CHEATS[name], TESTS, limits=limits)
    assert not passed(grade) and grade.n_passed == 0
    assert len(grade.failures) + grade.n_open == 3 and bool(grade.n_open) == (name == "sleep")


def test_the_clock_gives_no_verdict_the_processor_does():
    limits = Limits(cpu_seconds=1, wall_seconds=2.0)
    slow = "import time\ndef square(x):\n    x < 0 and time.sleep(60)\n    return x * x"
    grade = grade_tests(slow, TESTS, limits=limits)
    assert (grade.n_passed, grade.n_open, grade.failures, grade.share) == (1, 2, (), None)
    grade = grade_tests(slow.replace("x * x", "0"), TESTS, limits=limits)
    assert (grade.n_open, len(grade.failures), grade.share) == (2, 1, None)
    limits = Limits(cpu_seconds=1, wall_seconds=120.0)
    grade = grade_tests(
        "def square(x):\n    while x < 0: pass\n    return x * x", TESTS, limits=limits
    )
    assert (grade.n_passed, grade.n_open, grade.share) == (1, 0, 1 / 3)


@pytest.mark.parametrize("kind", ["set", "dict", "list"])
def test_no_reply_keeps_the_grader_busy(kind):
    """Numbers of one hash, 25,000 of them: a set of them takes half a minute to build."""
    code = "import sys\nraw = [{'int': hex(i * (2**61 - 1))} for i in range(25_000)]\n"
    code += "raw = [[x, None] for x in raw]\n" if kind == "dict" else ""
    code += f"sys.modules['llmctl.sandbox.values'].encode = lambda v: {{{kind!r}: raw}}\n"
    started = time.process_time()
    grade = grade_tests(code + "def square(x): return x", ["assert set(square(2)) == {0, 1}"])
    assert not passed(grade) and time.process_time() - started < 5


def test_equal_numbers_of_two_types_only_where_allowed():
    code = "def square(x): return float(x * x)"
    assert grade_tests(code, TESTS).n_passed == 0
    assert passed(grade_tests(code, TESTS, exact=False))
    assert not passed(grade_tests("def f(): return True", ["assert f() == 1"], exact=False))


def test_real_solutions_grade_right(shared):
    lines = (shared / "data/post/code/mbpp_train.jsonl").read_text().split("\n")
    rows = [json.loads(line) for line in lines if line][::12]
    right = 0
    for row in rows:
        grade = grade_tests(row["code"], row["test_list"], row["test_setup_code"], exact=False)
        right += passed(grade) or not grade.total
    assert right == len(rows)
