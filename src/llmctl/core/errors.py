"""Errors a user sees, and the exit code each one gets.

An error is one sentence: what was wrong; where (file, row, key); what to do. It is raised with the
class whose exit code scripts rely on, and printed as the last line on stderr.
"""

from __future__ import annotations

import errno


class LlmctlError(Exception):
    """A failure with a sentence for the user. `code` is the process's exit code."""

    code = 70
    name = "internal"
    meaning = "a bug of ours; the traceback is in the file named"


class UsageError(LlmctlError):
    code, name, meaning = 2, "usage", "bad flag, unknown key, impossible setting; nothing touched"


class BadInput(LlmctlError):
    code, name, meaning = 65, "bad-input", "the input is damaged beyond the stated tolerance"


class NoInput(LlmctlError):
    code, name, meaning = 66, "no-input", "an input is missing, or unfinished"


class OutOfMemory(LlmctlError):
    code, name, meaning = 71, "oom", "out of memory (GPU or host); sizes named"


class OutputBusy(LlmctlError):
    code, name, meaning = 73, "output-busy", "the output is taken, or another run holds it"


class IoError_(LlmctlError):
    code, name, meaning = 74, "io", "disk full or I/O error; finished parts are kept"


class Interrupted(LlmctlError):
    code, name, meaning = 75, "interrupted", "stopped, state saved: run the same command again"


class Diverged(LlmctlError):
    code, name, meaning = 76, "diverged", "NaN or Inf where a number must be"


class Refused(LlmctlError):
    code, name, meaning = 77, "refused", "refused as unsafe"


class Mismatch(LlmctlError):
    code, name, meaning = (
        78,
        "mismatch",
        "inputs do not fit: kind, hash, tokenizer, format",
    )


class RankLost(LlmctlError):
    code, name, meaning = 79, "rank-lost", "a rank was lost; the last checkpoint stands"


class Cancelled(LlmctlError):
    code, name, meaning = 130, "cancelled", "Ctrl-C; state saved"


OK = (0, "ok", "done: the artifact is complete")
CLOSED_PIPE = (141, "closed-pipe", "whoever read stdout has gone, as in `| head`")
ERRORS: tuple[type[LlmctlError], ...] = (
    UsageError,
    BadInput,
    NoInput,
    LlmctlError,
    OutOfMemory,
    OutputBusy,
    IoError_,
    Interrupted,
    Diverged,
    Refused,
    Mismatch,
    RankLost,
    Cancelled,
)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DEVICE = {errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EACCES}
_DEVICE |= {errno.EPERM}
_NAME = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


def exit_code_rows() -> list[tuple[int, str, str]]:
    """Every exit code with its name and meaning, in numeric order."""
    return sorted([OK, CLOSED_PIPE, *((e.code, e.name, e.meaning) for e in ERRORS)])


def from_exception(error: BaseException) -> LlmctlError | None:
    """The user-facing error an unexpected exception stands for; None when it is a bug of ours."""
    if isinstance(error, LlmctlError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("stopped by Ctrl-C; run the same command again to go on")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        detail = str(error).split("\n")[0]
        return OutOfMemory(f"out of memory: {detail or 'the allocation failed'}; lower the batch")
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno in _FULL:
            return IoError_(f"{where}no space left; free some and run the same command again")
        if error.errno == errno.ENOENT:
            return NoInput(f"{where}no such file; check the path")
        if error.errno in _NAME:
            return UsageError(f"{where}{error.strerror}; choose another path")
        if error.errno in _DEVICE:
            return IoError_(f"{where}{error.strerror}; mend it and run the same command again")
    return None


def nearest(word: str, known: list[str]) -> str | None:
    """The known word most like this one; None when none is like it."""
    import difflib

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), None)


def did_you_mean(word: str, known: list[str]) -> str:
    """'; did you mean X?' for the nearest known word, or the whole list when nothing is near."""
    if near := nearest(word, known):
        return f"; did you mean {near!r}?"
    return f"; known: {', '.join(known)}" if known else ""
