"""Whom to probe when, and how long to wait: the earliest due first, at a bounded rate.

A probe and its answer tell each side how the other is, so of a pair one side at a time probes: who
was probed is due next, a little before the one who did.  Should it fail to, the other goes on.

Every peer has its own due time, jittered so that nodes started together drift apart.  If more are
due than the rate allows, all of them wait alike, so nobody is starved: with n peers of periods p_i
and a rate r, each is probed at the latest after 1.1 p_i + n / r.
"""

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from operator import attrgetter
from random import Random

from covey.protocols.identity import PeerId

_JITTER = 0.1  # of a period
_SOONER = 0.85  # of an interval, after which who was probed probes: for all jitter before the other
_DOUBLINGS_MAX = 8


@dataclass(slots=True)
class Target:
    """One peer's probes: the next, the one without result yet, what they measured and missed."""

    peer: PeerId
    due: float
    began_at: float | None = None
    probed_at: float = -math.inf  # when the last probe began
    rtt_s: float | None = None  # smoothed
    spread_s: float = 0.0
    unanswered: int = 0  # probes in a row

    def answered(self, rtt_s: float) -> None:
        """Smooth the time and its spread as TCP does (RFC 6298, section 2)."""
        self.began_at, self.unanswered = None, 0
        if self.rtt_s is None:
            self.rtt_s, self.spread_s = rtt_s, rtt_s / 2
            return
        self.spread_s += (abs(rtt_s - self.rtt_s) - self.spread_s) / 4
        self.rtt_s += (rtt_s - self.rtt_s) / 8

    def timeout_s(self, least_s: float, most_s: float) -> float:
        """How long to wait for an answer, as TCP's retransmission timeout.

        It doubles with each probe unanswered: an answer after the timeout is never seen, so without
        that the times of a slow peer would never be learned.
        """
        if self.rtt_s is None:
            return most_s
        measured = max(least_s, self.rtt_s + 4 * self.spread_s)
        return min(most_s, measured * 2.0 ** min(self.unanswered, _DOUBLINGS_MAX))


class Pacer:
    """Chooses whom to probe now, at most ``per_s`` in any second."""

    def __init__(self, per_s: int, given_up_s: float, rng: Random) -> None:
        """A probe without result is given up after ``given_up_s``, far beyond any timeout: the
        caller owes a result, and a lost one must not hide a peer for good."""
        self._given_up_s = given_up_s
        self._rng = rng
        self._began: deque[float] = deque([-math.inf] * per_s, maxlen=per_s)

    def take(self, targets: Collection[Target], now: float) -> list[Target]:
        """Those whose probe begins now.  The caller then sets when each is due again."""
        due = sorted((t for t in targets if self._free_at(t) <= now), key=attrgetter("due"))
        chosen = due[: sum(began + 1.0 <= now for began in self._began)]
        for target in chosen:
            target.began_at = target.probed_at = now
            self._began.append(now)
        return chosen

    def next_at(self, targets: Collection[Target]) -> float:
        """When ``take`` returns somebody next; inf if there are no targets."""
        due = min(map(self._free_at, targets), default=math.inf)
        return max(due, self._began[0] + 1.0)

    def called(self, target: Target, now: float, interval_s: float) -> None:
        """``target`` has probed us: our probe of it may wait, but for two intervals at most, so
        that one whose probes come through while its answers do not is still asked."""
        waits_until = now + self.jittered(_SOONER * interval_s)
        target.due = max(target.due, min(waits_until, target.probed_at + 2 * interval_s))

    def jittered(self, period_s: float) -> float:
        return period_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)

    def _free_at(self, target: Target) -> float:
        if target.began_at is None:
            return target.due
        return max(target.due, target.began_at + self._given_up_s)
