"""Chunks over TLS: both ways at once, bounded, as fast as they are read, and how a line ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from covey.node import line, streams
from covey.node.ledger import Lane
from covey.node.line import Line
from covey.node.rate import OFF, Rate
from covey.node.throttle import Limits
from covey.node.tunnel import Tunnel, scratch
from covey.protocols import limits
from covey.protocols.errors import TooLarge
from tests.node.members import SECRET, Member, noise
from tests.node.waiting import PATIENCE_S, until

KIB = 1 << 10


@contextlib.asynccontextmanager
async def lines(*throttles: Limits) -> AsyncIterator[tuple[Line, Line]]:
    """Both ends of a line: the client's and the server's."""
    one, two = Member(1, SECRET), Member(2, SECRET)
    caps = throttles or (Limits(), Limits())
    loop, there = asyncio.get_running_loop(), Line(caps[1])
    theirs = Tunnel(two.credentials.server_context(), scratch(), lambda lane: there, True)
    server = await loop.create_server(lambda: theirs, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    here = Line(caps[0])
    context = one.credentials.client_context(Lane.EXCHANGE, two.peer)
    ours = Tunnel(context, scratch(), lambda lane: here)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await loop.create_connection(lambda: ours, "127.0.0.1", port)
            await ours.ready()
            await theirs.ready()
            yield here, there
    finally:
        for end in (here, there):
            end.abort()
            await end.lost.wait()
        server.close()
        await server.wait_closed()


def play(scenario: Callable[[Line, Line], Awaitable[None]], *throttles: Limits) -> None:
    async def go() -> None:
        async with lines(*throttles) as (here, there):
            await scenario(here, there)

    asyncio.run(go())


async def collect(end: Line, count: int) -> list[tuple[bytes, bool]]:
    """``count`` chunks, copied before the next is read."""
    found = []
    for _ in range(count):
        chunk, last = await end.read()
        found.append((bytes(chunk), last))
    return found


def test_chunks_go_both_ways_at_once() -> None:
    sizes = [0, 1, 16 * KIB, 16 * KIB + 1, 500 * KIB, limits.CHUNK_BYTES_MAX, 3, 0]
    sent = [(noise(size, seed), seed % 3 == 0) for seed, size in enumerate(sizes)]

    async def give(end: Line) -> None:
        for chunk, last in sent:
            await end.write(chunk, last)

    async def scenario(here: Line, there: Line) -> None:
        assert here.encrypted.peer == Member(2, SECRET).peer
        found = await asyncio.gather(
            collect(here, len(sent)), collect(there, len(sent)), give(here), give(there)
        )
        assert found[0] == sent
        assert found[1] == sent
        assert here.quiet
        assert there.quiet

    play(scenario)


def test_who_does_not_read_holds_the_sender_back() -> None:
    big = bytes(limits.CHUNK_BYTES_MAX)

    async def scenario(here: Line, there: Line) -> None:
        left = 0

        async def give() -> None:
            nonlocal left
            for _ in range(64):
                await here.write(big)
                left += 1

        giving = asyncio.create_task(give())
        await until(lambda: len(there._ready) == line._AHEAD)
        for _ in range(50):  # turns in which more would have come
            await asyncio.sleep(0)
        assert len(there._ready) == line._AHEAD
        assert left < 64
        await collect(there, 64)
        await giving

    play(scenario)


def test_a_line_on_which_nothing_moves_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the midst of a chunk, too: a few bytes must not hold a slot for long."""
    monkeypatch.setattr(line, "STALL_S", 0.05)

    async def scenario(here: Line, there: Line) -> None:
        here.transport.write(line.LENGTH.pack(1000) + b"begun")
        with pytest.raises(ConnectionResetError, match="nothing moved"):
            await there.read()
        await here.lost.wait()

    play(scenario)


def test_who_sends_may_wait_long_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "STALL_S", 0.05)

    async def scenario(here: Line, there: Line) -> None:
        reading = asyncio.create_task(here.read())
        for _ in range(6):
            await here.write(b"slowly")
            await asyncio.wait([reading], timeout=0.03)  # 0.18 s in all
        await there.write(b"at last")
        assert bytes((await reading)[0]) == b"at last"

    play(scenario)


