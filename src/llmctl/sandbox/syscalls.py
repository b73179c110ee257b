"""The system calls that sandboxed Python may make, as a seccomp filter (classic BPF).

What is not on the list fails with EPERM: no process is made, none is signalled or traced, nothing
is executed, mounted, mapped from elsewhere or sent. Pure; imports nothing of llmctl.
"""

from __future__ import annotations

import functools
import os
import struct

Step = tuple[int, int, int, int]  # code, jumps if true and if false, value
# name: (x86-64, AArch64); None where an architecture has no such call
FREE: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "poll": (7, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "pipe": (22, None),
    "select": (23, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "dup": (32, 23),
    "dup2": (33, None),
    "pause": (34, None),
    "nanosleep": (35, 101),
    "getitimer": (36, 102),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "getpid": (39, 172),
    "sendfile": (40, 71),
    "exit": (60, 93),
    "uname": (63, 160),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "rename": (82, None),
    "mkdir": (83, None),
    "rmdir": (84, None),
    "unlink": (87, None),
    "readlink": (89, None),
    "umask": (95, 166),
    "gettimeofday": (96, 169),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "getppid": (110, 173),
    "getpgrp": (111, None),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "sigaltstack": (131, 132),
    "arch_prctl": (158, None),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "getdents64": (217, 61),
    "set_tid_address": (218, 96),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "newfstatat": (262, 79),
    "unlinkat": (263, 35),
    "renameat": (264, 38),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "eventfd2": (290, 19),
    "dup3": (292, 24),
    "pipe2": (293, 59),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "renameat2": (316, 276),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "statx": (332, 291),
    "rseq": (334, 293),
    "close_range": (436, 436),
    "faccessat2": (439, 439),
}
# name: (numbers, argument looked at, its values that are allowed)
# ioctl: what a file object asks of a terminal, close-on-exec, bytes to read; never TIOCSTI
# fcntl: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC; never F_SETOWN, which signals
CHECKED: dict[str, tuple[tuple[int, int], int, tuple[int, ...]]] = {
    "ioctl": ((16, 29), 1, (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)),
    "fcntl": ((72, 25), 1, (0, 1, 2, 3, 4, 1030)),
    "prlimit64": ((302, 261), 0, (0,)),
}
TGKILL = (234, 131)  # of this process alone: raise() and abort()
ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH

ALLOW, KILL, EPERM = 0x7FFF0000, 0x80000000, 0x00050000 | 1
X32 = 0x40000000  # numbers from here on are the x32 way into an x86-64 kernel
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06


def supported() -> str | None:
    """Why no filter can be made for this machine; None when one can."""
    machine = os.uname().machine
    return None if machine in ARCHES else f"no list of system calls for {machine}"


def program(pid: int) -> bytes:
    """The filter for a process with this number, as an array of struct sock_filter."""
    return common() + _assembled([*_checked(TGKILL, 0, (pid,)), (RETURN, 0, 0, EPERM)])


@functools.cache
def common() -> bytes:
    """The part that is the same for all processes; made once, since it costs milliseconds."""
    column, arch = ARCHES[os.uname().machine]
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    code += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, EPERM)]
    for numbers in FREE.values():
        if (number := numbers[column]) is not None:
            code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    for numbers, argument, values in CHECKED.values():
        code += _checked(numbers, argument, values)
    return _assembled(code)


def _checked(numbers: tuple[int, int], argument: int, values: tuple[int, ...]) -> list[Step]:
    """A call that is allowed with some values of an argument; the accumulator holds its number."""
    # the low half of the argument: all of these are C ints to the kernel
    tests: list[Step] = [(LOAD, 0, 0, 16 + 8 * argument)]
    for value in values:
        tests += [(EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    tests.append((RETURN, 0, 0, EPERM))
    column, _ = ARCHES[os.uname().machine]
    return [(EQUAL, 0, len(tests), numbers[column]), *tests]


def _assembled(code: list[Step]) -> bytes:
    return b"".join(struct.pack("=HBBI", *step) for step in code)
