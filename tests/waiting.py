"""Waiting for what processes will do: looking again and again, here and nowhere else."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 60.0  # for anything that will happen; an idle machine needs a few seconds
_LOOK_S = 0.03
T = TypeVar("T")


def until(what: str, look: Callable[[], T | None], within_s: float = PATIENCE_S) -> T:
    """Look again and again until there is something, and return it.  Raises AssertionError."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(_LOOK_S)
    return found
