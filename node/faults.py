"""The operator's faults: a full disk, a port in use, a typing error in the configuration."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class OperatorError(Exception):
    """What is wrong and why (``message``), and the command that fixes it (``fix``): one line.

    The command line prints it and ends with exit code 1.  It is neither a bug nor a peer's fault.
    """

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}" if self.fix else self.message


@contextmanager
def file_faults(verb: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError into an OperatorError: ``with file_faults("write", path): …``."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise OperatorError(f"cannot {verb} {path}: {why}", _file_fix(error)) from error


def _file_fix(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, or keep covey elsewhere with --home FOLDER"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make it writable for this user, or keep covey elsewhere with --home FOLDER"
    return "check the path, or keep covey elsewhere with --home FOLDER"
