"""The event log: what happened, numbered without gaps, kept in a ring that readers wait on.

Types are ``family.word``, the families node, peer, swarm, train, update, merge, identity, config,
net, disk and clock; and ``gap`` alone, when the ring was overrun.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from covey.node.report import rfc3339

RING = 2000
GAP = "gap"
_TYPE = re.compile(r"[a-z_]+\.[a-z_]+")


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    time: str  # RFC 3339
    type: str
    data: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "time": self.time, "type": self.type, "data": self.data}


class EventLog:
    """Used from the node's event loop alone; ``emit`` never blocks and never fails.

    Ids start at 1 with each boot and grow by one.  A reader that asks for what comes after an id
    which the ring no longer holds, or which this boot never gave, is told by a ``gap`` event.
    """

    def __init__(self, clock: Callable[[], float] = time.time, ring: int = RING) -> None:
        assert ring > 0
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=ring)
        self._waiters: set[asyncio.Future[None]] = set()
        self.latest = 0  # the id of the newest event

    def emit(self, type: str, **data: Any) -> Event:
        """Append an event; ``data`` holds what ``json.dumps`` takes."""
        assert _TYPE.fullmatch(type), type
        self.latest += 1
        event = Event(self.latest, rfc3339(self._clock()), type, data)
        self._events.append(event)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        return event

    def since(self, after: int, types: Collection[str] = ()) -> list[Event]:
        """The events with an id over ``after``, oldest first, preceded by a gap if some are lost.

        ``types`` keeps the named ones; ``"peer.*"`` names a family.  The gap is always kept; its
        id is that of the last lost event, so that a reader may go on from it.
        """
        oldest = self._events[0].id if self._events else self.latest + 1
        found: list[Event] = []
        if after > self.latest:  # an id of an earlier boot
            found.append(self._gap(oldest - 1, missed=None))
            after = oldest - 1
        elif after + 1 < oldest:
            found.append(self._gap(oldest - 1, missed=oldest - 1 - after))
            after = oldest - 1
        start = after + 1 - oldest
        newer = (self._events[index] for index in range(start, len(self._events)))
        return found + [event for event in newer if _matches(event.type, types)]

    async def wait(
        self, after: int, types: Collection[str] = (), timeout_s: float = 60.0
    ) -> list[Event]:
        """Like ``since``, but wait until there is one; an empty list after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (found := self.since(after, types)):
                    after = self.latest
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError:
            return []
        return found

    def _gap(self, id: int, missed: int | None) -> Event:
        return Event(id, rfc3339(self._clock()), GAP, {"missed": missed})


def _matches(type: str, types: Collection[str]) -> bool:
    if not types or type in types:
        return True
    return type.partition(".")[0] + ".*" in types
