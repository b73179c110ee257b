"""Programs graded by tests that they cannot see, change or talk out of their verdict.

An assertion is taken apart here: `assert f(2) == 3` becomes the call f(2), which goes into the
sandbox, and the value 3, which does not. What comes back is plain data, compared here by type and
value: True is not 1, an object that equals everything is no plain data, and leaving early with exit
code 0 answers nothing. set(), sorted(), round() … around the call and [0] behind it are applied
here too. Nothing but a bare call goes in: inside, `f(2) == 3` is whatever the program says it is.
"""

from __future__ import annotations

import ast
import builtins
import math
import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl import sandbox
from llmctl.sandbox import Call, Failure, Limits
from llmctl.sandbox.values import same, set_of

# the verdict is the processor's, not the clock's: a busy machine is 24 times slower before it tells
LIMITS = Limits(cpu_seconds=5, wall_seconds=120.0, output_bytes=64 << 10)
NO_VERDICT = ("time", "stopped")  # ends of a run that say nothing of the program
Judge = Callable[[Any], bool]
WRAPPERS: dict[str, Callable[..., Any]] = {
    "set": set_of,
    "frozenset": lambda *members: frozenset(set_of(*members)),
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
class Grade:
    """n_passed of `total` gradable tests; `assert A and B` is two. ungradable: tests whose form
    does not say what value is expected; failures: why the others did not pass, one line each;
    n_open: tests without a verdict, since the run was ended by the clock or by somebody."""

    n_passed: int
    total: int
    ungradable: tuple[str, ...] = ()
    failures: tuple[str, ...] = field(default=())
    n_open: int = 0

    @property
    def share(self) -> float | None:
        """Share of the gradable tests that passed; None: no verdict on any, or not on all."""
        return self.n_passed / self.total if self.total and not self.n_open else None


class _Ungradable(ValueError):
    """An assertion of another form."""


def grade_tests(
    code: str,
    tests: Sequence[str],
    setup: str = "",
    *,
    exact: bool = True,
    limits: Limits = LIMITS,
) -> Grade:
    """Run a program and judge it by tests: assertions as MBPP has them.

    setup: code that the tests need; it runs after the program, whose names it may use. exact: 1 is
    not 1.0 (10 of MBPP's 456 own solutions fail by it); False: as Python's == has it, True still
    not 1. Refused (77) where there is no isolation. A program that crashes, computes without end
    or floods fails its tests; nothing it does is an error here.
    """
    asked: list[tuple[Call, Judge]] = []
    ungradable, helpers = [], _names_bound(setup)
    for test in tests:
        try:
            asked += taken_apart(test, exact, helpers)
        except _Ungradable:
            ungradable.append(test)
    calls = [call for call, _ in asked]
    values = sandbox.run_cases(f"{code}\n{setup}", calls, limits=limits) if calls else []
    passed, n_open, failures = 0, 0, []
    for (call, judge), value in zip(asked, values):
        name = call.source
        if isinstance(value, Failure) and value.killed in NO_VERDICT:
            n_open += 1
        elif isinstance(value, Failure):
            failures.append(f"{name}: {value.error}")
        elif _holds(judge, value):
            passed += 1
        else:
            failures.append(f"{name}: wrong value {value!r:.100}")
    return Grade(passed, len(calls), tuple(ungradable), tuple(failures), n_open)


def _holds(judge: Judge, value: Any) -> bool:
    """A judge's verdict on plain data; data it has no verdict on is wrong."""
    try:
        return judge(value)
    except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError, MemoryError):
        return False


def _equals(expected: Any, exact: bool) -> Judge:
    return lambda value: same(value, expected, exact=exact)


def _names_bound(code: str) -> set[str]:
    """What a test's setup imports, defines or assigns."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    found |= {(n.asname or n.name).split(".")[0] for n in nodes if isinstance(n, ast.alias)}
    return found | {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def taken_apart(
    test: str, exact: bool = True, helpers: Collection[str] = ()
) -> list[tuple[Call, Judge]]:
    """The calls in an assertion, and what their values ought to be.

    Understood: CALL == VALUE (either way round), CALL != VALUE, orders, `is`, a bare CALL or `not
    CALL`, math.isclose(CALL, VALUE, …), abs(CALL - VALUE) < VALUE; the CALL in any of WRAPPERS or
    with an index; several with `and` between. helpers: functions that are not the program's.
    ValueError for other forms.
    """
    try:
        body = ast.parse(test.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _Ungradable(test) from None
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise _Ungradable(test)
    whole = body[0].test
    if isinstance(whole, ast.BoolOp) and isinstance(whole.op, ast.And):
        parts = whole.values
    else:
        parts = [whole]
    found = [_of_condition(part, exact) for part in parts]
    if any(call.source.partition("(")[0] in helpers for call, _ in found):
        raise _Ungradable(test)
    return found


def _of_condition(node: ast.expr, exact: bool) -> tuple[Call, Judge]:
    if isinstance(node, ast.Compare):
        return _of_comparison(node, exact)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _judged(node.operand, lambda value: not value)
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("math.isclose", "isclose"):
        return _of_isclose(node)
    return _judged(node, bool)


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
    """A bare call, its wrappers and index taken off: they are applied to what comes back."""
    if isinstance(node, ast.Subscript):
        index = _index(node.slice)
        return _judged(node.value, lambda value: judge(value[index]))
    if not isinstance(node, ast.Call):
        raise _Ungradable
    if isinstance(node.func, ast.Name) and node.func.id in WRAPPERS and node.args:
        wrapper, rest = WRAPPERS[node.func.id], [_value(x) for x in node.args[1:]]
        named = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
        return _judged(node.args[0], lambda value: judge(wrapper(value, *rest, **named)))
    if not _is_programs(node.func):
        raise _Ungradable
    return Call(source=ast.unparse(node)), judge


def _is_programs(function: ast.expr) -> bool:
    """Whether it is the program that a test asks by calling this: a function of no built-in name,
    or a method of an object made for it, A().f. Not f().m: what f gives would judge itself."""
    if isinstance(function, ast.Attribute):
        made = function.value
        if not (isinstance(made, ast.Call) and isinstance(made.func, ast.Name)):
            return False
        a_class = made.func.id[0].isupper() and not function.attr.startswith("__")
        return a_class and _is_programs(made.func)
    return isinstance(function, ast.Name) and not hasattr(builtins, function.id)


def _index(node: ast.expr) -> Any:
    """The plain index or slice that an expression spells."""
    if not isinstance(node, ast.Slice):
        return _value(node)
    return slice(*(x and _value(x) for x in (node.lower, node.upper, node.step)))


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
