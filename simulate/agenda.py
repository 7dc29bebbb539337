"""Virtual time: what is to happen, in order.  Ties are broken by who came first, so runs repeat."""

import heapq
from collections.abc import Callable
from itertools import count


class Agenda:
    """Calls at virtual times, in seconds from 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, when: float, call: Callable[[], None]) -> None:
        """``when`` is not before now."""
        assert when >= self.now, f"{when} is past at {self.now}"
        heapq.heappush(self._calls, (when, next(self._order), call))

    def run(self, until: float) -> None:
        """Everything that is due by ``until``, which is then now."""
        while self._calls and self._calls[0][0] <= until:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = until
