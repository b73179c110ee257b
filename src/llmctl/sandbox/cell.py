"""What runs behind the walls: a piece of code, then calls into it, one at a time.

Descriptors: 1 and 2 what is printed, 3 replies (JSON lines), 4 the code, then calls (JSON lines).
Nothing here is trusted by the other side: the code that runs may rewrite all of it, and learns
nothing by it.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import json
import os
import random
import sys
import types
from typing import Any, TextIO

from llmctl.sandbox import values

NAME = "<cell>"  # the file that its errors speak of
ERROR_CHARS = 300
# loaded before the walls close, since many programs use them and a load costs milliseconds
PRELOADED = (
    "bisect cmath collections collections.abc copy dataclasses datetime decimal enum fractions "
    "functools heapq itertools math numbers operator queue re statistics string struct sys "
    "textwrap time traceback types typing unicodedata array calendar contextlib hashlib abc pprint "
    "json random os io ast _strptime encodings.idna encodings.ascii encodings.latin_1"
).split()


def run() -> None:
    """Run the code that is handed in and answer its calls; returns when there is no further one."""
    request = _handed_in()
    sys.stdin = io.StringIO(request["stdin"])
    out = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = out  # type: ignore[misc]
    sys.argv = [""]
    random.seed(0)  # two runs of the same code are alike
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    space = module.__dict__
    space["__builtins__"] = builtins
    _reply({"error": _run(request["code"], space, show=request["show"])}, out)
    with open(4, encoding="utf-8", closefd=False) as calls:
        for line in calls:
            call = json.loads(line)
            _reply({"nonce": call["nonce"], **_answer(call, space)}, out)


def _handed_in() -> dict[str, Any]:
    """The first line of what comes in; calls follow when the code has been run, not before."""
    raw = bytearray()
    while not raw.endswith(b"\n"):
        if not (found := os.read(4, 1 << 16)):
            raise EOFError
        raw += found
    return dict(json.loads(raw))


def _reply(found: dict[str, Any], out: TextIO) -> None:
    """Send a reply, after what has been printed: to `out`, or where the code has led it since. Code
    may close these, or put None there; its answer counts all the same."""
    with contextlib.suppress(BaseException):
        out.flush()
    for name in ("stdout", "stderr"):
        with contextlib.suppress(BaseException):
            getattr(sys, name).flush()
    raw = json.dumps(found).encode() + b"\n"
    while raw:
        raw = raw[os.write(3, raw) :]


def _run(code: str, space: dict[str, Any], *, show: bool) -> str | None:
    """Execute a cell; show: print the value of a last expression. Its error in one line."""
    try:
        tree = ast.parse(code, NAME)
        last = (
            tree.body.pop() if show and tree.body and isinstance(tree.body[-1], ast.Expr) else None
        )
        _execute(compile(tree, NAME, "exec"), space)
        if isinstance(last, ast.Expr):
            value = _execute(compile(ast.Expression(last.value), NAME, "eval"), space)
            if value is not None:
                print(repr(value))
    except SystemExit as end:
        return None if end.code in (None, 0) else describe(end, False)
    except BaseException as error:
        return describe(error, "\n" in code.strip())
    return None


def _execute(code: types.CodeType, space: dict[str, Any]) -> Any:
    """Run compiled code in a namespace; the value of an expression."""
    return types.FunctionType(code, space)()


def _answer(call: dict[str, Any], space: dict[str, Any]) -> dict[str, Any]:
    """The value of one call, encoded, or its error."""
    try:
        if "source" in call:
            value = _execute(compile(call["source"], NAME, "eval"), space)
        else:
            function = space[call["function"]]
            value = function(*values.decode(call["args"]), **values.decode(call["kwargs"]))
        return {"value": values.encode(value)}
    except BaseException as error:
        return {"error": describe(error, False)}


def describe(error: BaseException, lines: bool) -> str:
    """'NameError: name 'x' is not defined (line 3)'."""
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error).strip().split("\n")[0]
    except BaseException:
        text = "an error that cannot be printed"
    where, trace = None, error.__traceback__
    if isinstance(error, SyntaxError):
        where = error.lineno
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == NAME:
            where = trace.tb_lineno
        trace = trace.tb_next
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text[:ERROR_CHARS] + (f" (line {where})" if lines and where else "")
