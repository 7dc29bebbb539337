"""What peers may ask over the peer port: the requests that protocols/__init__.py lists, bounded.

A peer's fault (RemoteError) is caught in one place, ``_guard``, which counts and answers it.
"""

import asyncio
import contextlib
import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

from aiohttp import web

from covey.node import streams
from covey.node.ledger import Lane
from covey.node.letters import Letters, Refused
from covey.node.line import Line
from covey.node.listener import IDLE_S, LINGER_S, Listener, Visit, host_of, log_bug
from covey.node.tasks import OnBug, Tasks
from covey.node.throttle import Limits, Throttle
from covey.node.tls import Credentials, PeerSocket
from covey.protocols import PROTOCOL, limits, packing
from covey.protocols.errors import Forged, Malformed, RemoteError, Stale, TooLarge, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import ExchangeMessage, Standing, StateOffer

TRANSFERS_MAX = 8  # of one kind at once
TRANSFERS_PER_PEER_MAX = 2
READ_BYTES = limits.MIB  # of a state file at once

_STATUS: dict[type[RemoteError], int] = {
    Malformed: 400,
    Forged: 403,
    Stale: 409,
    TooLarge: 413,
    Unsupported: 426,
}


class PeerHandler(Protocol):
    """What the node does with what peers ask; the server has proven who they are."""

    def standing(self) -> Standing: ...

    def probed(self, peer: PeerId, standing: Standing, host: str) -> Standing:
        """``peer``, whose connection comes from ``host``, said ``standing``; answer with ours."""

    async def exchanged(self, peer: PeerId, letters: Letters, message: ExchangeMessage) -> None:
        """Take a message of an exchange, whose payload is yet to be read, and post the answer."""

    def hung_up(self, peer: PeerId) -> None:
        """The line of the last such message is gone."""

    def payload_limit(self) -> int:
        """The most bytes that an exchange's payload may have now; 0 without a model."""

    def layout(self) -> Layout | None: ...

    async def state(self) -> StateOffer | None:
        """A copy of the vector that the joiner may fetch, or None when there is nothing to give."""

    def state_file(self, digest: bytes) -> Path | None:
        """The file of an offer made before; it must not change while it is named so."""

    def rejected(self, peer: PeerId | None, error: RemoteError) -> None:
        """Count ``error``; ``peer`` is None before the handshake has proven one."""


