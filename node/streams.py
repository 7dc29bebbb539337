"""Bodies of the peer protocol: bounded before they are read, and moved without needless copies."""

import asyncio
import math
from typing import Any, Protocol

import aiohttp

from covey.node.throttle import Throttle
from covey.protocols import limits, packing
from covey.protocols.errors import Malformed, TooLarge, Unsupported
from covey.protocols.messages import Standing

Buffer = bytes | bytearray | memoryview

SLICE_BYTES = 256 * limits.KIB  # encrypted in under a millisecond, so probes get their turn
READ_BUFFER_BYTES = 256 * limits.KIB
PATIENCE_S = 10.0  # for a small body, and on top of what RATE_MIN gives a big one
RATE_MIN = 64 * limits.KIB  # bytes/s of the slowest link that is still served
SHARERS = 9  # transfers that may share a limit of ours: copies of the model, and an exchange

assert RATE_MIN < limits.LINK_BYTES_PER_S_MIN

# What a connection that dies under a body raises, on either end.
BROKEN = (ConnectionError, aiohttp.ClientPayloadError, asyncio.IncompleteReadError)


class Writer(Protocol):
    """What aiohttp gives on both ends to write a body with."""

    async def write(self, chunk: Buffer) -> None: ...


class Body(aiohttp.Payload):
    """A request body of several buffers, written in slices of the caller's own memory."""

    def __init__(self, *parts: Buffer) -> None:
        self._parts = parts
        super().__init__(parts)
        self._size = sum(memoryview(part).nbytes for part in parts)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a body of buffers is not text")

    async def write(self, writer: Any) -> None:
        await send(writer, *self._parts)

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        await send(writer, *self._parts)


def patience_s(length: int, limit: float = math.inf) -> float:
    """How long ``length`` bytes may take before the other end counts as stuck, in seconds.

    ``limit`` is our own, in bytes/s, which other transfers may share.
    """
    return PATIENCE_S + length / min(RATE_MIN, limit / SHARERS)


async def send(writer: Writer, *parts: Buffer, throttle: Throttle | None = None) -> None:
    """Write ``parts``, as fast as ``throttle`` admits, in views of at most SLICE_BYTES."""
    for part in parts:
        view = memoryview(part).cast("B")
        start = 0
        while start < len(view):
            length = SLICE_BYTES if throttle is None else throttle.piece(SLICE_BYTES)
            piece = view[start : start + length]
            if throttle is not None:
                await throttle.admit(len(piece))
            await writer.write(piece)
            start += len(piece)
            if len(piece) == SLICE_BYTES:
                await asyncio.sleep(0)  # a write to a fast reader never suspends by itself


async def fill(content: aiohttp.StreamReader, target: memoryview) -> None:
    """Fill ``target`` (bytes) from the body.

    Raises Malformed if the body is shorter or longer, and what a broken connection raises.
    """
    filled = await receive(content, target)
    if filled < len(target):
        raise Malformed(f"the body ended after {filled} of {len(target)} bytes")


async def receive(content: aiohttp.StreamReader, target: memoryview) -> int:
    """Read the body to its end into ``target`` and return its length.  Raises TooLarge."""
    filled = 0
    while True:
        chunk, _ = await content.readchunk()
        if not chunk:
            if content.at_eof():
                return filled
            continue
        if len(chunk) > len(target) - filled:
            raise TooLarge(f"the body has more than {len(target)} bytes")
        target[filled : filled + len(chunk)] = chunk
        filled += len(chunk)


async def read_small(content: aiohttp.StreamReader, declared: int | None, limit: int) -> bytes:
    """A whole body of at most ``limit`` bytes.  Raises TooLarge or Malformed.

    ``declared`` is its Content-Length; without one nothing is read.
    """
    if declared is None:
        raise Malformed("the message has no Content-Length")
    if declared > limit:
        raise TooLarge(f"a body of {declared} bytes; the most is {limit}")
    body = bytearray(declared)
    await fill(content, memoryview(body))
    return bytes(body)


def read_standing(packed: bytes, protocol: int) -> Standing:
    """Decode a Standing of protocol version ``protocol``.  Raises Malformed or Unsupported.

    The version comes first: what another one's other fields mean is not known here.
    """
    fields = packing.unpack(packed, limits.CONTROL_BYTES_MAX)
    theirs = fields.get("protocol") if isinstance(fields, dict) else None
    if type(theirs) is int and theirs != protocol:
        raise Unsupported(
            f"protocol version {theirs} was sent to a node of version {protocol}; update the older"
        )
    return packing.from_map(Standing, fields)
