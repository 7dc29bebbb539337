"""Requests to peers over mutual TLS: one kept-alive connection per peer and lane.

Exchanges go without HTTP, over lines (lines.py).
Lanes never share a connection, so a probe waits behind no bulk.  What keeps a peer from being
reached is an ``Unreachable`` with a kind and a line for the operator; what a peer says wrongly is a
RemoteError.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp
from yarl import URL

from covey.node import streams
from covey.node.addresses import parse_address
from covey.node.ledger import Lane
from covey.node.letters import Letters
from covey.node.lines import CONNECT_S, KEEP_S, Lines
from covey.node.streams import Body
from covey.node.throttle import Limits, Throttle
from covey.node.tls import Credentials, Handshake, PeerContext, handshake
from covey.node.unreachable import Kind, Unreachable, failed, refused
from covey.protocols import PROTOCOL, limits, packing
from covey.protocols.errors import Forged, Malformed, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import Standing, StateOffer

__all__ = ["Kind", "Transport", "Unreachable"]

HELLO_S = 8.0
SMALL_S = 15.0  # a layout or an offer
STALL_S = 15.0  # without a byte of a state
STATE_TRIES = 5  # in a row without progress
STATE_PROGRESS = limits.MIB  # bytes that count as progress
STATE_BACKOFF_S = 0.2  # before the second try; doubles
_PASSING = (Kind.CUT, Kind.TIMEOUT, Kind.REFUSED, Kind.BUSY)  # what a fetch tries again after


@dataclass
class _Request:
    """One request, and what became known of it on the way."""

    method: str
    address: str
    path: str
    timeout: aiohttp.ClientTimeout
    body: Body | None = None
    headers: dict[str, str] = field(default_factory=dict)
    handshake: Handshake = field(default_factory=Handshake)
    fresh: bool = False  # it opened its connection
    began: float = 0.0  # monotonic, after connecting


class _Link:
    """The connections of one lane to one peer."""

    def __init__(self, context: PeerContext) -> None:
        watch = aiohttp.TraceConfig()
        watch.on_connection_create_end.append(_connected)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=2, keepalive_timeout=KEEP_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=streams.READ_BUFFER_BYTES,
            max_line_size=4096,
            max_field_size=4096,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            trace_configs=[watch],
        )

    @asynccontextmanager
    async def ask(self, request: _Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, its body yet to be read.  Raises Unreachable, also for a broken body."""
        try:
            host, port = parse_address(request.address)
        except ValueError as error:
            raise Unreachable(Kind.UNKNOWN_HOST, str(error)) from error
        url = URL.build(scheme="https", host=host, port=port, path=request.path)
        request.began = time.monotonic()
        with handshake() as request.handshake:
            try:
                async with self._session.request(
                    request.method,
                    url,
                    data=request.body,
                    headers=request.headers,
                    timeout=request.timeout,
                    allow_redirects=False,
                    trace_request_ctx=request,
                ) as response:
                    if response.status not in (200, 206):
                        body = await _small_body(response)
                        raise refused(request.address, body, response.status)
                    yield response
            except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
                refusal = request.handshake.refusal
                raise failed(request.address, error, refusal, request.fresh) from error

    async def close(self) -> None:
        await self._session.close()


async def _connected(
    session: aiohttp.ClientSession,
    context: SimpleNamespace,
    params: aiohttp.TraceConnectionCreateEndParams,
) -> None:
    request = context.trace_request_ctx
    request.fresh, request.began = True, time.monotonic()