def test_memory_is_used_again() -> None:
    async def scenario(here: Line, there: Line) -> None:
        async def give() -> None:
            for seed in range(20):
                await here.write(noise(100 * KIB, seed), seed == 19)

        giving = asyncio.create_task(give())
        buffers = set()
        for seed in range(20):
            chunk, _ = await there.read()
            assert chunk == noise(100 * KIB, seed)
            buffers.add(id(chunk.obj))
        assert len(buffers) <= line._AHEAD + 2
        await giving

    play(scenario)


def test_a_line_at_rest_holds_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not at once: the next message is to find its memory there."""

    async def scenario(here: Line, there: Line) -> None:
        for rest_s in (PATIENCE_S, 0.0):
            monkeypatch.setattr(line, "REST_S", rest_s)
            await here.write(bytes(100 * KIB))
            await here.write(b"the end", last=True)
            await collect(there, 2)
            assert len(there._spare) == 1
        await until(lambda: not there._spare)

    play(scenario)


def test_chunks_that_grow_leave_no_memory_behind() -> None:
    async def scenario(here: Line, there: Line) -> None:
        async def give() -> None:
            for step in range(40):
                await here.write(bytes((20 + step) * KIB))

        giving = asyncio.create_task(give())
        for _ in range(40):
            await there.read()
            assert len(there._spare) <= line._AHEAD + 2
        await giving

    play(scenario)


def test_a_chunk_over_the_bound_is_not_received() -> None:
    async def scenario(here: Line, there: Line) -> None:
        here.transport.write(line.LENGTH.pack(limits.CHUNK_BYTES_MAX + 1) + bytes(1000))
        for _ in range(2):
            with pytest.raises(TooLarge, match="a chunk of 1048577 bytes"):
                await there.read()
        assert not there.quiet

    play(scenario)


@pytest.mark.parametrize("at", [0, 2, 4, 40_000])
def test_a_line_that_breaks_wakes_who_reads_and_who_writes(at: int) -> None:
    async def scenario(here: Line, there: Line) -> None:
        here.transport.write((line.LENGTH.pack(50_000) + bytes(50_000))[:at])
        reading = asyncio.create_task(there.read())
        await until(lambda: not at or there._filled or there._last is not None)
        here.abort()
        with pytest.raises(ConnectionError):
            await reading
        with pytest.raises(ConnectionError):
            await there.write(b"x")
        assert not there.quiet

    play(scenario)


def test_what_came_before_the_end_is_still_read() -> None:
    async def scenario(here: Line, there: Line) -> None:
        await here.write(b"goodbye", last=True)
        here.close()
        await there.lost.wait()
        assert await collect(there, 1) == [(b"goodbye", True)]
        with pytest.raises(ConnectionError):
            await there.read()

    play(scenario)


def test_a_peer_that_does_not_read_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "PATIENCE_S", 0.1)
    monkeypatch.setattr(streams, "RATE_MIN", 1 << 40)

    async def scenario(here: Line, there: Line) -> None:
        async def give() -> None:
            for _ in range(64):
                await here.write(bytes(limits.CHUNK_BYTES_MAX))

        there.transport.pause_reading()
        with pytest.raises(TimeoutError):
            await give()

    play(scenario)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_limit_holds_bulk_back_but_nothing_small(way: str) -> None:
    """At 1 Mbit/s it would take half a minute."""
    caps = Limits(), Limits()
    throttle = caps[0].up if way == "up" else caps[1].down
    throttle.limit(Rate.parse("1mbit"))

    async def scenario(here: Line, there: Line) -> None:
        async def give() -> None:
            for _ in range(4):
                await here.write(bytes(limits.CHUNK_BYTES_MAX))

        giving = asyncio.create_task(give())
        taking = asyncio.create_task(collect(there, 4))
        for _ in range(100):
            await there.write(b"small")
            assert await collect(here, 1) == [(b"small", False)]
        assert not taking.done()
        throttle.limit(OFF)
        assert len(await taking) == 4
        await giving

    play(scenario, *caps)


def test_a_lost_line_waits_for_no_limit() -> None:
    caps = Limits(), Limits()
    caps[1].down.limit(Rate.parse("1mbit"))

    async def scenario(here: Line, there: Line) -> None:
        giving = asyncio.create_task(here.write(bytes(limits.CHUNK_BYTES_MAX)))
        await until(lambda: there._owed)
        (debt,) = there._owed
        there.abort()
        await asyncio.wait([debt, giving])
        assert debt.cancelled(), "before the seconds that the bytes would have taken"
        assert not there._owed

    play(scenario, *caps)
