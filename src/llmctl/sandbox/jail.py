"""The walls: built once around the keeper (`build`), closed around each run (`lock`).

namespaces: an own user, process, network, IPC and mount namespace; the root is a read-only tmpfs
with Python's library in it and nothing else; each run has a small tmpfs of its own at /tmp. On top
of it Landlock where the kernel has it, and always seccomp, no capabilities, resource limits.

landlock: where namespaces are not allowed (many containers): by Landlock no file but Python's
library can be read, no other folder listed, nothing written; seccomp takes the place of the
namespaces: no process can be made or signalled, no socket opened. Landlock does not cover stat,
access, chdir and readlink, so this mode does not hide whether a path is there, its owner, size and
dates, where a link leads, nor which processes run.

As root the code first becomes a user that nobody else is. Runs in the keeper, where there is only
the standard library.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import sys
from dataclasses import dataclass
from typing import Any

from llmctl.sandbox import kernel, syscalls

MODES = ("namespaces", "landlock")
LEAST_LANDLOCK = 3  # the first version that keeps a file it lets read from being cut short
MOUNT_POINTS = ("/mnt", "/media", "/srv", "/opt", "/run", "/sys", "/tmp")
NOBODY = 65534
SCRATCH = "/tmp"


@dataclass(frozen=True)
class Jail:
    """What `build` made. readable: folders that stay; scratch: whether a run gets a /tmp."""

    mode: str
    readable: tuple[str, ...]
    scratch: bool
    capabilities: int


def library_folders() -> tuple[list[str], dict[str, str]]:
    """Folders that Python loads modules and shared libraries from, and links that lead to them."""
    bases = {sys.base_prefix, sys.base_exec_prefix}
    wanted = [os.path.join(base, lib) for base in bases for lib in ("lib", "lib64")]
    wanted += [os.path.dirname(os.__file__), "/lib", "/lib64", "/usr/lib", "/usr/lib64"]
    wanted += ["/usr/share/zoneinfo"]
    with contextlib.suppress(OSError), open("/proc/self/maps") as lines:
        mapped = {line.split(maxsplit=5)[5].rstrip("\n") for line in lines if ".so" in line}
        wanted += [os.path.dirname(path) for path in mapped]
    links: dict[str, str] = {}
    folders: set[str] = set()
    for path in wanted:
        if os.path.islink(path):
            links[path] = os.readlink(path)
        if os.path.isdir(path):
            folders.add(os.path.realpath(path))
    kept = sorted(folders)
    inside = {b for a in kept for b in kept if b.startswith(a + "/")}
    return [path for path in kept if path not in inside and path != "/"], links


def build(mode: str) -> Jail:
    """Put this process behind the walls of a mode; OSError where the kernel does not let us."""
    if mode == "landlock":
        return _build_landlock()
    folders, links = library_folders()
    uid, gid = os.geteuid(), os.getegid()
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    others = kernel.NEWPID | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS
    if uid == 0:
        user = unused_user()
        kernel.unshare(kernel.NEWNS)
        _make_root(folders, links)
        kernel.unshare(others)
        _become(user)
        kernel.set_dumpable(True)  # else the maps below belong to root
        kernel.unshare(kernel.NEWUSER | kernel.NEWNS)
        _map_user(proc, user, user)
    else:
        kernel.unshare(kernel.NEWUSER | kernel.NEWNS | others)
        _map_user(proc, uid, gid)
        _make_root(folders, links)
    os.close(proc)
    if not os.access(os.__file__, os.R_OK):
        raise OSError(f"Python's library {os.path.dirname(os.__file__)} is not readable to others")
    return Jail(mode, ("/",), True, 0)


def _build_landlock() -> Jail:
    abi = kernel.landlock_abi()
    if abi < LEAST_LANDLOCK:
        found = f"version {abi}" if abi else "none"
        raise OSError(f"Landlock {LEAST_LANDLOCK} or later is needed; the kernel has {found}")
    folders, _ = library_folders()
    kept = 0
    if os.geteuid() == 0:
        kernel.keep_capabilities()
        _become(unused_user())
        if not os.access(os.__file__, os.R_OK):
            # root's own Python, in a home others may not enter: it may be read, and by Landlock
            # nothing else may
            kept = 1 << kernel.CAP_DAC_READ_SEARCH
        kernel.set_capabilities(kept)
    return Jail("landlock", tuple(folders), False, kept)


def unused_user() -> int:
    """A user number that has no process and no name here, for this sandbox alone."""
    taken = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                taken.add(os.stat(f"/proc/{name}").st_uid)
    free = [uid for uid in range(61_184, 65_520) if uid not in taken]
    return random.SystemRandom().choice(free)


def _become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _map_user(proc: int, uid: int, gid: int) -> None:
    """Be `nobody` inside the new user namespace."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {uid} 1"),
        ("gid_map", f"{NOBODY} {gid} 1"),
    ):
        handle = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)


def _make_root(folders: list[str], links: dict[str, str]) -> None:
    """A root that holds the library's folders, read-only, and an empty /tmp to mount on."""
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    root = next(
        point
        for point in MOUNT_POINTS
        if os.path.isdir(point) and not any(f"{f}/".startswith(point + "/") for f in folders)
    )
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", root, "tmpfs", flags, "size=1m,nr_inodes=1k,mode=755")
    os.umask(0o022)
    for folder in folders:
        os.makedirs(root + folder, exist_ok=True)
        kernel.mount(folder, root + folder, "", kernel.MS_BIND | kernel.MS_REC)
    for path, target in links.items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        if not os.path.lexists(root + path):
            os.symlink(target, root + path)
    os.makedirs(root + SCRATCH, exist_ok=True)
    kernel.make_read_only(root)
    kernel.change_root(root)


def lock(jail: Jail, limits: dict[str, Any]) -> None:
    """Close the walls around this process, for good. Descriptors from 5 on are closed."""
    os.closerange(5, 65_536)
    _set_limits(jail, limits)
    rules = [(path, kernel.FS_READ) for path in jail.readable]
    os.chdir("/")
    if jail.scratch:
        kernel.unshare(kernel.NEWNS)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        size = f"size={limits['scratch_bytes']},nr_inodes={limits['scratch_files']},mode=700"
        kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, size)
        os.chdir(SCRATCH)
        rules.append((SCRATCH, kernel.FS_SCRATCH | kernel.TRUNCATE))
    kernel.no_new_privileges()
    kernel.set_capabilities(jail.capabilities)
    kernel.set_dumpable(False)
    kernel.die_with_parent()
    if kernel.landlock_abi():
        kernel.landlock(rules)
    kernel.seccomp(syscalls.program(os.getpid()))


def _set_limits(jail: Jail, limits: dict[str, Any]) -> None:
    scratch = limits["scratch_bytes"] if jail.scratch else 0
    for kind, value in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, scratch),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _, most = resource.getrlimit(kind)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))
