"""safetensors files: a checked reader and a streaming writer.

The format: 8 bytes little-endian header length, a JSON header (name -> dtype, shape, data_offsets),
then the tensors' bytes without gap. A file from anywhere is checked against its own size before a
tensor is made of it; nothing in it is ever run.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmctl.core.errors import Mismatch
from llmctl.core.files import atomic_write

MAX_HEADER = 100_000_000  # bytes, the limit of the safetensors library
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
Entry = tuple[torch.dtype, tuple[int, ...], int, int]  # dtype, shape, first and last + 1 byte


def read_header(path: Path) -> dict[str, Entry]:
    """Name -> (dtype, shape, byte range from the file's start) of every tensor.

    Raises Mismatch when the header is no JSON, is larger than the file or than 100 MB, names an
    unknown dtype, or when its tensors overlap, leave holes, or do not end where the file ends.
    """
    size = path.stat().st_size
    with open(path, "rb") as handle:
        start = handle.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise _damaged(path, f"its header claims {length:,} bytes, the file has {size:,}")
        raw = handle.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
    end = 8 + length
    for name, (_, _, first, last) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if first != end:
            raise _damaged(path, f"tensor {name[:80]!r} begins at byte {first:,}, not {end:,}")
        end = last
    if end != size:
        raise _damaged(path, f"its tensors end at byte {end:,}, the file at {size:,}")
    return entries


def _damaged(path: Path, what: str) -> Mismatch:
    return Mismatch(f"{path}: not a sound safetensors file: {what}; copy the file again")


def _entry(path: Path, name: str, value: Any, base: int) -> Entry:
    try:
        dtype, shape, (first, last) = DTYPES[value["dtype"]], value["shape"], value["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, first, last))
    except (KeyError, TypeError, ValueError):
        raise _damaged(path, f"tensor {name[:80]!r} has an unreadable entry") from None
    if not whole or len(shape) > 8 or math.prod(shape) * dtype.itemsize != last - first:
        raise _damaged(path, f"tensor {name[:80]!r} has a byte range that is not its shape's")
    return dtype, tuple(shape), base + first, base + last


def read_tensors(path: Path, take: Callable[[str, Tensor], None]) -> None:
    """Call take(name, tensor) for every tensor, in file order, each in memory of its own."""
    entries = read_header(path)
    with open(path, "rb") as handle:
        for name, (dtype, shape, first, last) in sorted(
            entries.items(), key=lambda item: item[1][2]
        ):
            buffer = bytearray(last - first)
            handle.seek(first)
            if handle.readinto(buffer) != last - first:
                raise _damaged(path, f"it ended while tensor {name[:80]!r} was read")
            flat = torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
            take(name, flat.reshape(shape))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> int:
    """Write one file, atomically, mode 0644, tensor by tensor; returns the tensors' bytes.

    The bytes depend on names and values alone: names sorted, wider dtypes first (so that every
    tensor is aligned to its own size).
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        first, end = end, end + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [first, end],
        }
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    with atomic_write(path) as handle:
        os.fchmod(handle.fileno(), 0o644)
        handle.write(struct.pack("<Q", len(raw)) + raw)
        for name in names:
            flat = tensors[name].detach().cpu().contiguous().flatten()
            handle.write(flat.view(torch.uint8).numpy().data)
    return end