class PeerServer:
    """Serves peers on one port until closed.  ``on_bug`` gets what ends it before that."""

    def __init__(
        self,
        credentials: Credentials,
        handler: PeerHandler,
        on_bug: OnBug = log_bug,
        limits: Limits | None = None,
    ) -> None:
        self._handler = handler
        self._limits = limits or Limits()
        self._exchanges = _Slots()
        self._lines: dict[PeerId, Line] = {}  # of each peer's last exchange message
        self._tasks = Tasks(on_bug)
        self._transfers = _Slots()
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            max_line_size=4096,
            max_field_size=4096,
            read_bufsize=streams.READ_BUFFER_BYTES,
            shutdown_timeout=1.0,
        )
        self._listener = Listener(credentials.server_context(), handler.rejected, on_bug)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        application.add_routes(
            [
                web.get("/p/hello", self._hello, allow_head=False),
                web.post("/p/probe", self._probe),
                web.get("/p/layout", self._layout, allow_head=False),
                web.post("/p/sample", self._sample),
                web.get("/p/state", self._state, allow_head=False),
                web.get("/p/state/{digest:[0-9a-f]{64}}", self._state_bytes, allow_head=False),
            ]
        )
        return application

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port (``port`` 0 takes a free one).  Raises OperatorError."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None, "made by setup"

        def protocol(lane: Lane) -> asyncio.BaseProtocol:
            return self._lined() if lane is Lane.EXCHANGE else server()

        return self._listener.start(host, port, protocol)

    async def close(self) -> None:
        """Stop listening, give running requests a second, then drop every connection."""
        await self._listener.stop()
        await self._tasks.close()
        await self._runner.cleanup()
        self._listener.drop()

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        transport = request.transport
        if transport is None:  # lost before we came to it: nobody's fault, and nothing arrives
            return web.Response(status=400)
        encrypted = _socket(request)
        visit = self._listener.visit(encrypted, transport)
        visit.busy()
        try:
            if "Content-Encoding" in request.headers:
                raise Unsupported("a message has no Content-Encoding")
            return await handler(request)
        except RemoteError as error:
            self._handler.rejected(encrypted.peer, error)
            return _refusal(_STATUS[type(error)], error.reason, str(error))
        except streams.BROKEN:
            # Without its end it was cut off; else our answer was lost, which is nobody's fault.
            if not request.content.is_eof():
                self._handler.rejected(encrypted.peer, Malformed("the message was cut off"))
            transport.abort()
            return web.Response(status=400)  # never arrives; aiohttp logs what is raised as a bug
        finally:
            visit.idle()

    async def _hello(self, request: web.Request) -> web.StreamResponse:
        return _packed(self._handler.standing())

    async def _probe(self, request: web.Request) -> web.StreamResponse:
        async with _patience(0):
            body = await streams.read_small(
                request.content, request.content_length, limits.CONTROL_BYTES_MAX
            )
        standing = streams.read_standing(body, PROTOCOL)
        peername = request.transport.get_extra_info("peername") if request.transport else None
        if peername is None:
            raise ConnectionResetError("the prober is gone")
        return _packed(self._handler.probed(_socket(request).peer, standing, host_of(peername)))

    async def _layout(self, request: web.Request) -> web.StreamResponse:
        layout = self._handler.layout()
        if layout is None:
            return _refusal(404, "none", "no model here yet")
        return web.Response(body=layout.encoded)

    def _lined(self) -> Line:
        """A protocol for a connection of the exchange lane."""
        return Line(self._limits, lambda line: self._tasks.spawn(self._serve(line)))

    async def _serve(self, line: Line) -> None:
        """Answer one message after the other until the line breaks, or the peer is at fault."""
        peer, letters = line.encrypted.peer, Letters(line)
        try:
            await self._converse(line, letters)
        except RemoteError as error:
            self._handler.rejected(peer, error)
            await _dismiss(letters, _STATUS[type(error)], error.reason, str(error))
        finally:
            if self._lines.get(peer) is line:
                del self._lines[peer]
                self._handler.hung_up(peer)
            line.close()
            await letters.close()

    async def _converse(self, line: Line, letters: Letters) -> None:
        """Raises RemoteError."""
        peer, visit = line.encrypted.peer, self._listener.visit(line.encrypted, line.transport)
        while True:
            try:
                message = await letters.announcement()
            except Refused as refusal:
                raise Malformed("a refusal of nothing") from refusal
            except ConnectionError:
                return
            visit.busy()
            self._lines[peer] = line
            with self._exchanges.take(peer) as taken:
                if not taken:
                    await _dismiss(letters, 429, "busy", "too many exchanges at once")
                    return
                try:
                    ours = self._limits.least_bytes_per_s
                    async with _patience(self._handler.payload_limit(), ours):
                        await self._handler.exchanged(peer, letters, message)
                except ConnectionError as error:
                    if letters.given_up:
                        return
                    raise Malformed("the message was cut off") from error
            letters.post(_rest(visit, letters, letters.heard))

    async def _sample(self, request: web.Request) -> web.StreamResponse:
        """For a member that measures the way: the answer is as long as the request."""
        with self._transfers.take(_socket(request).peer) as taken:
            if not taken:
                return _refusal(429, "busy", "too many transfers at once")
            async with _patience(request.content_length or 0):
                body = await streams.read_small(
                    request.content, request.content_length, limits.SAMPLE_BYTES_MAX
                )
            response, throttle = web.StreamResponse(), self._limits.up
            response.content_length = len(body)
            async with _sending(request, response, throttle.bytes_per_s):
                await streams.send(response, body, throttle=throttle)
            return response

    async def _state(self, request: web.Request) -> web.StreamResponse:
        offer = await self._handler.state()
        if offer is None:
            return _refusal(404, "none", "no state to give yet")
        return _packed(offer)

    async def _state_bytes(self, request: web.Request) -> web.StreamResponse:
        path = self._handler.state_file(bytes.fromhex(request.match_info["digest"]))
        if path is None:
            return _refusal(404, "none", "that state is no longer on offer")
        with self._transfers.take(_socket(request).peer) as taken:
            if not taken:
                return _refusal(429, "busy", "too many transfers at once")
            return await _stream_file(request, path, self._limits.up)


