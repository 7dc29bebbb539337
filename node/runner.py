"""Runs the gossip core, a call at a time: at once on the event loop, or on a thread of its own.

What is asked for is done in that order, and always: a caller that is cancelled only does not hear
of it.  How exchanges ended is taken from the core after each call, by whoever made it.

A thread of its own keeps the loop free while a large model is worked on.  But the way there and
back costs more than a small model does, and where no processor is idle two threads that pass the
interpreter's lock to and fro take a tenth more than one.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import IntEnum
from typing import TypeVar

from covey.gossip.core import Core, Outcome
from covey.gossip.native import extension
from covey.node.faults import OperatorError
from covey.node.tasks import OnBug
from covey.protocols.errors import RemoteError

log = logging.getLogger(__name__)

T = TypeVar("T")

COMPILED = extension is not None

_SMALL = 1 << 20  # elements: a pass takes a millisecond, a way to another thread a tenth
_MODEST = 12 << 20  # elements: the outer step takes 10 ms, and 30 if others want the processor
_NUMPY = 16  # times as long does numpy take
_FEW = 2  # processors, which the learner and the loop have


class Takes(IntEnum):
    """How long a call may take."""

    MOMENT = 0  # a piece of the vector, a few numbers per block, or the outer step
    PASS = 1  # a pass or more through the vector, which is seldom needed
    LONG = 2  # seldom, and as long as a peer or a disk makes it


def apart(core: Core, processors: int | None = None, compiled: bool = COMPILED) -> Takes:
    """What takes the least of all that a thread of its own is better for."""
    size = core.replica.size * (1 if compiled else _NUMPY)
    if core.in_pieces and size <= _SMALL:
        return Takes.LONG
    few = (_processors() if processors is None else processors) <= _FEW
    return Takes.PASS if core.in_pieces and few and size <= _MODEST else Takes.MOMENT


def _processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class CoreRunner:
    """The only way to the core.  Use it on one event loop and close it.

    ``on_outcomes`` is called on the loop as exchanges end, before whoever asked goes on;
    ``on_bug`` when a call raises what is neither a peer's nor the operator's fault.
    """

    def __init__(
        self,
        core: Core,
        on_outcomes: Callable[[list[Outcome]], None],
        on_bug: OnBug,
        apart: Takes,
    ) -> None:
        """``apart``: what takes so long, or longer, is done on the thread."""
        self.core = core  # reading its small attributes is fine from the loop; calling is not
        self.closed = False
        self._on_outcomes = on_outcomes
        self._on_bug = on_bug
        self._apart = apart
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="covey-core")
        self._under_way = 0  # calls on the thread
        self._posted: deque[Callable[[], None]] = deque()  # and not yet done
        self._free = asyncio.Event()
        self._free.set()
        self._wanting = 0

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a moment without an exchange: then none should begin."""
        return self._wanting > 0

    @property
    def ahead(self) -> bool:
        """Whether what is asked for goes on while the caller does: on the thread."""
        return self._apart is Takes.MOMENT

    async def run(self, work: Callable[[], T], takes: Takes = Takes.PASS) -> T:
        """``work`` after what was asked for before."""
        return await self.submit(work, takes)

    async def run_idle(self, work: Callable[[], T], takes: Takes = Takes.PASS) -> T:
        """``work`` at a moment when no exchange is open."""

        def attempt() -> tuple[T] | None:
            return None if self.core.busy else (work(),)

        while True:
            if not self._free.is_set():
                self._wanting += 1
                try:
                    await self._free.wait()
                finally:
                    self._wanting -= 1
            # What comes after this waits behind it, and need not be turned away.
            if (done := await self.submit(attempt, takes)) is not None:
                return done[0]

    def post(self, work: Callable[[], None], takes: Takes = Takes.MOMENT) -> None:
        """``work``, without waiting for it: what the caller does next comes first, if that is not
        the core's.  Nothing after ``close``."""
        if self.closed:
            return
        if self._elsewhere(takes):
            _ = self.submit(work, takes)
            return
        self._posted.append(work)
        asyncio.get_running_loop().call_soon(self._catch_up)

    async def close(self) -> None:
        """Wait until all that was asked for is done; nothing may be asked for afterwards."""
        self._catch_up()
        self.closed = True
        await asyncio.to_thread(self._thread.shutdown)

    def submit(self, work: Callable[[], T], takes: Takes = Takes.MOMENT) -> "asyncio.Future[T]":
        """``run``, begun at once."""
        assert not self.closed, "the runner is closed"
        self._catch_up()
        return self._send(work) if self._elsewhere(takes) else self._do(work)

    def _elsewhere(self, takes: Takes) -> bool:
        """Whether it is for the thread, where it also waits behind what is done there."""
        return takes >= self._apart or self._under_way > 0

    def _catch_up(self) -> None:
        while self._posted:
            _ = self._do(self._posted.popleft())

    def _do(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """``work``, here and now."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            answer.set_result(work())
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            self._fail(answer, error)
        self._settle(self.core.outcomes(), self.core.busy)
        try:
            return answer
        finally:
            del answer  # an error in it holds this frame: what ``work`` held would stay as well

    def _send(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """``work``, on the thread."""
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

        future = self._thread.submit(call)
        self._under_way += 1
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(deliver, done))
        return answer

    def _settle(self, ended: list[Outcome], busy: bool) -> None:
        if busy:
            self._free.clear()
        else:
            self._free.set()
        try:
            if ended:
                self._on_outcomes(ended)
        except Exception as bug:  # not of whoever asks for something now
            log.exception("a bug in what is told of exchanges")
            self._on_bug(bug)

    def _answer(self, done: "Future[T]", answer: "asyncio.Future[T]") -> None:
        error = done.exception()
        if error is not None:
            self._fail(answer, error)
        elif not answer.cancelled():
            answer.set_result(done.result())

    def _fail(self, answer: "asyncio.Future[T]", error: BaseException) -> None:
        if not isinstance(error, (RemoteError, OperatorError)):
            self._on_bug(error)
        if not answer.cancelled():
            answer.set_exception(error)
            answer.exception()  # nobody need ask: after ``post`` nobody does
