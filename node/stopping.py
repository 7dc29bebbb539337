"""Ends the node of a home and waits until it has."""

import os
import signal
import time
from contextlib import suppress

from covey.node.client import Client, NotRunning
from covey.node.faults import OperatorError
from covey.node.home import Home

_LOOK_S = 0.05
_ANSWER_S = 2.0  # of a node that is to end at once


def stop_node(home: Home, now: bool, within_s: float) -> int:
    """Ask the node to leave, or with ``now`` end it at once; the process id it had.

    Raises NotRunning, or OperatorError if it is still there after ``within_s``.
    """
    pid = home.holder()
    if pid is None:
        raise NotRunning(f"no node runs in {home.root}", "there is nothing to stop")
    if now:
        with suppress(OperatorError):
            Client(home, _ANSWER_S).post("/api/v1/shutdown", {"now": True})
        if not _wait(home, _ANSWER_S) and pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    else:
        Client(home).post("/api/v1/shutdown", {"now": False})
    if not _wait(home, within_s):
        raise OperatorError(
            f"the node in {home.root} (pid {pid}) is still there after {within_s:g} s",
            f"end it with `covey stop --now{home.option}`",
        )
    return pid


def _wait(home: Home, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while home.holder() is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True
