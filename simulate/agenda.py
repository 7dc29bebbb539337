"""Virtual time: what is to happen, in order.  Ties are broken by who came first, so runs repeat."""

import gc
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
        """Everything that is due by ``until``, which is then now.

        Without collecting garbage: calls leave hardly any cycles, and to look for them among all
        that many nodes hold would take a tenth of the time.
        """
        collects = gc.isenabled()
        gc.disable()
        try:
            self._run(until)
        finally:
            if collects:
                gc.enable()

    def _run(self, until: float) -> None:
        calls, due = self._calls, heapq.heappop
        while calls and calls[0][0] <= until:
            self.now, _, call = due(calls)
            call()
        self.now = until
