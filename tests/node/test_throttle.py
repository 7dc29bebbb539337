"""The throttle on a real loop: what waits, what does not, and what a change does to it."""

import asyncio
import time

import pytest

from covey.node.rate import OFF, Rate
from covey.node.throttle import Limits, Throttle

SLOW = Rate(125_000)


async def start(throttle: Throttle, count: int) -> "asyncio.Task[None]":
    """Somebody who asks for ``count`` bytes, and has had the time to get them."""
    task = asyncio.create_task(throttle.admit(count))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


def test_without_a_limit_nothing_waits_or_is_cut() -> None:
    async def go() -> None:
        throttle = Throttle()
        coroutine = throttle.admit(10**12)
        with pytest.raises(StopIteration):  # it ends without having been suspended
            coroutine.send(None)
        assert throttle.piece(1000) == 1000
        assert throttle.rate == OFF

    asyncio.run(go())


def test_bytes_take_their_time() -> None:
    async def go() -> None:
        throttle = Throttle(SLOW)
        began = time.monotonic()
        for _ in range(10):
            await throttle.admit(throttle.piece(10**6))
        count = 10 * throttle.piece(10**6)
        assert time.monotonic() - began >= count / 125_000 - 0.05

    asyncio.run(go())


def test_a_change_reaches_those_who_wait() -> None:
    async def go() -> None:
        throttle = Throttle(SLOW)
        waiting = [await start(throttle, 10**9) for _ in range(3)]  # hours
        assert not any(task.done() for task in waiting)
        throttle.limit(Rate(10**6))
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        throttle.limit(OFF)
        await asyncio.gather(*waiting)

    asyncio.run(go())


def test_who_gives_up_holds_up_nobody_for_ever() -> None:
    async def go() -> None:
        throttle = Throttle(SLOW)
        first, second = await start(throttle, 10_000), await start(throttle, 10)
        first.cancel()
        await second
        assert first.cancelled()

    asyncio.run(go())


def test_pieces_are_small_under_a_limit() -> None:
    throttle = Throttle(SLOW)
    assert 0 < throttle.piece(1 << 17) < 125_000 / 50
    assert throttle.piece(7) == 7


def test_both_directions() -> None:
    limits = Limits(down=SLOW)
    assert limits.caps == {"up_Bps": None, "down_Bps": 125_000.0}
    assert limits.least_bytes_per_s == 125_000
    assert limits.haul_s(125_000) == 4.0
    limits.down.limit(OFF)
    assert limits.haul_s(125_000) == 0.0
    assert limits.caps == {"up_Bps": None, "down_Bps": None}
