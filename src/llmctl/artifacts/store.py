"""Folders that become artifacts: the payload first, manifest.json last.

A folder without manifest.json is unfinished: its own stage may go on with it, no other may read it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmctl import __version__
from llmctl.artifacts.manifest import (
    BOOKKEEPING,
    FORMAT,
    LOCK,
    MANIFEST,
    RUN,
    check_files,
    content_id,
    read_manifest,
)
from llmctl.core.errors import Mismatch, NoInput, OutputBusy
from llmctl.core.files import read_json, remove_temporaries, sha256_file, write_json


@dataclass(frozen=True)
class Artifact:
    """An input: one of our folders (with a manifest), or a foreign file, folder or URL."""

    path: Path
    kind: str  # "web", "documents", "tokens", "model", …; "foreign" without a manifest
    manifest: Mapping[str, Any] | None = None
    url: str | None = None  # set for remote input; `path` is then only its name

    @property
    def stats(self) -> Mapping[str, Any]:
        """What the stage that made it counted; empty for a foreign one."""
        return self.manifest["stats"] if self.manifest else {}

    @property
    def inputs(self) -> Sequence[Mapping[str, Any]]:
        """What it was made from: path, kind and id of each input."""
        return self.manifest["inputs"] if self.manifest else []

    def files(self) -> list[Path]:
        """Its files, sorted by name; hidden ones and bookkeeping left out."""
        if self.url is not None:
            return []
        if self.path.is_file():
            return [self.path]
        if self.manifest:
            return [self.path / f["name"] for f in self.manifest["files"]]
        found = (p for p in self.path.rglob("*") if p.is_file())
        return sorted(p for p in found if not _hidden(p.relative_to(self.path)))

    @cached_property
    def id(self) -> str:
        """What identifies the content: the manifest's id, or a hash over sizes and contents."""
        if self.manifest:
            return self.manifest["id"]
        if self.url is not None:
            return _remote_id(self.url)
        digest = hashlib.sha256()
        for path in self.files():
            name = path.relative_to(self.path) if self.path.is_dir() else "file"
            digest.update(f"{name} {path.stat().st_size} {sha256_file(path)}\n".encode())
        return digest.hexdigest()

    def reference(self) -> dict[str, str]:
        """How a manifest names this input."""
        where = self.url if self.url is not None else os.path.abspath(self.path)
        return {"path": where, "kind": self.kind, "id": self.id}


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts) or relative.name in BOOKKEEPING


_REMOTE_MARKS = ("ETag", "etag", "Content-MD5", "mtime", "LastModified", "Last-Modified")


def _remote_id(url: str) -> str:
    """Size and ETag (or modification time) of a remote file, through fsspec."""
    import fsspec

    try:
        fs, path = fsspec.url_to_fs(url)
        facts = fs.info(path)
    except ImportError as error:
        raise NoInput(f"{url}: {error}; pip install 'llmctl[remote]'") from None
    except (OSError, ValueError) as error:
        raise NoInput(f"{url}: cannot be read ({error}); check the address") from None
    mark = next((facts[k] for k in _REMOTE_MARKS if facts.get(k)), None)
    if mark is None:  # nothing tells its content: at least it is not taken for another address
        mark = url
    return hashlib.sha256(f"{facts.get('size')} {mark}".encode()).hexdigest()


