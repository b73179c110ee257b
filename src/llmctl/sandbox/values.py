"""Plain values on their way out of the sandbox: to JSON, back, and compared by type and value.

Pure; used on both sides of the wall. What comes back is data that an adversary may have written:
it can be wrong, it cannot be an object of his, nor so made that looking at it takes long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

DEPTH = 64
MOST = 100_000  # parts of one value
KEYS = 2_000  # parts that are hashed: n keys chosen to collide take n * n comparisons
INT_DIGITS = 3_500  # hexadecimal; Python prints up to 4,300 decimal ones


class NotPlain(ValueError):
    """A value that is no plain data."""


class _Budget:
    """How much of a value may still come, on either side of the wall."""

    def __init__(self) -> None:
        self.parts, self.keys = MOST, KEYS

    def take(self, depth: int) -> None:
        self.parts -= 1
        if depth == 0 or self.parts < 0:
            raise NotPlain("a value too deep or too large to be compared")

    def hashed(self, since: int) -> None:
        """The parts taken since there were so many left are going to be hashed."""
        self.keys -= since - self.parts
        if self.keys < 0:
            raise NotPlain("a set or dict too large to be compared")


def encode(value: Any) -> Any:
    """A plain value as JSON: numbers, text, bytes, None, and list, tuple, set, dict of such.
    NotPlain for anything else."""
    return _encode(value, DEPTH, _Budget())


def _encode(value: Any, depth: int, left: _Budget) -> Any:
    left.take(depth)
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return {"int": _short(hex(value))}
    if kind is float:
        return {"float": float.hex(value)}
    if kind is complex:
        return {"complex": [float.hex(value.real), float.hex(value.imag)]}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return {"bytes" if isinstance(value, bytes) else "bytearray": bytes(value).hex()}
    if isinstance(value, dict):
        keys = _members(list(dict.keys(value)), depth, left, _encode, hashed=True)
        rest = _members(list(dict.values(value)), depth, left, _encode)
        return {"dict": [[k, v] for k, v in zip(keys, rest)]}
    bases: tuple[Any, ...] = list, tuple, set, frozenset
    for base in bases:
        if isinstance(value, base):
            hashed = base in (set, frozenset)
            members = list(base.__iter__(value))
            return {base.__name__: _members(members, depth, left, _encode, hashed=hashed)}
    raise NotPlain(f"a value of type {kind.__name__} cannot be compared")


def _members(
    raw: Any, depth: int, left: _Budget, one: Callable[..., Any], *, hashed: bool = False
) -> list[Any]:
    """The parts of a value, each encoded or decoded; hashed: they belong to a set, or are keys."""
    before = left.parts
    found = [one(x, depth - 1, left) for x in raw]
    if hashed:
        left.hashed(before)
    return found


def _short(digits: str) -> str:
    if len(digits) > INT_DIGITS:
        raise NotPlain("a number too large to be compared")
    return digits


def decode(found: Any) -> Any:
    """The value of what `encode` gave. ValueError for anything else, whoever wrote it: the limits
    of `encode` hold here too, before anything is built."""
    return _decode(found, DEPTH, _Budget())


def _decode(found: Any, depth: int, left: _Budget) -> Any:
    left.take(depth)
    if found is None or isinstance(found, bool | str):
        return found
    if not isinstance(found, dict) or len(found) != 1:
        raise ValueError("not an encoded value")
    [(name, raw)] = found.items()
    try:
        if name == "int":
            return int(_short(raw), 16)
        if name == "float":
            return float.fromhex(raw)
        if name == "complex":
            return complex(float.fromhex(raw[0]), float.fromhex(raw[1]))
        if name in ("bytes", "bytearray"):
            return bytes.fromhex(raw) if name == "bytes" else bytearray.fromhex(raw)
        if name == "dict":
            keys = _members([key for key, _ in raw], depth, left, _decode, hashed=True)
            return dict(zip(keys, _members([v for _, v in raw], depth, left, _decode)))
        base: Any = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[name]
        hashed = base in (set, frozenset)
        return base(_members(raw, depth, left, _decode, hashed=hashed))
    except (TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"not an encoded value: {error}") from None


def set_of(members: Iterable[Any] = ()) -> set[Any]:
    """set(members) of plain values. ValueError where that might take long."""
    left = _Budget()
    found = list(members)
    _members(found, DEPTH, left, _encode, hashed=True)
    return set(found)


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
