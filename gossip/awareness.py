"""How well this node itself keeps up, and how patient it must therefore be with others.

Lifeguard's local health (Dadgar, Phillips, Currey 2018; memberlist's awareness.go), measured where
it hurts: the lag of the node's own event loop.  While the loop stalls nobody is heard, so that
time is no silence: limits run in *awake* time.  Repeated lag means that more comes late than the
stalls themselves explain, so it also stretches limits, until it is over.
"""

import math


class Awareness:
    """Awake time and the stretch.  Times in seconds, ``now`` in the caller's monotonic clock."""

    def __init__(self, unit_s: float, least_s: float, memory_s: float, stretch_max: float) -> None:
        """Each ``unit_s`` of lag within ``memory_s`` adds 1 to the stretch; less than ``least_s``
        at a time is no lag at all."""
        assert min(unit_s, least_s, memory_s) > 0
        assert stretch_max >= 1
        self._unit_s = unit_s
        self._least_s = least_s
        self._memory_s = memory_s
        self._stretch_max = stretch_max
        self._noted_at = -math.inf
        self._lost_s = 0.0
        self._lag = 0.0

    def note(self, now: float, lag_s: float) -> None:
        """The caller's loop came ``lag_s`` late to ``now``."""
        elapsed = now - self._noted_at
        self._noted_at = now
        self._lag *= math.exp(-elapsed / self._memory_s)
        lag_s = min(lag_s, elapsed)  # more would make awake time run backwards
        if lag_s >= self._least_s:
            self._lost_s += lag_s
            self._lag = min(self._stretch_max - 1.0, self._lag + lag_s / self._unit_s)

    @property
    def stretch(self) -> float:
        """By how much to stretch a limit just now: 1 in health."""
        return 1.0 + self._lag

    def awake(self, now: float) -> float:
        """``now`` without the time lost to stalls so far."""
        return now - self._lost_s

    def clock(self, awake: float) -> float:
        """When it will be ``awake`` in awake time, if no stall comes between."""
        return awake + self._lost_s