def open_artifact(
    path: Path | str, kinds: Sequence[str], *, reader: str = "this stage", verify: bool = True
) -> Artifact:
    """The finished artifact at `path`, of one of `kinds`, its files checked.

    "foreign" in kinds admits files, folders and URLs without a manifest.
    Raises NoInput (66) when missing or unfinished, Mismatch (78) for the wrong kind or a damaged
    file.
    """
    if "://" in str(path):
        if "foreign" not in kinds:
            raise Mismatch(f"{path}: {reader} reads {_words(kinds)}, which lie on local disk")
        return Artifact(Path(str(path).rsplit("/", 1)[-1]), "foreign", url=str(path))
    path = Path(path)
    if path.name == MANIFEST:
        path = path.parent
    if not path.exists():
        raise NoInput(f"{path}: no such file or folder; check the path")
    if (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        if manifest["kind"] not in kinds:
            raise Mismatch(
                f"{path}: a {manifest['kind']} artifact, but {reader} reads {_words(kinds)}; "
                f"name one, or run the stage that makes it first"
            )
        check_files(path, manifest, hashes=verify)
        return Artifact(path, manifest["kind"], manifest)
    if (path / RUN).is_file():
        run = read_json(path / RUN)
        raise NoInput(
            f"{path}: unfinished; run its command again first: {' '.join(run.get('argv', []))}"
        )
    if "foreign" not in kinds:
        raise Mismatch(f"{path}: no manifest.json, so no {_words(kinds)} artifact; check the path")
    return Artifact(path, "foreign")


def _words(kinds: Sequence[str]) -> str:
    return " or ".join(k for k in kinds if k != "foreign") or "files"


@dataclass
class Draft:
    """A folder under construction, held by a lock until it is committed or given up."""

    path: Path
    kind: str
    resuming: bool  # an earlier run with this fingerprint left finished parts here
    run: dict[str, Any]  # run.json: stage, fingerprint, settings, inputs, argv
    volatile: tuple[str, ...] = ()  # files and folders that vary by nature and stay outside the id

    def remember(self, key: str, value: Any) -> Any:
        """A fact decided once and kept for later resumes of this run; returns the first value."""
        decided = self.run.setdefault("decided", {})
        if key not in decided:
            decided[key] = value
            write_json(self.path / RUN, self.run)
        return decided[key]

    def discard(self) -> None:
        """Give a fresh folder up whose run cannot succeed as it was asked for: nothing is left.

        But for one that holds finished parts in `state/`, such as checkpoints: those stand.
        """
        if not self.resuming and not any((self.path / "state").glob("*")):
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def empty(self) -> bool:
        """Whether nothing has been written yet that somebody may want to read."""
        return {p.name for p in self.path.iterdir()} <= {LOCK, RUN, "state"}

    def commit(self, stats: Mapping[str, Any]) -> Artifact:
        """Hash every file, write manifest.json last. From here on it is an artifact."""
        files = []
        for path in Artifact(self.path, "foreign").files():
            name = path.relative_to(self.path).as_posix()
            with open(path, "rb") as handle:
                os.fsync(handle.fileno())
            entry = {"name": name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
            if name in self.volatile or any(name.startswith(f"{v}/") for v in self.volatile):
                entry["volatile"] = True
            files.append(entry)
        manifest = {
            "kind": self.kind,
            "format": FORMAT,
            "id": content_id(self.kind, files),
            "stage": self.run["stage"],
            "fingerprint": self.run["fingerprint"],
            "settings": self.run["settings"],
            "created": {
                "llmctl": __version__,
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "argv": self.run["argv"],
                "version": self.run["version"],
                "config": self.run["config"],
                "decided": self.run.get("decided", {}),
            },
            "inputs": self.run["inputs"],
            "files": files,
            "stats": dict(stats),
        }
        write_json(self.path / MANIFEST, manifest)
        (self.path / RUN).unlink(missing_ok=True)
        return Artifact(self.path, self.kind, manifest)


@contextlib.contextmanager
def open_draft(
    path: Path,
    kind: str,
    run: dict[str, Any],
    *,
    force: bool = False,
    volatile: tuple[str, ...] = (),
) -> Iterator[Draft | Artifact]:
    """The folder to fill for this run, locked; or the finished artifact when it is there already.

    run: run.json's content. OutputBusy (73) when the folder holds another run (naming the keys that
    differ), something that is not ours, or is locked; `force` replaces another run's artifact, and
    a damaged one of this run.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(parents=True)
    if not path.is_dir():
        raise OutputBusy(f"{path}: exists and is no folder; choose another -o")
    with _lock(path):
        remove_temporaries(path)  # a writer killed in the middle may have left some, run.json's too
        held, finished = _held(path)
        if held is None and any(p.name != LOCK for p in path.iterdir()):
            raise OutputBusy(f"{path}: not empty and no run of llmctl; choose another -o")
        same = held is not None and held["fingerprint"] == run["fingerprint"]
        if held is not None and same and finished:
            if not force or _intact(path, held):
                check_files(path, held, hashes=False)
                yield Artifact(path, held["kind"], held)
                return
        elif held is not None and same:
            decided = {**run, "decided": held.get("decided", {})}
            yield Draft(path, kind, True, decided, volatile)
            return
        if held is not None and not force:
            raise OutputBusy(
                f"{path}: holds another run, differing in {_difference(held, run)}; "
                "choose another -o, or replace it with --force"
            )
        _replace(path, run)
        yield Draft(path, kind, False, dict(run), volatile)


def _replace(path: Path, run: dict[str, Any]) -> None:
    """Empty a folder for a new run. Killed half-way, the folder is still known as a run's."""
    (path / MANIFEST).unlink(missing_ok=True)
    write_json(path / RUN, {**run, "fingerprint": "emptying"})
    for old in path.iterdir():
        if old.name not in (LOCK, RUN):
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    write_json(path / RUN, run)


def _intact(path: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether every payload file still has the content it was committed with."""
    try:
        check_files(path, manifest, hashes=True)
    except Mismatch:
        return False
    return True


def _held(path: Path) -> tuple[dict[str, Any] | None, bool]:
    """What a folder holds: (manifest or run.json or None, whether it is finished)."""
    if (path / MANIFEST).is_file():
        return read_manifest(path), True
    if (path / RUN).is_file():
        held = read_json(path / RUN)
        if not isinstance(held, dict) or type(held.get("fingerprint")) is not str:
            raise Mismatch(f"{path / RUN}: not a run of llmctl; remove the folder")
        return held, False
    return None, False


def _difference(held: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The differing facts of two runs, as 'seed (1 there, 2 here)'."""
    if held.get("stage") != run["stage"]:
        return f"stage ({held.get('stage')} there, {run['stage']} here)"
    facts = []
    theirs, ours = held.get("settings", {}), run["settings"]
    for key in sorted({*theirs, *ours}):
        if theirs.get(key) != ours.get(key):
            facts.append(
                f"{key} ({theirs.get(key, 'default')} there, {ours.get(key, 'default')} here)"
            )
    if [i["id"] for i in held.get("inputs", [])] != [i["id"] for i in run["inputs"]]:
        facts.append("its input (other content)")
    return ", ".join(facts) or "the stage's version"


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the folder's lock, or OutputBusy (73) naming the holder. A killed holder frees it."""
    file = path / LOCK
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 4096).decode(errors="replace") or "{}"
            os.close(handle)
            with contextlib.suppress(ValueError):
                facts = json.loads(holder)
                holder = f"pid {facts.get('pid')} on {facts.get('host')}"
            raise OutputBusy(f"{path}: held by another run ({holder}); wait for it") from None
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == os.stat(file).st_ino:
                break  # else: its holder finished and removed it between our open and our lock
        os.close(handle)
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "argv": sys.argv}
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(facts).encode())
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(handle)
