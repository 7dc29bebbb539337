"""Real nodes of a swarm on loopback for the tests of the peer port: TLS, sockets and all."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from covey.node.ledger import Lane, Ledger
from covey.node.letters import Letters
from covey.node.peer_server import PeerServer
from covey.node.streams import Buffer
from covey.node.throttle import Limits
from covey.node.tls import Credentials
from covey.node.transport import Transport
from covey.protocols import PROTOCOL
from covey.protocols.envelope import Opened, Scope, Sealer, open_sealed
from covey.protocols.errors import RemoteError
from covey.protocols.identity import Identity, PeerId
from covey.protocols.layout import Layout, Tensor
from covey.protocols.messages import Busy, ExchangeMessage, Lineage, Standing, StateOffer
from tests.node.pipes import listen, rest, say
from tests.node.waiting import PATIENCE_S
from tests.protocols.examples import Sealed, sealed

SECRET, OTHER_SECRET = b"s" * 32, b"o" * 32
SCOPE = Scope(b"w" * 32, b"l" * 32)
LAYOUT = Layout((Tensor("w", (3, 4)), Tensor("b", (4,))))
MESSAGE = Busy(b"e" * 16)


def standing(protocol: int = PROTOCOL, name: str = "node") -> Standing:
    return Standing(b"i" * 16, name, "0.1.0", protocol, 4001, (), "idle")


@dataclass
class Recorder:
    """A PeerHandler that notes what it is asked and answers by what it is given."""

    sealer: Sealer
    name: str
    answer: bytes = b""  # payload of the answer to an exchange
    limit: int = 1 << 20
    model: Layout | None = LAYOUT
    offer: StateOffer | None = None
    files: dict[bytes, Path] = field(default_factory=dict)
    fault: RemoteError | None = None  # raised by exchanged
    gate: asyncio.Event | None = None  # exchanged waits for it
    protocol: int = PROTOCOL
    probes: list[tuple[PeerId, Standing, str]] = field(default_factory=list)
    exchanges: list[tuple[Opened, bytearray]] = field(default_factory=list)
    gone: list[PeerId] = field(default_factory=list)
    rejections: list[tuple[PeerId | None, RemoteError]] = field(default_factory=list)

    def standing(self) -> Standing:
        return standing(self.protocol, self.name)

    def probed(self, peer: PeerId, standing: Standing, host: str) -> Standing:
        self.probes.append((peer, standing, host))
        return self.standing()

    async def exchanged(self, peer: PeerId, letters: Letters, message: ExchangeMessage) -> None:
        payload = await rest(letters)
        self.exchanges.append((opened(letters, peer), payload))
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        letters.post(say(letters, sealed(self.sealer, SCOPE, MESSAGE, self.answer), self.answer))

    def hung_up(self, peer: PeerId) -> None:
        self.gone.append(peer)

    def payload_limit(self) -> int:
        return self.limit

    def layout(self) -> Layout | None:
        return self.model

    async def state(self) -> StateOffer | None:
        return self.offer

    def state_file(self, digest: bytes) -> Path | None:
        return self.files.get(digest)

    def rejected(self, peer: PeerId | None, error: RemoteError) -> None:
        self.rejections.append((peer, error))

    def give(self, state: bytes, path: Path) -> StateOffer:
        """Offer ``state`` to whoever joins."""
        path.write_bytes(state)
        self.offer = StateOffer(hashlib.sha256(state).digest(), len(state), Lineage(), 7)
        self.files[self.offer.digest] = path
        return self.offer

    @property
    def reasons(self) -> list[str]:
        return [error.reason for _, error in self.rejections]


def opened(letters: Letters, peer: PeerId) -> Opened:
    """The envelope of the message of ``peer`` that was read to its end."""
    return open_sealed(letters.envelope, letters.announced, peer, SCOPE.swarm)


class Member:
    """One node: the client and the server end of its peer port."""

    def __init__(self, number: int, secret: bytes) -> None:
        self.identity = Identity(bytes([number]) * 32)
        self.peer = self.identity.peer
        self.ledger = Ledger()
        self.credentials = Credentials(self.identity, secret, self.ledger)
        self.sealer = Sealer(self.identity, b"i" * 16)
        self.handler = Recorder(self.sealer, f"node-{number}")
        self.limits = Limits()
        self.server = PeerServer(self.credentials, self.handler, limits=self.limits)
        self.transport = Transport(self.credentials, self.limits)
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def sealed(self, payload: bytes = b"", message: ExchangeMessage = MESSAGE) -> Sealed:
        return sealed(self.sealer, SCOPE, message, payload)

    async def exchange(
        self, peer: PeerId, address: str, sealed: Sealed, payload: Buffer, timeout_s: float = 20.0
    ) -> tuple[Opened, bytearray]:
        """Send a message of an exchange to ``peer`` and return what it answers."""
        async with self.transport.call(peer, address) as letters, asyncio.timeout(timeout_s):
            await say(letters, sealed, payload)
            _, answer = await listen(letters)
            return opened(letters, peer), answer

    async def connect(
        self, to: "Member", lane: Lane = Lane.CONTROL
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare TLS connection, for requests that Transport would never make."""
        context = self.credentials.client_context(lane, to.peer)
        return await asyncio.open_connection("127.0.0.1", to.port, ssl=context)

    async def say(self, to: "Member", request: bytes, lane: Lane = Lane.CONTROL) -> bytes:
        """Send bare bytes and return what comes until the other end closes."""
        reader, writer = await self.connect(to, lane)
        try:
            writer.write(request)
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def members(*secrets: bytes) -> AsyncIterator[list[Member]]:
    """A running node for each secret; nodes with the same one are of one swarm."""
    made = [Member(number, secret) for number, secret in enumerate(secrets, 1)]
    try:
        for member in made:
            member.port = await member.server.start("127.0.0.1", 0)
        yield made
    finally:
        for member in made:
            await member.transport.close()
            await member.server.close()
        # aiohttp and asyncio end their connections in callbacks of the next turns.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class Proxy:
    """A TCP proxy that counts the bytes each way and can cut the connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.up = 0  # bytes from the client
        self.down = 0
        self.cut_after: int | None = None  # bytes down, once: then both ends are reset
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        pumps = [self._up(reader, back), self._down(there, writer)]
        tasks = [asyncio.ensure_future(pump) for pump in pumps]
        self._tasks.update(tasks)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            back.transport.abort()
            writer.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.up += len(data)
            writer.write(data)
            await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.down += len(data)
            writer.write(data)
            await writer.drain()
            if self.cut_after is not None and self.down > self.cut_after:
                self.cut_after = None
                return


def noise(length: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(length)
