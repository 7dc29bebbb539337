"""TLS over a plain TCP connection: the handshake, then bytes from and into its user's own memory.

asyncio's TLS passes each record of 16 KiB by itself, and copies what is sent twice more.  A tunnel
takes all that has come or is to leave in one turn of the loop.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from covey.node.ledger import Lane
from covey.node.streams import SLICE_BYTES, Buffer
from covey.node.tls import RECORD_BYTES, PeerContext, PeerSocket
from covey.protocols import limits

CLOSE_S = 1.0  # for the other end to read a goodbye or a refusal, and to leave
_RECEIVE_BYTES = 512 * limits.KIB  # at once: each turn of the loop costs as much as 64 KiB do
_FEED_BYTES = 256 * limits.KIB  # of these at once to TLS, which keeps as much memory from then on


def scratch() -> memoryview:
    """Memory to receive into, for all tunnels of a loop: each is done with it within one call."""
    return memoryview(bytearray(_RECEIVE_BYTES))


class Tunnel(asyncio.BufferedProtocol, asyncio.Transport):
    """Towards TCP a protocol, and a transport for its user: what ``user`` makes for the lane.

    The user is told of the connection once the handshake has proven the other end.
    """

    _tcp: asyncio.Transport
    _user: asyncio.BaseProtocol | None = None  # None: the handshake is not done
    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        context: PeerContext,
        memory: memoryview,
        user: Callable[[Lane], asyncio.BaseProtocol],
        server_side: bool = False,
    ) -> None:
        super().__init__()
        self.encrypted: PeerSocket = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side)
        self._memory = memory
        self._make = user
        self._ended = asyncio.Event()  # the handshake
        self._fault: OSError | None = None  # by which it did
        self._paused = False
        self._deaf = False  # what comes means nothing any more: a goodbye or refusal was said

    async def ready(self) -> None:
        """Wait for the handshake.  Raises OSError; without success the connection is dropped."""
        try:
            await self._ended.wait()
            if self._fault is not None:
                raise self._fault
        except BaseException:
            self.abort()
            raise

    # --- what TCP calls --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "TCP reads and writes"
        self._tcp = transport
        self._tcp.set_write_buffer_limits(2 * SLICE_BYTES)
        self._shake()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        for start in range(0, nbytes, _FEED_BYTES):
            part = self._memory[start : min(start + _FEED_BYTES, nbytes)]
            if self._deaf:
                self.encrypted.count(received=len(part))
                continue
            self.encrypted.feed(part)
            if self._user is None:
                self._shake()
            self._deliver()

    def eof_received(self) -> None:
        self.abort()  # it does not read any more either: covey never closes one way only

    def connection_lost(self, error: Exception | None) -> None:
        self._deaf = True
        if self._timer is not None:
            self._timer.cancel()
        if self._user is not None:
            self._user.connection_lost(error)
        elif not self._ended.is_set():
            self._fail(ConnectionResetError("the connection ended in the handshake"))

    def pause_writing(self) -> None:
        if self._user is not None:
            self._user.pause_writing()

    def resume_writing(self) -> None:
        if self._user is not None:
            self._user.resume_writing()

    # --- what the user calls ---------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.encrypted if name == "ssl_object" else self._tcp.get_extra_info(name, default)

    def write(self, data: Buffer) -> None:
        self.writelines((data,))

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        """Send ``pieces``, whose memory may change afterwards, if the connection is whole."""
        if self.is_closing():
            return
        for piece in pieces:
            view = memoryview(piece)
            while view:
                self.encrypted.encrypt(view[:SLICE_BYTES])
                view = view[SLICE_BYTES:]
                if view:
                    self._flush()  # else the memory for all of it would stay with TLS
        self._flush()

    def pause_reading(self) -> None:
        """At once, also amid what has come."""
        self._paused = True
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        if not self.is_closing():
            self._paused = False
            self._tcp.resume_reading()
            asyncio.get_running_loop().call_soon(self._deliver)  # what came before the pause

    def is_closing(self) -> bool:
        return self._deaf or self._tcp.is_closing()

    def close(self) -> None:
        """Say goodbye, and leave when the other end has read it and does, or after CLOSE_S."""
        if not self.is_closing():
            self._say_goodbye()
            self._tcp.resume_reading()

    def abort(self) -> None:
        self._tcp.abort()

    # --- inside ----------------------------------------------------------------------------------

    def _shake(self) -> None:
        try:
            self.encrypted.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self.encrypted.refused:
                self._linger()
            return
        except ssl.SSLError as refusal:
            self._fail(refusal)
            self.abort()
            return
        self._flush()
        self._user = self._make(self.encrypted.lane)
        self._user.connection_made(self)
        self._ended.set()

    def _fail(self, fault: OSError) -> None:
        self._fault = fault
        self._ended.set()

    def _deliver(self) -> None:
        """Give the user what has come, as far as it takes any."""
        while self._user is not None and not (
            self.encrypted.drained or self._paused or self.is_closing()
        ):
            try:
                pass_on = self._decrypted(self._user)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError:  # an alert, or nothing that TLS would say
                self.abort()
                return
            if pass_on is None:
                self._say_goodbye()
                self._tcp.close()
                return
            try:
                pass_on()
            except BaseException:  # a bug of the user's: what comes next would mean nothing to it
                self.abort()
                raise
        self._flush()  # the answer to a change of keys

    def _decrypted(self, user: asyncio.BaseProtocol) -> Callable[[], None] | None:
        """Decrypt some of what has come; what gives it to ``user``, or None after a goodbye."""
        if isinstance(user, asyncio.BufferedProtocol):
            count = self.encrypted.decrypt(memoryview(user.get_buffer(-1)))
            return partial(user.buffer_updated, count) if count else None
        assert isinstance(user, asyncio.Protocol), "one or the other"
        data = self.encrypted.read(RECORD_BYTES)
        return partial(user.data_received, data) if data else None

    def _say_goodbye(self) -> None:
        self.encrypted.goodbye()
        self._flush()
        self._linger()

    def _linger(self) -> None:
        """Let the other end leave first: else a reset may overtake what was said last."""
        self._deaf = True
        self._timer = asyncio.get_running_loop().call_later(CLOSE_S, self.abort)

    def _flush(self) -> None:
        sealed = self.encrypted.sealed()
        if sealed and not self._tcp.is_closing():
            self._tcp.write(sealed)
