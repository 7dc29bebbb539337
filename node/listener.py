"""The peer port's listening socket: TLS handshakes, counted and limited before they cost.

Connections are accepted by hand, because asyncio's own servers tell nobody of a handshake that has
begun or failed.  A proven member's connection goes to who serves its lane, with a deadline for each
request.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from ipaddress import ip_address

from covey.node.door import Door
from covey.node.faults import OperatorError
from covey.node.ledger import Lane
from covey.node.tasks import OnBug, Tasks
from covey.node.tls import PeerContext, PeerSocket, handshake
from covey.node.tunnel import CLOSE_S, Tunnel, scratch
from covey.protocols.errors import Forged, RemoteError, TooLarge
from covey.protocols.identity import PeerId

HANDSHAKE_S = 5.0
HEADER_S = 10.0  # from the handshake to the end of the first request's headers
IDLE_S = 60.0  # between requests; longer than the client keeps a connection (transport.KEEP_S)
LINGER_S = CLOSE_S  # for a refused client to read why before the connection is reset
CONNECTIONS_MAX = 1024
CONNECTIONS_PER_PEER_MAX = 12

Factory = Callable[[Lane], asyncio.BaseProtocol]

_log = logging.getLogger(__name__)


class Visit:
    """One connection, dropped when it sends no whole request header in time."""

    def __init__(self, transport: asyncio.Transport, host: str) -> None:
        self.transport = transport
        self.host = host
        self._timer = asyncio.get_running_loop().call_later(HEADER_S, transport.abort)

    def busy(self) -> None:
        self._timer.cancel()

    def idle(self) -> None:
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self.transport.abort)

    def end(self) -> None:
        self._timer.cancel()
        self.transport.abort()


class Listener:
    """Accepts members on one port.  ``rejected`` counts who is none."""

    def __init__(
        self,
        context: PeerContext,
        rejected: Callable[[PeerId | None, RemoteError], None],
        on_bug: OnBug,
    ) -> None:
        self._visits: dict[PeerSocket, Visit] = {}
        self._context = context
        self._scratch = scratch()
        self._rejected = rejected
        self._door = Door()
        self._tasks = Tasks(on_bug)
        self._waiting: set[socket.socket] = set()  # accepted, and not yet greeted
        self._socket: socket.socket | None = None

    def start(self, host: str, port: int, factory: Factory) -> int:
        """Listen and return the port.  ``factory`` makes the protocol of a member's connection.

        Raises OperatorError when the place is taken or none of this machine's.
        """
        try:
            self._socket = _listen(host, port)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise OperatorError(
                f"cannot listen for peers on {host or '::'} port {port}: {why}",
                "choose another with --listen HOST:PORT (port 0 takes a free one)",
            ) from error
        self._tasks.spawn(self._accept(self._socket, factory))
        chosen: int = self._socket.getsockname()[1]
        return chosen

    async def stop(self) -> None:
        """Accept nothing more and give up the handshakes that are under way."""
        await self._tasks.close()
        for connection in self._waiting:
            connection.close()
        if self._socket is not None:
            self._socket.close()

    def drop(self) -> None:
        """Drop every connection."""
        for visit in self._visits.values():
            visit.end()
        self._visits.clear()

    def visit(self, encrypted: PeerSocket, transport: asyncio.Transport) -> Visit:
        """The record of a member's connection, begun by whoever meets it first."""
        found = self._visits.get(encrypted)
        if found is None:
            found = Visit(transport, host_of(transport.get_extra_info("peername") or ("",)))
            self._visits[encrypted] = found
        return found

    async def _accept(self, listener: socket.socket, factory: Factory) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await _readable(listener)
            try:  # not loop.sock_accept, which drops a connection when it is cancelled too late
                connection, address = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:  # out of file descriptors, or the client is gone already
                _log.warning("cannot accept a peer's connection: %s", error)
                await asyncio.sleep(0.1)
                continue
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # gone already, as the handshake will find
                # asyncio does so only for sockets made with their protocol's number.  Else the end
                # of a message waits for the peer's acknowledgement of what came before: 40 ms.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._waiting.add(connection)
            host = host_of(address)
            if self._door.admit(host, self._is_trusted(host), loop.time()):
                self._tasks.spawn(self._greet(connection, host, factory))
            else:
                self._waiting.discard(connection)
                connection.close()

    async def _greet(self, connection: socket.socket, host: str, factory: Factory) -> None:
        """Shake hands with one client; the factory's protocol takes over if it is a member."""
        self._waiting.discard(connection)
        loop = asyncio.get_running_loop()
        well: bool | None = None
        with handshake() as record:
            tunnel = Tunnel(self._context, self._scratch, factory, server_side=True)
            try:
                await loop.connect_accepted_socket(lambda: tunnel, connection)
                async with asyncio.timeout(HANDSHAKE_S):
                    await tunnel.ready()
                well = True
                self._welcome(tunnel)
            except OSError as error:  # ssl.SSLError is one
                if record.refusal is not None or isinstance(error, TimeoutError):
                    well = False  # refused, or not done after HANDSHAKE_S
                if record.refusal is not None:
                    why = getattr(record.refusal, "reason", None) or str(record.refusal)
                    why = why.lower().replace("_", " ")
                    self._rejected(None, Forged(f"{host} is not a member of this swarm ({why})"))
                _log.debug("no TLS with %s: %s", host, error)
            finally:
                self._door.ended(host, well, loop.time())

    def _welcome(self, tunnel: Tunnel) -> None:
        encrypted = tunnel.encrypted
        for old, visit in list(self._visits.items()):
            if visit.transport.is_closing():
                visit.end()
                del self._visits[old]
        self.visit(encrypted, tunnel)
        of_peer = sum(other.peer == encrypted.peer for other in self._visits)
        if of_peer > CONNECTIONS_PER_PEER_MAX or len(self._visits) > CONNECTIONS_MAX:
            self._rejected(encrypted.peer, TooLarge(f"{of_peer} connections at once"))
            tunnel.abort()

    def _is_trusted(self, host: str) -> bool:
        """Whether a member is connected from ``host``; this machine always is."""
        if any(v.host == host and not v.transport.is_closing() for v in self._visits.values()):
            return True
        return ip_address(host.partition("%")[0]).is_loopback


async def _readable(listener: socket.socket) -> None:
    """Wait until somebody connects."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listener)


def log_bug(bug: BaseException) -> None:
    """What becomes of a bug where nobody asked to be told."""
    _log.critical("a bug at the peer port", exc_info=bug)


def host_of(address: tuple[object, ...]) -> str:
    """The host of a socket address, with IPv4 written as such where IPv6 sockets carry it."""
    return str(address[0]).removeprefix("::ffff:")


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; the host ``::`` (or none) listens on IPv4 as well where that can be."""
    everywhere = host in ("", "::")
    both = everywhere and socket.has_dualstack_ipv6()
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family = socket.AF_INET6 if both else found[0][0]
    place = ("::" if both else found[0][4][0], port)
    listener = socket.create_server(place, family=family, backlog=128, dualstack_ipv6=both)
    listener.setblocking(False)
    return listener
