"""What this kernel has to build the sandbox's walls of: asked of the kernel, not of the sandbox, so
that where a wall falls tests fail, and are not skipped for it.

    walls.py USER      prints the modes (as in sandbox/jail.py) that can stand; USER: whom root
                       becomes before, 0 for nobody else
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import subprocess
import sys

NEWNS, OTHERS = 0x00020000, 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
NEWUSER = 0x10000000
MOUNT_SETATTR, LANDLOCK_CREATE, GET_SECCOMP, SET_DUMPABLE = 442, 444, 21, 4
MACHINES = ("x86_64", "aarch64")
PLAIN = 54_321  # a user nobody is


@functools.cache
def modes(user: int = 0) -> tuple[str, ...]:
    """The modes that can stand here."""
    if sys.platform != "linux" or os.uname().machine not in MACHINES:
        return ()
    done = subprocess.run([sys.executable, __file__, str(user)], capture_output=True, check=True)
    return tuple(done.stdout.decode().split())


def _become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _landlock(libc: ctypes.CDLL) -> bool:
    size, want_version = ctypes.c_size_t(0), ctypes.c_uint(1)
    return libc.syscall(ctypes.c_long(LANDLOCK_CREATE), None, size, want_version) >= 3


def _mounted(libc: ctypes.CDLL) -> bool:
    """Whether a file system may be mounted, and made read-only."""
    if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", ctypes.c_ulong(0), None):
        return False
    words = ctypes.c_int(-100), b"/tmp", ctypes.c_uint(0), struct.pack("=QQQQ", 1, 0, 0, 0)
    return libc.syscall(ctypes.c_long(MOUNT_SETATTR), *words, ctypes.c_size_t(32)) == 0


def _namespaces(libc: ctypes.CDLL) -> bool:
    """Whether namespaces of all kinds can be made and mounted in; root does so as PLAIN, too."""
    uid, gid, first = os.geteuid(), os.getegid(), OTHERS
    if uid == 0:
        private = ctypes.c_ulong(16384 | 1 << 18)  # MS_REC | MS_PRIVATE
        if libc.unshare(NEWNS | OTHERS) or libc.mount(None, b"/", None, private, None):
            return False
        if not _mounted(libc):
            return False
        _become(PLAIN)
        libc.prctl(SET_DUMPABLE, 1, 0, 0, 0)
        uid, gid, first = PLAIN, PLAIN, 0
    if libc.unshare(NEWUSER | NEWNS | first):
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        try:
            with open(f"/proc/self/{name}", "w") as handle:
                handle.write(text)
        except OSError:
            return False
    return _mounted(libc)


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if user := int(sys.argv[1]):
        _become(user)
        libc.prctl(SET_DUMPABLE, 1, 0, 0, 0)
    if libc.prctl(GET_SECCOMP, 0, 0, 0, 0) < 0:
        return  # no mode stands without
    if _landlock(libc):
        print("landlock")
    if _namespaces(libc):
        print("namespaces")


if __name__ == "__main__":
    main()
