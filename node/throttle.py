"""Holds this node's bulk bytes to the limits that its operator set; small messages never wait."""

import asyncio
import math
import time
from contextlib import suppress

from covey.node.bucket import Bucket
from covey.node.rate import OFF, Rate


class Throttle:
    """One direction: all transfers together, by turns.  For one event loop."""

    def __init__(self, rate: Rate = OFF) -> None:
        self._bucket = Bucket(rate.bytes_per_s, time.monotonic())
        self._changed = asyncio.Event()

    @property
    def rate(self) -> Rate:
        return Rate(self._bucket.rate)

    @property
    def bytes_per_s(self) -> float:
        return self._bucket.rate

    @property
    def limited(self) -> bool:
        return self._bucket.rate < math.inf

    def limit(self, rate: Rate) -> None:
        """Another rate from now on, also for what is waiting."""
        self._bucket.limit(rate.bytes_per_s, time.monotonic())
        self._changed.set()
        self._changed = asyncio.Event()

    def piece(self, most: int) -> int:
        """The bytes to pass at a time: ``most``, or fewer so that others get their turn."""
        return max(1, min(most, int(self._bucket.piece))) if self.limited else most

    async def admit(self, count: int) -> None:
        """Wait until ``count`` bytes may pass.  Without a limit they may at once."""
        if not self.limited:
            return
        place = self._bucket.join(count, time.monotonic())
        while (wait_s := self._bucket.wait_s(place, time.monotonic())) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()


class Limits:
    """Both directions of a node."""

    def __init__(self, up: Rate = OFF, down: Rate = OFF) -> None:
        self.up, self.down = Throttle(up), Throttle(down)

    @property
    def least_bytes_per_s(self) -> float:
        """The stricter of the two; infinite without any."""
        return min(self.up.bytes_per_s, self.down.bytes_per_s)

    def haul_s(self, count: int) -> float:
        """Seconds that an exchange of a model of ``count`` values may take longer; 0 unlimited.

        Four bytes a value: float32, or 4-bit codes both ways while a copy of the model passes too.
        """
        return 4 * count / self.least_bytes_per_s

    @property
    def caps(self) -> dict[str, float | None]:
        """As status and ``/api/v1/limits`` tell them, in bytes/s; None: no limit."""
        return {"up_Bps": self.up.rate.json, "down_Bps": self.down.rate.json}
