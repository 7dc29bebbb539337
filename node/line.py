"""One connection of the exchange lane: chunks both ways, at once, without HTTP.

All bulk data of exchanges passes ``Line.write`` and ``Line.buffer_updated``.  Chunks are received
straight into buffers that are used again, and at most ``_AHEAD`` wait to be read: then the peer
must.
"""

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Callable
from typing import Protocol

from covey.node.streams import Buffer, patience_s
from covey.node.throttle import Limits
from covey.node.tls import Handshake, PeerSocket
from covey.protocols import limits
from covey.protocols.errors import RemoteError, TooLarge

LENGTH = struct.Struct(">I")
_LAST = 1 << 31  # set in the length of a message's last chunk
_AHEAD = 3  # chunks that came and were not read yet
STALL_S = 60.0  # while somebody reads and nothing moves either way: the peer or the way is gone
_SMALL = 16 * limits.KIB  # below this a buffer of its own costs nothing
REST_S = 2.0  # after a message its memory is kept for the next: fresh pages cost the loop dearly


class Channel(Protocol):
    """Carries chunks both ways; one reads and one writes at a time.

    Reading and writing raise ConnectionError once the connection is lost or nothing has moved on it
    for STALL_S, writing TimeoutError if the peer does not read.
    """

    async def read(self) -> tuple[memoryview, bool]:
        """The next chunk, valid until the next is read, and whether it is its message's last."""

    async def write(self, chunk: Buffer, last: bool = False) -> None:
        """Send a chunk of at most CHUNK_BYTES_MAX; returns when its memory may change."""

    def abort(self) -> None:
        """Break the connection."""


