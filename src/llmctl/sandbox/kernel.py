"""What the sandbox asks of the Linux kernel, by ctypes. Imports nothing heavy.

Every function raises OSError with the call's name. Constants are those of the kernel's headers.
"""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

NEWNS, NEWUTS, NEWIPC = 0x00020000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
CAP_DAC_READ_SEARCH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 442, 444, 445, 446
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PDEATHSIG, _DUMPABLE, _KEEPCAPS, _SECCOMP, _CAPBSET_DROP = 1, 4, 8, 22, 24
_NO_NEW_PRIVS, _CAP_AMBIENT = 38, 47

FS_READ = 1 << 2 | 1 << 3  # Landlock: read files, list folders
FS_SCRATCH = FS_READ | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8  # and write, make, remove them
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # by Landlock's ABI; 16 from 5 on
TRUNCATE = 1 << 14  # ABI 3


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _call(number: int, what: str, *arguments: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *arguments), what)


def unshare(flags: int) -> None:
    """Leave namespaces of the parent."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    arguments = [os.fsencode(text) or None for text in (source, target, kind)]
    data = os.fsencode(options) or None
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data), f"mount {target}")


def make_read_only(target: str) -> None:
    """A mount and all below it: read-only, no devices, no set-user-id programs."""
    attributes = struct.pack("=QQQQ", MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
    path = os.fsencode(target)
    _call(
        _MOUNT_SETATTR,
        f"mount_setattr {target}",
        ctypes.c_int(_AT_FDCWD),
        path,
        ctypes.c_uint(_AT_RECURSIVE),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )


def change_root(folder: str) -> None:
    """Make a mount the root of this mount namespace; nothing else stays reachable by a path."""
    os.chdir(folder)
    _call(_PIVOT_ROOT[os.uname().machine], "pivot_root", b".", b".")
    _check(_libc.umount2(b".", ctypes.c_int(MNT_DETACH)), "umount2")
    os.chdir("/")


def _prctl(option: int, argument: int = 0, what: str = "prctl") -> None:
    words = [ctypes.c_ulong(x) for x in (argument, 0, 0, 0)]
    _check(_libc.prctl(ctypes.c_int(option), *words), what)


def die_with_parent() -> None:
    """SIGKILL when the thread that made this process ends. A change of user clears it."""
    _prctl(_PDEATHSIG, 9, "PR_SET_PDEATHSIG")


def set_dumpable(value: bool) -> None:
    """Whether others of the same user may look into this process."""
    _prctl(_DUMPABLE, int(value), "PR_SET_DUMPABLE")


def keep_capabilities() -> None:
    """The next change of user does not clear the permitted set."""
    _prctl(_KEEPCAPS, 1, "PR_SET_KEEPCAPS")


def set_capabilities(kept: int = 0) -> None:
    """Have these capabilities (a bit set) and no others, nor a way back to them."""
    for number in range(64):
        if kept >> number & 1:
            continue
        if _libc.prctl(_CAPBSET_DROP, *(ctypes.c_ulong(x) for x in (number, 0, 0, 0))) < 0:
            if ctypes.get_errno() != 1:  # EPERM: not ours to drop, and no_new_privs covers it
                break
    _libc.prctl(_CAP_AMBIENT, *(ctypes.c_ulong(x) for x in (4, 0, 0, 0)))
    header = struct.pack("=Ii", 0x20080522, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    _check(_libc.capset(header, data), "capset")


def no_new_privileges() -> None:
    """No program started from here gains rights; seccomp and Landlock ask for it."""
    _prctl(_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS")


def landlock_abi() -> int:
    """Landlock's version; 0 where the kernel has it not, or not switched on."""
    found = _libc.syscall(
        ctypes.c_long(_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint(1)
    )
    return max(0, int(found))


def landlock(rules: list[tuple[str, int]]) -> None:
    """Forbid this process all files but those below the given folders, with the rights given; and,
    as far as the kernel's version goes, TCP, abstract sockets and signals to others."""
    abi = landlock_abi()
    bits = (1 << _FS_BITS.get(abi, 16)) - 1
    net = 0b11 if abi >= 4 else 0
    scoped = 0b11 if abi >= 6 else 0
    attributes = struct.pack("=QQQ", bits, net, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    size = ctypes.c_size_t(len(attributes))
    ruleset = _call(_LANDLOCK_CREATE, "landlock_create_ruleset", attributes, size, ctypes.c_uint(0))
    for path, rights in rules:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights & bits, beneath)
        words = ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0)
        _call(_LANDLOCK_ADD, f"landlock_add_rule {path}", *words)
        os.close(beneath)
    _call(_LANDLOCK_RESTRICT, "landlock_restrict_self", ctypes.c_int(ruleset), ctypes.c_uint(0))
    os.close(ruleset)


def seccomp(filter: bytes) -> None:
    """Install a filter of system calls, for good."""
    buffer = ctypes.create_string_buffer(filter, len(filter))
    program = struct.pack("@HP", len(filter) // 8, ctypes.addressof(buffer))
    words = ctypes.c_ulong(2), program, ctypes.c_ulong(0), ctypes.c_ulong(0)
    _check(_libc.prctl(ctypes.c_int(_SECCOMP), *words), "PR_SET_SECCOMP")
