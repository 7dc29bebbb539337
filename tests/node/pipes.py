"""Exchange messages without sockets: a channel in memory, and whole messages over any channel."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from covey.node.letters import Letters, Refused
from covey.node.line import LENGTH
from covey.node.streams import Buffer
from covey.node.unreachable import Kind, Unreachable, refused
from covey.protocols import packing
from covey.protocols.errors import RemoteError
from covey.protocols.messages import ExchangeMessage
from tests.protocols.examples import Sealed

CHUNK = 1 << 16


class End:
    """One end of a channel: implements line.Channel."""

    def __init__(self) -> None:
        self.other = self
        self.broken = False
        self._chunks: deque[tuple[bytes, bool]] = deque()
        self._arrived = asyncio.Event()

    @classmethod
    def pair(cls) -> "tuple[End, End]":
        one, two = cls(), cls()
        one.other, two.other = two, one
        return one, two

    async def read(self) -> tuple[memoryview, bool]:
        while not self._chunks:
            if self.broken:
                raise ConnectionResetError("the connection is lost")
            self._arrived.clear()
            await self._arrived.wait()
        chunk, last = self._chunks.popleft()
        return memoryview(chunk), last

    async def write(self, chunk: Buffer, last: bool = False) -> None:
        if self.broken:
            raise ConnectionResetError("the connection is lost")
        self.other._chunks.append((bytes(chunk), last))
        self.other._arrived.set()

    def abort(self) -> None:
        for end in (self, self.other):
            end.broken = True
            end._arrived.set()


@contextlib.asynccontextmanager
async def called(
    serve: Callable[[Letters], Awaitable[None]],
    rejected: Callable[[RemoteError], None] = lambda error: None,
) -> AsyncIterator[Letters]:
    """The caller's end of a channel whose other end is served; faults as of Lines.call."""
    near, far = End.pair()
    ours, theirs = Letters(near), Letters(far)

    async def answer() -> None:
        try:
            await serve(theirs)
        except RemoteError as error:  # as a peer's server says it
            rejected(error)
            await theirs.refuse(400, error.reason, str(error))
        except ConnectionError:
            pass
        finally:
            far.abort()

    serving = asyncio.ensure_future(answer())
    try:
        yield ours
    except BaseException as error:
        if serving.done() and (fault := serving.exception()) is not None:
            raise fault from error
        if isinstance(error, Refused):
            raise refused("there", error.body) from error
        if isinstance(error, TimeoutError):
            raise Unreachable(Kind.TIMEOUT, "no answer") from error
        if isinstance(error, OSError):
            raise Unreachable(Kind.CUT, "the connection broke") from error
        raise
    finally:
        near.abort()
        await ours.close()
        serving.cancel()
        await asyncio.wait([serving])
        await theirs.close()


def deafen(letters: Letters) -> None:
    """What is said from now on goes nowhere."""
    assert isinstance(letters.channel, End)
    letters.channel.other, _ = End.pair()


async def say(letters: Letters, sealed: Sealed, payload: Buffer = b"") -> None:
    """Send a whole message."""
    await letters.channel.write(sealed.announcement)
    view = memoryview(payload).cast("B")
    for start in range(0, len(view), CHUNK):
        await letters.channel.write(view[start : start + CHUNK])
    await letters.channel.write(sealed.envelope, True)


async def rest(letters: Letters) -> bytearray:
    """The payload that follows an announcement."""
    payload = bytearray()
    while (part := await letters.part()) is not None:
        payload += part
    return payload


async def listen(letters: Letters) -> tuple[ExchangeMessage, bytearray]:
    """Receive a whole message."""
    return await letters.announcement(), await rest(letters)


def chunk(data: bytes, last: bool = False) -> bytes:
    """As a line frames it."""
    return LENGTH.pack(len(data) | (1 << 31 if last else 0)) + data


def framed(sealed: Sealed, payload: bytes = b"") -> bytes:
    """A whole message as bytes on a line, its payload in one chunk."""
    return chunk(sealed.announcement) + chunk(payload) + chunk(sealed.envelope, last=True)


def refusal(answer: bytes) -> tuple[int, str]:
    """Status and detail of the refusal that ``answer`` is."""
    (head,) = LENGTH.unpack_from(answer)
    assert head >> 31, "a refusal is the first and the last chunk"
    assert head & 0x7FFFFFFF == len(answer) - LENGTH.size
    fields = packing.unpack(answer[LENGTH.size :], 1 << 16)
    return fields["status"], fields["detail"]
