"""Two tunnels and the TCP connection between them, in memory: what each turn brings is chosen."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from covey.node.ledger import Lane, Ledger
from covey.node.tls import Credentials, PeerContext, handshake
from covey.node.tunnel import Tunnel, scratch
from covey.protocols.identity import Identity
from tests.node.members import OTHER_SECRET, SECRET
from tests.node.waiting import PATIENCE_S

SERVER, CLIENT = (Identity(bytes([n]) * 32) for n in (1, 2))
MIB = 1 << 20


class Wire(asyncio.Transport):
    """One end of a TCP connection; ``pump`` of the Road moves what it sends."""

    other: "Wire"

    def __init__(self, protocol: Tunnel) -> None:
        super().__init__()
        self.protocol = protocol
        self.out = bytearray()
        self.sent = 0
        self.reading, self.closing, self.lost = True, False, False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def write(self, data: Any) -> None:
        assert not self.closing
        self.out += data
        self.sent += len(data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._lose)

    def abort(self) -> None:
        self.out.clear()
        self.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return f"the {name} of TCP"

    def take(self, most: int) -> bool:
        """Receive some of what the other end sent; whether there was anything."""
        if not self.reading or self.closing:
            return False
        if not self.other.out:
            if self.other.closing:
                self.protocol.eof_received()
                self.close()
            return self.other.closing
        target = self.protocol.get_buffer(-1)
        count = min(most, len(target), len(self.other.out))
        target[:count] = self.other.out[:count]
        del self.other.out[:count]
        self.protocol.buffer_updated(count)
        return True

    def _lose(self) -> None:
        self.lost = True
        self.protocol.connection_lost(None)


class User(asyncio.BufferedProtocol):
    """Takes ``room`` bytes at a time, and pauses after ``most`` of them."""

    def __init__(self, room: int = 100_000, most: int = 1 << 30) -> None:
        self.got = bytearray()
        self.lane: Lane | None = None
        self.lost = False
        self.most = most
        self._room = memoryview(bytearray(room))
        self.transport: asyncio.Transport | None = None

    def made(self, lane: Lane) -> "User":
        self.lane = lane
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self._room[:nbytes]
        if len(self.got) >= self.most:
            assert self.transport is not None
            self.transport.pause_reading()


class Copied(asyncio.Protocol):
    """Gets bytes, as HTTP does."""

    def __init__(self) -> None:
        self.got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data


class Road:
    """A client's and a server's tunnel, and the connection between them."""

    def __init__(self, client: PeerContext, server: PeerContext) -> None:
        self.user, self.guest = User(), User()
        with handshake() as self.ours:
            self.near = Tunnel(client, scratch(), lambda lane: self.user.made(lane))
        with handshake() as self.theirs:
            self.far = Tunnel(server, scratch(), lambda lane: self.guest.made(lane), True)
        self.up, self.down = Wire(self.near), Wire(self.far)
        self.up.other, self.down.other = self.down, self.up

    def pump(self, most: int = MIB) -> None:
        """Move what is under way, ``most`` bytes at a time, until there is no more."""
        while self.up.take(most) | self.down.take(most):
            pass

    async def settle(self) -> None:
        """Pump until nobody has anything to do."""
        for _ in range(10):
            self.pump()
            await asyncio.sleep(0)

    async def shake(self) -> None:
        self.down.protocol.connection_made(self.down)
        self.up.protocol.connection_made(self.up)
        await self.settle()

    async def meet(self) -> "Road":
        await self.shake()
        async with asyncio.timeout(PATIENCE_S):
            await self.near.ready()
            await self.far.ready()
        return self


def contexts(
    ours: str | bytes = SECRET, theirs: bytes = SECRET, lane: Lane = Lane.EXCHANGE
) -> tuple[PeerContext, PeerContext]:
    """The client's and the server's; a client ``of another`` swarm trusts the server's."""
    client = Credentials(CLIENT, SECRET if isinstance(ours, str) else ours, Ledger())
    if ours == "of another":
        client._pem = Credentials(CLIENT, OTHER_SECRET, Ledger())._pem
    server = Credentials(SERVER, theirs, Ledger())
    return client.client_context(lane, SERVER.peer), server.server_context()


def play(scenario: Callable[[Road], Awaitable[None]], *pair: PeerContext) -> None:
    async def go() -> None:
        client, server = pair or contexts()
        road = Road(client, server)
        await scenario(road)
        road.up.abort()
        road.down.abort()
        await asyncio.sleep(0)

    asyncio.run(go())