class Line(asyncio.BufferedProtocol):
    """Implements Channel over TLS.  ``lost`` is set when nothing can come any more."""

    encrypted: PeerSocket
    transport: asyncio.Transport

    def __init__(
        self, throttles: Limits, opened: Callable[["Line"], object] = lambda line: None
    ) -> None:
        """``opened`` is called once it is."""
        self._throttles = throttles
        self._opened = opened
        self.lost = asyncio.Event()
        self.handshake = Handshake()  # a client's, by which it learns why it was refused
        self._fault: RemoteError | None = None
        self._head = bytearray(LENGTH.size)
        self._target = memoryview(self._head)  # what is being filled
        self._filled = 0
        self._moved = 0  # bytes, both ways
        self._last: bool | None = None  # of the chunk in ``_target``; None: that is the head
        self._ready: deque[tuple[memoryview, bool]] = deque()
        self._spare: list[bytearray] = []  # buffers for large chunks
        self._resting: asyncio.TimerHandle | None = None
        self._lent: memoryview | None = None  # what the reader has
        self._owed: set[asyncio.Task[None]] = set()  # until the limit admits what came
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()

    # --- what asyncio calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "TLS gives one that reads and writes"
        self.transport = transport
        self.encrypted = transport.get_extra_info("ssl_object")
        self._writable.set()
        self._opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()
        self._arrived.set()
        self._writable.set()
        for debt in self._owed:
            debt.cancel()
        if self._resting is not None:
            self._resting.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._target[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._throttles.down.limited and len(self._target) > _SMALL:
            self._owe(nbytes)
        self._moved += nbytes
        self._filled += nbytes
        if self._filled < len(self._target):
            return
        self._filled = 0
        if self._last is None:
            (head,) = LENGTH.unpack(self._head)
            self._last, length = bool(head & _LAST), head & ~_LAST
            if length > limits.CHUNK_BYTES_MAX:
                self._fault = TooLarge(f"a chunk of {length} bytes")
                self._arrived.set()
                self.transport.pause_reading()
                return
            self._target = self._room(length)
            if length:
                return
        self._ready.append((self._target, self._last))
        self._arrived.set()
        self._target, self._last = memoryview(self._head), None
        if len(self._ready) >= _AHEAD:
            self.transport.pause_reading()

    # --- what users call -------------------------------------------------------------------------

    async def read(self) -> tuple[memoryview, bool]:
        """As Channel says.  Raises TooLarge for a chunk over the bound."""
        self._take_back()
        while not self._ready:
            if self._fault is not None:
                raise self._fault
            if self.lost.is_set():
                raise ConnectionResetError("the connection is lost")
            await self._more()
        chunk, last = self._ready.popleft()
        if len(self._ready) == _AHEAD - 1:
            self._read_on()
        self._lent = chunk
        if last:
            self._rest_later()
        return chunk, last

    @property
    def quiet(self) -> bool:
        """Whether it is whole, and nothing has come that was not read."""
        gone = self.lost.is_set() or self.transport.is_closing()
        return not (gone or self._fault or self._ready or self._filled or self._last is not None)

    async def write(self, chunk: Buffer, last: bool = False) -> None:
        view = memoryview(chunk).cast("B")
        assert len(view) <= limits.CHUNK_BYTES_MAX, "a chunk is bounded"
        head = LENGTH.pack(len(view) | (_LAST if last else 0))
        if len(view) <= _SMALL:
            await self._send(head + view)
            return
        start, up = 0, self._throttles.up
        while start < len(view):
            piece = view[start : start + up.piece(limits.CHUNK_BYTES_MAX)]
            await up.admit(len(piece))
            await (self._send(piece) if start else self._send(head, piece))
            start += len(piece)
            # A write to a fast reader never suspends by itself.  A chunk takes two milliseconds.
            await asyncio.sleep(0)

    def abort(self) -> None:
        self.transport.abort()

    def close(self) -> None:
        """Say goodbye properly."""
        self.transport.close()

    # --- inside ----------------------------------------------------------------------------------

    async def _send(self, *pieces: Buffer) -> None:
        if not self._writable.is_set():
            async with asyncio.timeout(patience_s(2 * limits.CHUNK_BYTES_MAX)):
                await self._writable.wait()
        if self.lost.is_set() or self.transport.is_closing():
            raise ConnectionResetError("the connection is lost")
        self.transport.writelines(pieces)
        self._moved += sum(map(len, pieces))

    async def _more(self) -> None:
        """Wait until something has come, or nothing will: a slot must not be held by silence."""
        self._arrived.clear()
        while not self._arrived.is_set():
            moved = self._moved
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STALL_S):
                    await self._arrived.wait()
            if moved == self._moved and not self._arrived.is_set():
                self.abort()
                raise ConnectionResetError(f"nothing moved for {STALL_S:.0f} s")

    def _owe(self, count: int) -> None:
        """Let the peer wait until the limit admits what has come: by whole chunks it would come in
        bursts."""
        self.transport.pause_reading()
        debt = asyncio.create_task(self._throttles.down.admit(count))
        self._owed.add(debt)
        debt.add_done_callback(self._owed.discard)
        debt.add_done_callback(lambda _: self._read_on())

    def _read_on(self) -> None:
        full = len(self._ready) >= _AHEAD
        if not (self._owed or full or self._fault or self.lost.is_set()):
            self.transport.resume_reading()

    def _rest_later(self) -> None:
        """A line at rest holds little."""
        if self._resting is not None:
            self._resting.cancel()
        self._resting = asyncio.get_running_loop().call_later(REST_S, self._spare.clear)

    def _room(self, length: int) -> memoryview:
        """Memory for a chunk."""
        if length <= _SMALL:
            return memoryview(bytearray(length))
        for place, spare in enumerate(self._spare):
            if len(spare) >= length:
                return memoryview(self._spare.pop(place))[:length]
        self._spare.clear()  # else chunks that grow would leave all their buffers behind
        return memoryview(bytearray(length))

    def _take_back(self) -> None:
        if self._lent is not None and len(self._lent) > _SMALL:
            buffer = self._lent.obj
            assert isinstance(buffer, bytearray), "_room made it"
            self._spare.append(buffer)
        self._lent = None