class Transport:
    """This node as a client of its peers.  Use it on one event loop and close it.

    Every method raises Unreachable when the peer could not be asked or refuses, and RemoteError
    when what it answers is wrong.  Times are in seconds, addresses ``host:port``.
    """

    def __init__(self, credentials: Credentials, limits: Limits | None = None) -> None:
        self._credentials = credentials
        self._limits = limits or Limits()
        self._links: dict[tuple[PeerId, Lane], _Link] = {}
        self._lines = Lines(credentials, self._limits)
        self._closed = False

    async def hello(self, address: str) -> tuple[PeerId, Standing]:
        """Who answers at ``address``: any member of this swarm, its identity proven."""
        link = _Link(self._credentials.client_context(Lane.CONTROL, None))
        timeout = aiohttp.ClientTimeout(total=HELLO_S, sock_connect=CONNECT_S)
        request = _Request("GET", address, "/p/hello", timeout)
        try:
            body = await _small(link, request)
        finally:
            await link.close()
        assert request.handshake.peer is not None, "an answer came through a finished handshake"
        return request.handshake.peer, _standing(address, body)

    async def probe(
        self, peer: PeerId, address: str, standing: Standing, timeout_s: float
    ) -> tuple[Standing, float]:
        """``peer``'s standing for ours, and the round-trip time in seconds."""
        body = Body(packing.pack(packing.to_map(standing)))
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=timeout_s)
        request = _Request("POST", address, "/p/probe", timeout, body)
        answer = await _small(self._link(peer, Lane.CONTROL), request)
        rtt_s = time.monotonic() - request.began
        return _standing(address, answer), rtt_s

    def call(self, peer: PeerId, address: str) -> AbstractAsyncContextManager[Letters]:
        """A line for an exchange with ``peer``.  Raises Unreachable, also for what breaks it."""
        if self._closed:
            raise Unreachable(Kind.CUT, "this node is stopping")
        return self._lines.call(peer, address)

    async def layout(self, peer: PeerId, address: str) -> Layout:
        """The layout of ``peer``'s model."""
        timeout = aiohttp.ClientTimeout(total=SMALL_S, sock_connect=CONNECT_S)
        request = _Request("GET", address, "/p/layout", timeout)
        body = await _small(self._link(peer, Lane.STATE), request, limits.LAYOUT_BYTES_MAX)
        return Layout.decode(body)

    async def sample(self, peer: PeerId, address: str, size: int) -> tuple[float, float]:
        """Seconds that ``size`` bytes take to ``peer``, an answer's way included, and back."""
        timeout = aiohttp.ClientTimeout(
            total=2 * streams.patience_s(size), sock_connect=CONNECT_S, sock_read=STALL_S
        )
        request = _Request("POST", address, "/p/sample", timeout, Body(bytes(size)))
        async with self._link(peer, Lane.STATE).ask(request) as response:
            there = time.monotonic()
            await _small_body(response, size)
            return there - request.began, time.monotonic() - there

    async def state_offer(self, peer: PeerId, address: str) -> StateOffer:
        """The copy of its vector that ``peer`` has ready, or makes, for a joiner."""
        timeout = aiohttp.ClientTimeout(total=STALL_S + SMALL_S, sock_connect=CONNECT_S)
        body = await _small(
            self._link(peer, Lane.STATE), _Request("GET", address, "/p/state", timeout)
        )
        fields = packing.unpack(body, limits.CONTROL_BYTES_MAX)
        return packing.from_map(StateOffer, fields)

    async def fetch_state(
        self,
        peer: PeerId,
        address: str,
        offer: StateOffer,
        into: memoryview,
        progress: Callable[[int], None],
    ) -> None:
        """Fill ``into`` (``offer.length`` bytes) and check the hash; Forged if it does not hold.

        Goes on where a broken connection stopped; ``progress`` is told the bytes that have come.
        """
        view = into.cast("B")
        assert len(view) == offer.length, "the caller brings room for the whole state"
        download = _Download(view, progress, self._limits.down)
        link = self._link(peer, Lane.STATE)
        tries = 0
        while download.done < offer.length:
            before = download.done
            try:
                await download.go_on(link, address, offer)
            except Unreachable as error:
                tries = 1 if download.done - before >= STATE_PROGRESS else tries + 1
                if error.kind not in _PASSING or tries >= STATE_TRIES:
                    raise
                await asyncio.sleep(STATE_BACKOFF_S * 2 ** (tries - 1))
        digest = await asyncio.to_thread(lambda: hashlib.sha256(view).digest())
        if digest != offer.digest:
            raise Forged(f"the state from {peer.short} does not match its hash")

    async def drop(self, peer: PeerId) -> None:
        """Close the connections to ``peer``; the next request opens new ones."""
        self._lines.drop(peer)
        for lane in Lane:
            link = self._links.pop((peer, lane), None)
            if link is not None:
                await link.close()

    async def close(self) -> None:
        self._closed = True
        self._lines.close()
        for link in self._links.values():
            await link.close()
        self._links.clear()

    def _link(self, peer: PeerId, lane: Lane) -> _Link:
        if self._closed:
            raise Unreachable(Kind.CUT, "this node is stopping")
        link = self._links.get((peer, lane))
        if link is None:
            link = _Link(self._credentials.client_context(lane, peer))
            self._links[peer, lane] = link
        return link


class _Download:
    """A state on its way into ``view``."""

    def __init__(
        self, view: memoryview, progress: Callable[[int], None], throttle: Throttle
    ) -> None:
        self._view = view
        self._progress = progress
        self._throttle = throttle
        self.done = 0

    async def go_on(self, link: _Link, address: str, offer: StateOffer) -> None:
        """Fetch from where it stopped.  Raises Unreachable, or Malformed for another range."""
        left = len(self._view) - self.done
        timeout = aiohttp.ClientTimeout(
            total=streams.patience_s(left, self._throttle.bytes_per_s),
            sock_connect=CONNECT_S,
            sock_read=STALL_S,
        )
        request = _Request("GET", address, f"/p/state/{offer.digest.hex()}", timeout)
        if self.done:
            request.headers["Range"] = f"bytes={self.done}-"
        async with link.ask(request) as response:
            whole = f"bytes {self.done}-{len(self._view) - 1}/{len(self._view)}"
            sent = response.headers.get("Content-Range", whole)
            if response.content_length != left or (response.status == 206) != bool(self.done):
                raise Malformed("the state has another length than was offered")
            if sent != whole:
                raise Malformed("the state's range is not the one that was asked for")
            while chunk := (await response.content.readchunk())[0]:
                self._view[self.done : self.done + len(chunk)] = chunk
                self.done += len(chunk)
                self._progress(self.done)
                await self._throttle.admit(len(chunk))


async def _small(link: _Link, request: _Request, limit: int = limits.CONTROL_BYTES_MAX) -> bytes:
    async with link.ask(request) as response:
        return await _small_body(response, limit)


async def _small_body(
    response: aiohttp.ClientResponse, limit: int = limits.CONTROL_BYTES_MAX
) -> bytes:
    return await streams.read_small(response.content, response.content_length, limit)


def _standing(address: str, body: bytes) -> Standing:
    try:
        return streams.read_standing(body, PROTOCOL)
    except Unsupported as error:
        raise Unreachable(Kind.PROTOCOL, f"{address}: {error}") from error
