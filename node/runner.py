"""Runs the gossip core a call at a time: on one worker thread, or what is brief on the event loop.

What is asked for is done in that order, and always: a caller that is cancelled only does not hear
of it.  How exchanges ended is taken from the core after each call, by the thread that made it.
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
        self._under_way = 0  # calls that were asked for and not heard of

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

    def submit(self, work: Callable[[], T], brief: bool = False) -> "asyncio.Future[T]":
        """``run``, begun at once.

        What is ``brief``, a millisecond or two, is done before this returns if nothing else is
        under way: to wake a thread and be woken by it costs more than its help is worth.
        """
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
            self._under_way -= 1
            self._settle(ended, busy)
            self._answer(done, answer)

        self._under_way += 1
        if brief and self._under_way == 1:
            deliver(_made(call))
        else:
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


def _made(call: Callable[[], T]) -> "Future[T]":
    """What the worker would have told of ``call``."""
    done: Future[T] = Future()
    try:
        done.set_result(call())
    except Exception as error:
        done.set_exception(error)
    return done
