"""Exit codes: one table, and the error each exception of the system stands for."""

import errno

from llmctl.core.errors import ERRORS, did_you_mean, exit_code_rows, from_exception, nearest


def test_codes_are_those_of_the_contract():
    codes = [code for code, _, _ in exit_code_rows()]
    assert codes == [0, 2, 65, 66, 70, 71, 73, 74, 75, 76, 77, 78, 79, 130, 141]
    assert len({e.name for e in ERRORS}) == len(ERRORS)


def test_exceptions_of_the_system_get_their_code():
    assert from_exception(OSError(errno.ENOSPC, "full", "/x")).code == 74
    assert from_exception(FileNotFoundError(errno.ENOENT, "gone", "/x")).code == 66
    assert from_exception(NotADirectoryError(errno.ENOTDIR, "no", "/x")).code == 2
    assert from_exception(MemoryError()).code == 71
    assert from_exception(KeyboardInterrupt()).code == 130
    assert from_exception(ZeroDivisionError()) is None


def test_the_nearest_word_or_all_of_them():
    known = ["python", "search"]
    assert nearest("pyhton", known) == "python" and nearest("zebra", known) is None
    assert did_you_mean("pyhton", known) == "; did you mean 'python'?"
    assert did_you_mean("zebra", known) == "; known: python, search"
    assert did_you_mean("zebra", []) == ""
