"""Runs the gossip core on one worker thread, a call at a time, off the event loop.

What is asked for is done in that order, and always: a caller that is cancelled only does not hear
of it.  How exchanges ended is taken from the core by the worker itself, after each call.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="covey-core")
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
        await asyncio.to_thread(self._thread.shutdown)

    def submit(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """``run``, begun at once."""
        assert not self.closed, "the runner is closed"
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        ended: list[Outcome] = []
        busy = False

        def call() -> T:
            nonlocal busy
            try:
                return work()
            finally:
                ended.extend(self.core.outcomes())
                busy = self.core.busy

        def deliver(done: Future[T]) -> None:
            self._settle(ended, busy)
            self._answer(done, answer)

        future = self._thread.submit(call)
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(deliver, done))
        return answer

    def _settle(self, ended: list[Outcome], busy: bool) -> None:
        if busy:
            self._free.clear()
        else:
            self._free.set()
        if ended:
            self._on_outcomes(ended)

    def _answer(self, done: "Future[T]", answer: "asyncio.Future[T]") -> None:
        error = done.exception()
        if error is not None and not isinstance(error, (RemoteError, OperatorError)):
            self._on_bug(error)
        if answer.cancelled():
            return
        if error is None:
            answer.set_result(done.result())
        else:
            answer.set_exception(error)
            answer.exception()  # nobody need ask: after ``post`` nobody does