async def _stream_file(request: web.Request, path: Path, throttle: Throttle) -> web.StreamResponse:
    """The file from the offset that ``Range`` asks for to its end."""
    with await asyncio.to_thread(path.open, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        start = _range_start(request.headers.get("Range"), length)
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = length - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{length - 1}/{length}"
            file.seek(start)
        async with _sending(request, response, throttle.bytes_per_s):
            while chunk := await asyncio.to_thread(file.read, READ_BYTES):
                await streams.send(response, chunk, throttle=throttle)
    return response


def _range_start(header: str | None, length: int) -> int:
    """The offset of ``Range: bytes=START-``, the one form that peers send.  Raises Malformed."""
    if header is None:
        return 0
    start = header.removeprefix("bytes=").removesuffix("-")
    if f"bytes={start}-" != header or not (start.isascii() and start.isdigit()):
        raise Malformed("a Range is bytes=START-")
    if len(start) > 15 or int(start) >= length:
        raise Malformed("the Range starts beyond the end")
    return int(start)


@contextlib.asynccontextmanager
async def _patience(length: int, limit: float = math.inf) -> AsyncIterator[None]:
    """Bound how long ``length`` bytes may take to come.  Raises Malformed: the peer is too slow."""
    try:
        async with asyncio.timeout(streams.patience_s(length, limit)):
            yield
    except TimeoutError as error:
        raise Malformed("the message takes too long to arrive") from error


@contextlib.asynccontextmanager
async def _sending(
    request: web.Request, response: web.StreamResponse, limit: float = math.inf
) -> AsyncIterator[None]:
    """Round what writes ``response``'s body; a peer that does not read it is dropped."""
    try:
        async with asyncio.timeout(streams.patience_s(response.content_length or 0, limit)):
            await response.prepare(request)
            yield
            await response.write_eof()
    except TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the peer reads too slowly") from error


async def _rest(visit: Visit, letters: Letters, heard: int) -> None:
    """The answer has left: the line is idle unless the next message is on its way."""
    if letters.heard == heard:
        visit.idle()


async def _dismiss(letters: Letters, status: int, reason: str, detail: str) -> None:
    """Refuse, and let the peer read why before the connection is reset."""
    with contextlib.suppress(ConnectionError, TimeoutError, RemoteError):
        async with asyncio.timeout(LINGER_S):
            await letters.refuse(status, reason, detail)
            while True:
                await letters.channel.read()


class _Slots:
    """Bounds the transfers of one kind, of each peer and of all."""

    def __init__(self) -> None:
        self._of: Counter[PeerId] = Counter()

    @contextlib.contextmanager
    def take(self, peer: PeerId) -> Iterator[bool]:
        """A slot for ``peer`` for the block; False if there is none."""
        if self._of[peer] >= TRANSFERS_PER_PEER_MAX or self._of.total() >= TRANSFERS_MAX:
            yield False
            return
        self._of[peer] += 1
        try:
            yield True
        finally:
            self._of[peer] -= 1
            self._of += Counter()  # forget the peers without any


def _socket(request: web.Request) -> PeerSocket:
    found = request.get_extra_info("ssl_object")
    if found is None:
        raise ConnectionResetError("the peer is gone")
    assert isinstance(found, PeerSocket), "the peer port speaks TLS only"
    return found


def _packed(message: Standing | StateOffer) -> web.Response:
    return web.Response(body=packing.pack(packing.to_map(message)))


def _refusal(status: int, reason: str, detail: str) -> web.Response:
    body = packing.pack({"reason": reason, "detail": detail[: limits.DETAIL_CHARS_MAX]})
    response = web.Response(status=status, body=body)
    response.force_close()  # the rest of the request may never have been read
    return response
