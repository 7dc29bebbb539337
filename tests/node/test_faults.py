"""Operator faults are one line: what, why, and the fix."""

import errno

import pytest

from covey.node.faults import OperatorError, file_faults


def test_the_line_has_the_fix_after_the_fault() -> None:
    assert str(OperatorError("the port is taken", "use --listen :0")) == (
        "the port is taken; use --listen :0"
    )
    assert str(OperatorError("the port is taken")) == "the port is taken"


@pytest.mark.parametrize(
    ("number", "fix"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "make it writable"), (errno.EIO, "check")],
)
def test_an_os_error_becomes_one_with_a_fix(number: int, fix: str) -> None:
    with pytest.raises(OperatorError, match=fix) as caught, file_faults("write", "/x/y"):
        raise OSError(number, "whatever")
    assert caught.value.message.startswith("cannot write /x/y: ")
    assert "\n" not in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), file_faults("write", "/x"):
        raise KeyError("bug")
