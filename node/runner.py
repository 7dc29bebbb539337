"""Runs the gossip core on one worker thread, a call at a time, off the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from covey.gossip.core import Core, Outcome

T = TypeVar("T")


class CoreRunner:
    """The only way to the core.  ``on_outcomes`` is called on the loop as exchanges end."""

    def __init__(self, core: Core, on_outcomes: Callable[[list[Outcome]], None]) -> None:
        self.core = core  # reading its small attributes is fine from the loop; calling is not
        self._on_outcomes = on_outcomes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="covey-core")
        self._free = asyncio.Event()
        self._free.set()

    async def run(self, work: Callable[[], T]) -> T:
        """``work`` on the worker thread, after what was asked for before."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work)
        finally:
            self._settle()

    async def run_idle(self, work: Callable[[], T]) -> T:
        """``work`` on the worker thread at a moment when no exchange is open."""

        def attempt() -> tuple[bool, T | None]:
            return (False, None) if self.core.busy else (True, work())

        while True:
            await self._free.wait()
            done, result = await self.run(attempt)
            if done:
                return result  # type: ignore[return-value]  # done: it is work's own result

    def post(self, work: Callable[[], None]) -> None:
        """``work`` on the worker thread, without waiting for it."""
        self._thread.submit(work)

    def close(self) -> None:
        """Waits for the call in hand; nothing runs afterwards."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _settle(self) -> None:
        outcomes = self.core.outcomes()
        if self.core.busy:
            self._free.clear()
        else:
            self._free.set()
        if outcomes:
            self._on_outcomes(outcomes)
