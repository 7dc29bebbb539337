"""Runs the gossip core on one worker thread, a call at a time, off the event loop.

What is asked for is done in that order, and always, until the interpreter ends: a caller that is
cancelled only does not hear of it.  How exchanges ended is taken from the core by the worker, after
each call.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from covey.gossip.core import Core, Outcome
from covey.node.faults import OperatorError
from covey.node.tasks import OnBug
from covey.protocols.errors import RemoteError

T = TypeVar("T")


class CoreRunner:
    """The only way to the core.  Use it on one event loop and close it.

    ``on_outcomes`` is called on the loop as exchanges end, before whoever asked goes on;
    ``on_bug`` when a call raises what is neither a peer's nor the operator's fault.
    """

    def __init__(
        self, core: Core, on_outcomes: Callable[[list[Outcome]], None], on_bug: OnBug
    ) -> None:
        self.core = core  # reading its small attributes is fine from the loop; calling is not
        self.closed = False
        self._on_outcomes = on_outcomes
        self._on_bug = on_bug
        # A ThreadPoolExecutor with its locks takes twice the time to pass a call on.
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="covey-core", daemon=True)
        self._thread.start()
        self._free = asyncio.Event()
        self._free.set()
        self._wanting = 0

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a moment without an exchange: then none should begin."""
        return self._wanting > 0

    async def run(self, work: Callable[[], T]) -> T:
        """``work`` on the worker thread, after what was asked for before."""
        return await self.submit(work)

    async def run_idle(self, work: Callable[[], T]) -> T:
        """``work`` on the worker thread at a moment when no exchange is open."""

        def attempt() -> tuple[T] | None:
            return None if self.core.busy else (work(),)

        while True:
            if not self._free.is_set():
                self._wanting += 1
                try:
                    await self._free.wait()
                finally:
                    self._wanting -= 1
            # What comes after this waits behind it on the worker, and need not be turned away.
            if (done := await self.submit(attempt)) is not None:
                return done[0]

    def post(self, work: Callable[[], None]) -> None:
        """``work`` on the worker thread, without waiting for it; nothing after ``close``."""
        if not self.closed:
            _ = self.submit(work)

    async def close(self) -> None:
        """Wait until all that was asked for is done; nothing may be asked for afterwards."""
        self.closed = True
        self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    def submit(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """``run``, begun at once."""
        assert not self.closed, "the runner is closed"
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._calls.put(partial(self._call, work, loop, answer))
        return answer

    # --- on the worker ---------------------------------------------------------------------------

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # while it waits it must not keep what it was called with

    def _call(
        self,
        work: Callable[[], T],
        loop: asyncio.AbstractEventLoop,
        answer: "asyncio.Future[T]",
    ) -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        told = partial(self._deliver, answer, result, error, self.core.outcomes(), self.core.busy)
        with suppress(RuntimeError):  # the loop is closed: nobody hears
            loop.call_soon_threadsafe(told)
        del answer, result, error, told  # an error knows this frame, which must not know it

    # --- on the loop -----------------------------------------------------------------------------

    def _deliver(
        self,
        answer: "asyncio.Future[Any]",
        result: object,
        error: BaseException | None,
        ended: list[Outcome],
        busy: bool,
    ) -> None:
        if busy:
            self._free.clear()
        else:
            self._free.set()
        if ended:
            self._on_outcomes(ended)
        if error is not None and not isinstance(error, (RemoteError, OperatorError)):
            self._on_bug(error)
        if answer.cancelled():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)
            answer.exception()  # nobody need ask: after ``post`` nobody does
