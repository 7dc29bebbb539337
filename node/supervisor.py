"""Runs the learner's script and starts it again when it crashes; the node gives it its state back.

exit 0                     the end
exit 2, SIGINT, SIGTERM    the end: wrong usage, or somebody wanted it to end
anything else              a crash: again after 1, 2, 4 … 30 s
5 crashes in a row         the end, if it trained for less than a minute before each: it would
                           only crash again
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from covey.node.faults import OperatorError

_log = logging.getLogger(__name__)
_INTERRUPTED = 128 + signal.SIGINT
_ENDINGS = {0, 2, _INTERRUPTED, 128 + signal.SIGTERM}
_NOT_FOR_CHILDREN = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}


@dataclass(frozen=True, slots=True)
class Policy:
    """When a crashed script is started again.  Seconds."""

    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    crashes_max: int = 5  # in a row, each after less training than progress_s: it is given up
    progress_s: float = 60.0  # of training; starting, importing and joining are none
    grace_s: float = 5.0  # between SIGTERM and SIGKILL


class Supervisor:
    """One script at a time.

    ``tell`` gets an event type and its data (EventLog.emit).  ``resumable`` says whether a crashed
    script would get anything back; one that crashes before is not started again.  ``trained_s``:
    for how long this node's learners have trained, all together.
    """

    def __init__(
        self,
        tell: Callable[..., object] = lambda *_, **__: None,
        resumable: Callable[[], bool] = lambda: True,
        trained_s: Callable[[], float] = lambda: 0.0,
        policy: Policy = Policy(),
    ) -> None:
        self._tell = tell
        self._resumable = resumable
        self._trained_s = trained_s
        self._policy = policy
        self._crashes = 0  # in a row, without progress
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def run(self, argv: Sequence[str], environ: Mapping[str, str]) -> int:
        """Run ``argv`` until it ends for good; its exit code, 128 + n if signal n ended it.

        Raises OperatorError if it cannot be started.  When cancelled, the script is killed.
        """
        pause_s = self._policy.first_pause_s
        while True:
            before_s = self._trained_s()
            code = await self._run_once(argv, environ)
            if self._trained_s() - before_s >= self._policy.progress_s:
                self._crashes, pause_s = 0, self._policy.first_pause_s
            if self._stopping.is_set() or code in _ENDINGS:
                self._tell("script.ended", code=code)
                return code
            if (reason := self._why_give_up()) is not None:
                _log.error("the script ended with exit code %d and %s", code, reason)
                self._tell("script.gave_up", code=code, reason=reason)
                return code
            _log.warning("the script crashed (exit code %d); again in %g s", code, pause_s)
            self._tell("script.crashed", code=code, restart_in_s=pause_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
                return code
            pause_s = min(2 * pause_s, self._policy.longest_pause_s)

    async def stop(self, interrupted: bool = False) -> None:
        """Ask the script to end, kill it after the grace; ``run`` then returns.

        ``interrupted``: the terminal's Ctrl-C has reached the script too, so it is asked already.
        """
        self._stopping.set()
        process = self._process
        if process is None:
            return
        if not interrupted:
            _send(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self._policy.grace_s)
        except TimeoutError:
            _send(process, signal.SIGKILL)
            await process.wait()

    async def _run_once(self, argv: Sequence[str], environ: Mapping[str, str]) -> int:
        environ = {key: text for key, text in environ.items() if key not in _NOT_FOR_CHILDREN}
        try:
            process = await asyncio.create_subprocess_exec(*argv, env=environ)
        except OSError as error:
            raise OperatorError(f"cannot start {argv[0]}: {error.strerror}") from error
        self._process = process
        self._tell("script.started", pid=process.pid)
        if self._stopping.is_set():  # it was asked to end before it was there
            _send(process, signal.SIGKILL)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            _send(process, signal.SIGKILL)
            await process.wait()
            raise
        finally:
            self._process = None
        return code if code >= 0 else 128 - code

    def _why_give_up(self) -> str | None:
        if not self._resumable():
            return "had not joined the swarm before, so it is not started again"
        self._crashes += 1
        if self._crashes >= self._policy.crashes_max:
            return (
                f"crashed {self._crashes} times in a row before it had trained for "
                f"{self._policy.progress_s:g} s, so it is given up"
            )
        return None


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)
