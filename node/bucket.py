"""A token bucket (Turner 1986) in which bytes stand in line, so that nobody is passed over.

Who wants to send joins the line and gets a place in it, counted in bytes since the beginning.
``_credit`` is the last place that may pass; it moves on with the rate, and ahead of the line's end
by no more than the burst.  So in any time t at most rate * t + burst bytes pass, or one piece more
than rate * t if a piece is larger than the burst.
"""

import math

BURST_S = 0.05  # how much of a pause may be made up for; a probe waits behind it at most
_PIECES = 4  # that a burst is cut into: transfers take turns by pieces


class Bucket:
    """The line of one direction.  ``rate``: bytes/s, infinite for none.  Times in seconds."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._joined = 0
        self._credit = self.burst if rate < math.inf else 0.0
        self._at = now

    @property
    def rate(self) -> float:
        return self._rate

    @property
    def burst(self) -> float:
        """Bytes that may pass at once after a pause."""
        return self._rate * BURST_S

    @property
    def piece(self) -> float:
        """The bytes that who has much to send should join with at a time."""
        return self.burst / _PIECES

    def join(self, count: int, now: float) -> int:
        """The place of ``count`` more bytes at the end of the line."""
        self._go_on(now)
        self._joined += count
        return self._joined

    def wait_s(self, place: int, now: float) -> float:
        """How long until ``place`` may pass; 0 if it may now."""
        self._go_on(now)
        left = place - self._credit
        return left / self._rate if left >= 1 else 0.0  # less than a byte is rounding

    def limit(self, rate: float, now: float) -> None:
        """Another rate from now on, for those in line too."""
        self._go_on(now)
        self._rate = rate
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        if self._rate == math.inf:
            self._credit = self._joined
        else:
            credit = self._credit + self._rate * max(0.0, now - self._at)
            self._credit = min(credit, self._joined + self.burst)
        self._at = max(self._at, now)
