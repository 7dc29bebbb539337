"""Bodies: bounded before they are read, and never copied on the way out."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol

from covey.node import streams
from covey.node.rate import Rate
from covey.node.streams import Buffer
from covey.node.throttle import Throttle
from covey.protocols import packing
from covey.protocols.errors import Malformed, TooLarge, Unsupported
from tests.node.members import noise, standing

T = TypeVar("T")


class Sink:
    """Takes a body as aiohttp's writer does."""

    def __init__(self) -> None:
        self.chunks: list[Buffer] = []

    async def write(self, chunk: Buffer) -> None:
        self.chunks.append(chunk)


def reading(data: bytes, read: Callable[[aiohttp.StreamReader], Awaitable[T]], step: int = 7) -> T:
    """What ``read`` makes of a body that comes in pieces of ``step`` bytes."""

    async def go() -> T:
        loop = asyncio.get_running_loop()
        content = aiohttp.StreamReader(BaseProtocol(loop), 2**16, loop=loop)
        for start in range(0, len(data), step):
            content.feed_data(data[start : start + step])
        content.feed_eof()
        return await read(content)

    return asyncio.run(go())


def test_a_body_is_sent_in_views_of_the_callers_memory() -> None:
    payload = bytearray(noise(3 * streams.SLICE_BYTES + 5))
    sink = Sink()
    asyncio.run(streams.Body(b"header", payload).write(sink))
    assert b"".join(bytes(chunk) for chunk in sink.chunks) == b"header" + payload
    views = [chunk for chunk in sink.chunks[1:] if isinstance(chunk, memoryview)]
    assert [len(view) for view in views] == [streams.SLICE_BYTES] * 3 + [5]
    assert all(view.obj is payload for view in views)
    assert streams.Body(b"header", payload).size == 6 + len(payload)


def test_a_view_of_wider_items_is_sent_as_bytes() -> None:
    sink = Sink()
    numbers: Any = memoryview(bytes(range(16))).cast("f")
    body = streams.Body(numbers)
    asyncio.run(body.write_with_length(sink, None))
    assert body.size == 16
    assert b"".join(bytes(chunk) for chunk in sink.chunks) == bytes(range(16))
    with pytest.raises(TypeError):
        body.decode()


@pytest.mark.parametrize("step", [1, 3, 100])
def test_fill_reads_exactly(step: int) -> None:
    target = bytearray(20)
    reading(noise(20), lambda content: streams.fill(content, memoryview(target)), step)
    assert target == noise(20)


def test_too_short_and_too_long_bodies() -> None:
    room = memoryview(bytearray(20))
    with pytest.raises(Malformed, match="after 19 of 20"):
        reading(noise(19), lambda content: streams.fill(content, room))
    with pytest.raises(TooLarge, match="more than 20"):
        reading(noise(21), lambda content: streams.fill(content, room))


def test_a_small_body_is_refused_by_its_declared_length() -> None:
    def small(declared: int | None) -> bytes:
        return reading(b"abc", lambda content: streams.read_small(content, declared, 100))

    assert small(3) == b"abc"
    with pytest.raises(Malformed, match="no Content-Length"):
        small(None)
    with pytest.raises(TooLarge, match="101 bytes; the most is 100"):
        small(101)


def test_another_protocol_version_is_named_before_its_fields_are_read() -> None:
    ours = packing.to_map(standing(protocol=1))
    assert streams.read_standing(packing.pack(ours), 1) == standing(protocol=1)
    strange = packing.pack({"protocol": 7, "step": "a word"})
    with pytest.raises(Unsupported, match="version 7 was sent to a node of version 1"):
        streams.read_standing(strange, 1)
    for damaged in (
        b"",
        b"\xc1",
        packing.pack([1]),
        packing.pack({}),
        packing.pack({**ours, "port": -1}),
    ):
        with pytest.raises(Malformed):
            streams.read_standing(damaged, 1)


def test_patience_grows_with_the_length() -> None:
    assert streams.patience_s(0) == streams.PATIENCE_S
    assert streams.patience_s(streams.RATE_MIN * 50) == streams.PATIENCE_S + 50
    assert streams.patience_s(streams.RATE_MIN * 50, 1e9) == streams.PATIENCE_S + 50
    ours = streams.patience_s(10**6, 125_000) - streams.PATIENCE_S
    assert ours == streams.SHARERS * 8, "our own limit, when others share it, is nobody's fault"


def test_a_limited_body_is_cut_smaller() -> None:
    sink, payload = Sink(), noise(40_000)
    throttle = Throttle(Rate.parse("8mbit"))  # 12 500 bytes in a burst
    asyncio.run(streams.send(sink, payload, throttle=throttle))
    assert b"".join(bytes(chunk) for chunk in sink.chunks) == payload
    assert {len(chunk) for chunk in sink.chunks[:-1]} == {throttle.piece(1 << 17)} == {12_500}
