"""Programs graded by tests that they cannot see, change or talk out of their verdict.

An assertion is taken apart here: `assert f(2) == 3` becomes the call f(2), which goes into the
sandbox, and the value 3, which does not. What comes back is plain data, compared here by type and
value: True is not 1, an object that equals everything is no plain data, and leaving early with exit
code 0 answers nothing. set(), sorted(), round() … around the call are applied here too.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl import sandbox
from llmctl.sandbox import Call, Failure, Limits
from llmctl.sandbox.values import same

LIMITS = Limits(cpu_seconds=5, wall_seconds=10.0, output_bytes=64 << 10)
Judge = Callable[[Any], bool]
WRAPPERS: dict[str, Callable[..., Any]] = {
    "set": set,
    "frozenset": frozenset,
    "sorted": sorted,
    "list": list,
    "tuple": tuple,
    "len": len,
    "round": round,
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "sum": sum,
}
_ORDERS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Case:
    """function(*args) ought to be `expected`; all of them plain values."""

    function: str
    args: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True)
class Grade:
    """n_passed of `total` gradable tests. ungradable: tests whose form does not say what value is
    expected; failures: why the others did not pass, one line each."""

    n_passed: int
    total: int
    ungradable: tuple[str, ...] = ()
    failures: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """All gradable tests passed, and there is one."""
        return self.n_passed == self.total > 0

    @property
    def share(self) -> float | None:
        """Share of the gradable tests that passed; None when there is none: no verdict."""
        return self.n_passed / self.total if self.total else None


class _Ungradable(ValueError):
    """An assertion of another form."""


def grade_tests(
    code: str,
    tests: Sequence[str | Case],
    setup: str = "",
    *,
    exact: bool = True,
    limits: Limits = LIMITS,
) -> Grade:
    """Run a program and judge it by tests: assertions as MBPP has them, or cases.

    setup: code that the tests need; it runs after the program, whose names it may use. exact: 1 is
    not 1.0 (10 of MBPP's 456 own solutions fail by it); False: as Python's == has it, True still
    not 1. Refused (77) where there is no isolation. A program that
    crashes, hangs or floods fails its tests; nothing it does is an error here.
    """
    calls: list[Call] = []
    judges: list[Judge] = []
    ungradable = []
    for test in tests:
        try:
            call, judge = (
                _of_case(test, exact) if isinstance(test, Case) else taken_apart(test, exact)
            )
        except _Ungradable:
            ungradable.append(str(test))
            continue
        calls.append(call)
        judges.append(judge)
    values = sandbox.run_cases(f"{code}\n{setup}", calls, limits=limits) if calls else []
    passed, failures = 0, []
    for call, judge, value in zip(calls, judges, values):
        name = call.source or call.function
        if isinstance(value, Failure):
            failures.append(f"{name}: {value.error}")
        elif _holds(judge, value):
            passed += 1
        else:
            failures.append(f"{name}: wrong value {value!r:.100}")
    return Grade(passed, len(calls), tuple(ungradable), tuple(failures))


def _of_case(case: Case, exact: bool) -> tuple[Call, Judge]:
    return Call(function=case.function, args=tuple(case.args)), _equals(case.expected, exact)


def _holds(judge: Judge, value: Any) -> bool:
    """A judge's verdict on plain data; data it has no verdict on is wrong."""
    try:
        return judge(value)
    except (TypeError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return False


def _equals(expected: Any, exact: bool) -> Judge:
    return lambda value: same(value, expected, exact=exact)


def taken_apart(test: str, exact: bool = True) -> tuple[Call, Judge]:
    """The call in an assertion, and what its value ought to be.

    Understood: CALL == VALUE (either way round), CALL != VALUE, orders, `is`, a bare CALL or `not
    CALL`, math.isclose(CALL, VALUE, …), abs(CALL - VALUE) < VALUE; the CALL in any of WRAPPERS.
    ValueError for other forms.
    """
    try:
        body = ast.parse(test.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _Ungradable(test) from None
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise _Ungradable(test)
    asserted = body[0].test
    if isinstance(asserted, ast.Compare):
        return _of_comparison(asserted, exact)
    if isinstance(asserted, ast.UnaryOp) and isinstance(asserted.op, ast.Not):
        return _judged(asserted.operand, lambda value: not value)
    if isinstance(asserted, ast.Call) and ast.unparse(asserted.func) in ("math.isclose", "isclose"):
        return _of_isclose(asserted)
    return _judged(asserted, bool)


def _of_comparison(node: ast.Compare, exact: bool) -> tuple[Call, Judge]:
    if len(node.ops) != 1:
        raise _Ungradable
    [kind], left, right = node.ops, node.left, node.comparators[0]
    if _is_value(left) and isinstance(kind, ast.Eq):
        left, right = right, left
    expected = _value(right)
    if isinstance(kind, ast.Eq):
        return _judged(left, _equals(expected, exact))
    if isinstance(kind, ast.NotEq):
        return _judged(left, lambda value: not same(value, expected, exact=exact))
    if isinstance(kind, ast.Is) and (expected is None or isinstance(expected, bool)):
        return _judged(left, lambda value: value is expected)
    if type(kind) in _ORDERS:
        order = _ORDERS[type(kind)]
        if near := _distance(left):
            call, goal = near
            return _judged(call, lambda value: bool(order(abs(value - goal), expected)))
        return _judged(left, lambda value: bool(order(value, expected)))
    raise _Ungradable


def _distance(node: ast.expr) -> tuple[ast.expr, Any] | None:
    """(CALL, VALUE) of abs(CALL - VALUE), either way round."""
    if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "abs" and len(node.args) == 1):
        return None
    inside = node.args[0]
    if not (isinstance(inside, ast.BinOp) and isinstance(inside.op, ast.Sub)):
        return None
    left, right = inside.left, inside.right
    return (right, _value(left)) if _is_value(left) else (left, _value(right))


def _of_isclose(node: ast.Call) -> tuple[Call, Judge]:
    if len(node.args) != 2 or any(k.arg not in ("rel_tol", "abs_tol") for k in node.keywords):
        raise _Ungradable
    left, right = node.args
    if _is_value(left):
        left, right = right, left
    goal = _value(right)
    given = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    return _judged(
        left, lambda value: not isinstance(value, bool) and math.isclose(value, goal, **given)
    )


def _judged(node: ast.expr, judge: Judge) -> tuple[Call, Judge]:
    """A call with its wrappers taken off: they are applied to the value that comes back."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in WRAPPERS
        and node.args
        and any(isinstance(part, ast.Call) for part in ast.walk(node.args[0]))
    ):
        wrapper, rest = WRAPPERS[node.func.id], [_value(x) for x in node.args[1:]]
        named = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
        return _judged(node.args[0], lambda value: judge(wrapper(value, *rest, **named)))
    if not any(isinstance(part, ast.Call) for part in ast.walk(node)):
        raise _Ungradable  # nothing of the program's is asked
    return Call(source=ast.unparse(node)), judge


def _is_value(node: ast.expr) -> bool:
    try:
        _value(node)
    except _Ungradable:
        return False
    return True


def _value(node: ast.expr) -> Any:
    """The plain value an expression spells: a literal, perhaps inside set(), float() and such."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in WRAPPERS or node.func.id == "dict":
            base = WRAPPERS.get(node.func.id, dict)
            try:
                return base(*[_value(argument) for argument in node.args])
            except (TypeError, ValueError, ArithmeticError):
                raise _Ungradable from None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _Ungradable from None
