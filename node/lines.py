"""Lines to peers for exchanges: dialled when needed, and kept a while for the next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from covey.node.addresses import parse_address
from covey.node.ledger import Lane
from covey.node.letters import Letters, Refused
from covey.node.line import Line
from covey.node.throttle import Limits
from covey.node.tls import Credentials, PeerContext, handshake
from covey.node.tunnel import Tunnel, scratch
from covey.node.unreachable import Kind, Unreachable, failed, not_dialled, refused
from covey.protocols.identity import PeerId

KEEP_S = 50.0  # an unused connection; shorter than the server's listener.IDLE_S
CONNECT_S = 4.0  # TCP and TLS; the server gives a handshake 5 s


class Lines:
    """One idle line per peer at most.  Use it on one event loop and close it."""

    def __init__(self, credentials: Credentials, limits: Limits) -> None:
        self._credentials = credentials
        self._limits = limits
        self._scratch = scratch()
        self._contexts: dict[PeerId, PeerContext] = {}
        self._idle: dict[PeerId, tuple[Line, asyncio.TimerHandle]] = {}

    @asynccontextmanager
    async def call(self, peer: PeerId, address: str) -> AsyncIterator[Letters]:
        """A line to ``peer``, kept afterwards if all went well.

        Raises Unreachable, also for what breaks in the block: the connection, or its time.
        """
        line = self._take(peer)
        fresh = line is None
        if line is None:
            line = await self._dial(peer, address)
        letters = Letters(line)
        try:
            yield letters
        except BaseException as error:
            line.abort()
            if isinstance(error, Refused):
                raise refused(address, error.body) from error
            if isinstance(error, OSError):
                raise failed(address, error, line.handshake.refusal, fresh) from error
            raise
        finally:
            await letters.close()
        self._keep(peer, line)

    def drop(self, peer: PeerId) -> None:
        """Close the idle line to ``peer``; the next call dials."""
        self._contexts.pop(peer, None)
        line = self._take(peer)
        if line is not None:
            line.abort()

    def close(self) -> None:
        for peer in list(self._idle):
            self.drop(peer)

    async def _dial(self, peer: PeerId, address: str) -> Line:
        try:
            host, port = parse_address(address)
        except ValueError as error:
            raise Unreachable(Kind.UNKNOWN_HOST, str(error)) from error
        context = self._contexts.get(peer)
        if context is None:
            context = self._credentials.client_context(Lane.EXCHANGE, peer)
            self._contexts[peer] = context
        loop, line = asyncio.get_running_loop(), Line(self._limits)
        with handshake() as line.handshake:
            tunnel = Tunnel(context, self._scratch, lambda lane: line)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await loop.create_connection(lambda: tunnel, host, port)
                    await tunnel.ready()
            except OSError as error:
                raise not_dialled(address, error, line.handshake.refusal) from error
        return line

    def _take(self, peer: PeerId) -> Line | None:
        line, timer = self._idle.pop(peer, (None, None))
        if timer is not None:
            timer.cancel()
        if line is not None and not line.quiet:
            line.abort()
            return None
        return line

    def _keep(self, peer: PeerId, line: Line) -> None:
        if peer in self._idle or not line.quiet:
            line.close()
            return
        timer = asyncio.get_running_loop().call_later(KEEP_S, self.drop, peer)
        self._idle[peer] = line, timer
