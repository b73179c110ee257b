"""Checkpoints that are whole or do not count.

Each lies in a folder of its own, never written over: state/step-00000100/ holds safetensors files,
loop.json, and COMMITTED.json, written last, with the size and hash of every file. A folder without
that marker is a torn one and is removed; one whose hashes fail is renamed *.corrupt, and the one
before it is taken. An older checkpoint goes only after a newer one has been written and read back.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmctl.core import console
from llmctl.core.errors import IoError_, Mismatch
from llmctl.core.files import fsync_dir, human_bytes, read_json, sha256_file, write_json

MARKER, LOOP = "COMMITTED.json", "loop.json"
FORMAT = 1
MARGIN = 1 << 20  # bytes kept free beyond what a checkpoint needs

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """One committed checkpoint."""

    path: Path
    step: int  # updates done
    kept: bool  # stays when newer ones come

    @property
    def loop(self) -> dict[str, Any]:
        """The loop's own state."""
        return dict(read_json(self.path / LOOP))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors saved as `name`, on the CPU. Mismatch (78) when the file is damaged."""
        return read_tensors(self.path / f"{name}.safetensors")

    def damage(self) -> str | None:
        """What is wrong with its files, None when every hash fits."""
        try:
            marker = read_json(self.path / MARKER)
            for file in marker["files"]:
                path = self.path / str(file["name"])
                if path.stat().st_size != file["bytes"] or sha256_file(path) != file["sha256"]:
                    return f"{path.name} is not what was written"
        except (OSError, KeyError, TypeError, Mismatch) as error:
            return f"{type(error).__name__}: {error}"
        return None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file; Mismatch (78) in one line when it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, ValueError, EOFError) as error:
        raise Mismatch(f"{path}: not a whole safetensors file ({error}); copy it again") from None


class Checkpoints:
    """The checkpoints of one run. Only rank 0 may hold one."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        """keep: committed checkpoints that stay, beside those saved with kept=True."""
        self.folder, self.keep = folder, keep

    def __iter__(self) -> Iterator[Checkpoint]:
        """Committed ones, oldest first."""
        found = []
        for path in self.folder.glob("step-*"):
            if re.fullmatch(r"step-\d{8,}", path.name) and (path / MARKER).is_file():
                try:
                    kept = bool(read_json(path / MARKER).get("kept"))
                except (Mismatch, AttributeError):
                    kept = False  # damaged; found out when it is opened
                found.append(Checkpoint(path, int(path.name[5:]), kept))
        return iter(sorted(found, key=lambda c: c.step))

    def clean(self) -> None:
        """Remove torn checkpoints. Call it once, at the start, while holding the run's lock."""
        for path in self.folder.glob("step-*"):
            if path.suffix not in (".corrupt", ".nan") and not (path / MARKER).is_file():
                shutil.rmtree(path)

    def latest(self) -> Checkpoint | None:
        """The newest one whose hashes fit. Damaged ones are set aside; all damaged: 78."""
        checkpoints = list(self)
        for checkpoint in reversed(checkpoints):
            damage = checkpoint.damage()
            if damage is None:
                return checkpoint
            aside = checkpoint.path.with_name(f"{checkpoint.path.name}.corrupt")
            shutil.rmtree(aside, ignore_errors=True)
            checkpoint.path.rename(aside)
            console.warn(
                f"checkpoint {checkpoint.path} is corrupt ({damage}); kept as {aside.name}"
            )
        if checkpoints:
            raise Mismatch(
                f"{self.folder}: all {len(checkpoints)} checkpoints are corrupt; "
                "start anew with --force, or restore one from a copy"
            )
        return None

    def save(
        self,
        step: int,
        parts: Mapping[str, Tensors],
        loop: Mapping[str, Any],
        *,
        kept: bool = False,
        suffix: str = "",
    ) -> Path:
        """Write a checkpoint and drop older ones; its folder.

        parts: tensors by file name. suffix: ".nan" sets it aside as evidence: never resumed from.
        IoError_ (74) when the disk is full or fails: nothing torn stays, the older ones stand.
        """
        path = self.folder / f"step-{step:08d}{suffix}"
        self.folder.mkdir(parents=True, exist_ok=True)
        need = sum(t.nbytes for tensors in parts.values() for t in tensors.values()) + MARGIN
        free = shutil.disk_usage(self.folder).free
        if free < need:
            raise IoError_(
                f"{path}: a checkpoint takes {human_bytes(need)}, {human_bytes(free)} are free; "
                "free some and run the same command again"
            )
        shutil.rmtree(path, ignore_errors=True)
        try:
            path.mkdir()
            self._write(path, parts, {"step": step, **loop}, kept)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(path, ignore_errors=True)
            raise _io_error(path, need, error) from error
        if not suffix:
            self._prune()
        return path

    def _write(
        self, path: Path, parts: Mapping[str, Tensors], loop: Mapping[str, Any], kept: bool
    ) -> None:
        files = []
        for name, tensors in parts.items():
            file = path / f"{name}.safetensors"
            save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, file)
            file.chmod(0o644)  # the library makes files only their owner can read
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
            files.append(file)
        write_json(path / LOOP, dict(loop))
        fsync_dir(path)
        rows = [
            {"name": f.name, "bytes": f.stat().st_size, "sha256": sha256_file(f)}
            for f in [*files, path / LOOP]
        ]
        write_json(path / MARKER, {"format": FORMAT, "kept": kept, "files": rows})
        fsync_dir(self.folder)

    def _prune(self) -> None:
        plain = [c for c in self if not c.kept]
        for old in plain[: -self.keep]:
            _remove(old.path)

    def keep_only(self, *steps: int) -> None:
        """After the end: drop all but these."""
        for checkpoint in self:
            if checkpoint.step not in steps:
                _remove(checkpoint.path)


def _remove(path: Path) -> None:
    """The marker first: a half-removed checkpoint must not look like a whole one."""
    (path / MARKER).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _io_error(path: Path, need: int, error: Exception) -> IoError_:
    text = str(error).split("\n")[0]
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or "No space left" in text or "os error 28" in text:
        text = f"no space left; a checkpoint takes {human_bytes(need)}"
    return IoError_(
        f"{path}: not saved ({text}); earlier checkpoints stand, mend it and run the same command "
        "again"
    )


def copy_into(target: Mapping[str, Tensor], source: Tensors, where: str) -> None:
    """Copy tensors by name into those of a model or optimizer; Mismatch (78) lists differences."""
    wrong = [f"{k} is missing" for k in target if k not in source]
    wrong += [f"{k} is unknown" for k in source if k not in target]
    wrong += [
        f"{k} is {tuple(source[k].shape)}, wanted {tuple(t.shape)}"
        for k, t in target.items()
        if k in source and source[k].shape != t.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise Mismatch(f"{where}: another architecture: {'; '.join(wrong[:5])}{more}")
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])
