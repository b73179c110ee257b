"""Plain values on their way out of the sandbox: to JSON, back, and compared by type and value.

Pure; used on both sides of the wall. What comes back is data that an adversary may have written:
it can be wrong, it cannot be an object of his.
"""

from __future__ import annotations

from typing import Any

DEPTH = 64
MOST = 100_000  # parts of one value


class NotPlain(ValueError):
    """A value that is no plain data."""


def encode(value: Any) -> Any:
    """A plain value as JSON: numbers, text, bytes, None, and list, tuple, set, dict of such.
    NotPlain for anything else."""
    return _encode(value, DEPTH, [MOST])


def _encode(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if depth == 0 or left[0] < 0:
        raise NotPlain("a value too deep or too large to be compared")
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return {"int": hex(value)}
    if kind is float:
        return {"float": float.hex(value)}
    if kind is complex:
        return {"complex": [float.hex(value.real), float.hex(value.imag)]}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return {"bytes" if isinstance(value, bytes) else "bytearray": bytes(value).hex()}
    if isinstance(value, dict):
        items = dict.items(value)
        return {"dict": [[_encode(x, depth - 1, left) for x in pair] for pair in items]}
    bases: tuple[Any, ...] = list, tuple, set, frozenset
    for base in bases:
        if isinstance(value, base):
            return {base.__name__: [_encode(x, depth - 1, left) for x in base.__iter__(value)]}
    raise NotPlain(f"a value of type {kind.__name__} cannot be compared")


def decode(found: Any) -> Any:
    """The value of what `encode` gave. ValueError for anything else, whoever wrote it."""
    if found is None or isinstance(found, bool | str):
        return found
    if not isinstance(found, dict) or len(found) != 1:
        raise ValueError("not an encoded value")
    [(name, raw)] = found.items()
    try:
        if name == "int":
            return int(raw, 16)
        if name == "float":
            return float.fromhex(raw)
        if name == "complex":
            return complex(float.fromhex(raw[0]), float.fromhex(raw[1]))
        if name in ("bytes", "bytearray"):
            return bytes.fromhex(raw) if name == "bytes" else bytearray.fromhex(raw)
        if name == "dict":
            return {decode(key): decode(value) for key, value in raw}
        base: Any = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[name]
        return base([decode(x) for x in raw])
    except (TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"not an encoded value: {error}") from None


def same(a: Any, b: Any, *, exact: bool = True) -> bool:
    """Whether two plain values are equal in type and value, all the way down: True is not 1, and
    1 is not 1.0, unless `exact` is false. nan equals nothing, as ever."""
    if _kind(a, exact) is not _kind(b, exact):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y, exact=exact) for x, y in zip(a, b))
    if isinstance(a, dict):
        mine = {_typed(key, exact): value for key, value in a.items()}
        others = {_typed(key, exact): value for key, value in b.items()}
        return mine.keys() == others.keys() and all(
            same(value, others[key], exact=exact) for key, value in mine.items()
        )
    if isinstance(a, set | frozenset):
        return {_typed(x, exact) for x in a} == {_typed(x, exact) for x in b}
    return bool(a == b)


def _kind(value: Any, exact: bool) -> type:
    return float if type(value) is int and not exact else type(value)


def _typed(key: Any, exact: bool) -> Any:
    """A hashable value with the types of all its parts."""
    if isinstance(key, tuple):
        return tuple, tuple(_typed(x, exact) for x in key)
    if isinstance(key, frozenset):
        return frozenset, frozenset(_typed(x, exact) for x in key)
    return _kind(key, exact), key
