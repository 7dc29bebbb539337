"""Background tasks whose bugs end the node: half dead it would look alive and learn nothing."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from covey.protocols.errors import RemoteError

OnBug = Callable[[BaseException], None]


class Tasks:
    """Tasks that nobody awaits.  ``on_bug`` gets what one of them raised."""

    def __init__(self, on_bug: OnBug) -> None:
        self._on_bug = on_bug
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run ``work`` in the background; None after ``close``, when nothing begins any more."""
        if self._closed:
            work.close()
            return None
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def cancel(self) -> None:
        """Let all that run now end; new ones may follow."""
        for task in self._running:
            task.cancel()

    async def close(self) -> None:
        """Cancel all and wait until they have ended."""
        self._closed = True
        while self._running:
            self.cancel()
            await asyncio.wait(self._running)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """For what somebody else runs and would only log: a bug in the block ends the node too."""
        try:
            yield
        except (RemoteError, asyncio.CancelledError):
            raise
        except Exception as bug:
            self._on_bug(bug)
            raise

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._on_bug(bug)
