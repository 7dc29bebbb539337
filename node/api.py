"""The HTTP API: what a node tells and does, over a private Unix socket and a loopback TCP port.

    GET  /livez /readyz /version /metrics
    GET  /api/v1/status                     GET  /api/v1/peers, /api/v1/peers/{id}
    GET  /api/v1/events?since=&types=&limit=&timeout=    long poll; or SSE with Last-Event-ID
    POST /api/v1/peers {"address"}          POST /api/v1/swarm/invites {"expires_s"}
    GET, PATCH /api/v1/limits {"up_Bps", "down_Bps"}    null: no limit
    POST /api/v1/shutdown {"now"}

Lists are {"items": [], "next": null}; errors are {"error": {"code", "message", "hint"}}.
"""

import asyncio
import json
import math
import os
import socket
import ssl
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from covey.node import guard
from covey.node.events import Event, EventLog
from covey.node.faults import OperatorError, file_faults
from covey.node.guard import ApiError, Guard, json_response
from covey.node.metrics import CONTENT_TYPE, Metrics
from covey.node.rate import Rate
from covey.node.report import PeerReport, StatusReport, as_json, rfc3339
from covey.node.settings import API_PORT, Endpoint, Settings
from covey.node.throttle import Limits

READERS_MAX = 64  # event readers that wait at one time
BODY_BYTES_MAX = 64 * 1024
EVENTS_MAX = 2000  # in one answer
POLL_S, POLL_S_MAX = 60.0, 300.0
KEEP_ALIVE_S = 15.0
INVITE_S_MAX = 10 * 365 * 86400
_KINDS = {str: "text", int: "a whole number", bool: "true or false"}


class Control(Protocol):
    """What the daemon lets the API see and do.  All on the node's event loop."""

    events: EventLog
    metrics: Metrics
    token: str
    limits: Limits

    def status(self) -> StatusReport: ...
    def peers(self) -> list[PeerReport]: ...

    def checks(self) -> dict[str, str]:
        """Readiness: name -> "ok", or why it is not."""

    def version(self) -> dict[str, str]: ...

    async def add_peer(self, address: str) -> None:
        """Dial ``host:port`` from now on, as if --peer had named it."""

    def invite(self, expires_s: int) -> str:
        """An invite line with this node's reachable addresses; 0 never expires."""

    def stop(self, now: bool) -> None:
        """Begin to leave, or with ``now`` end without a goodbye."""


class Api:
    """The two listeners."""

    def __init__(self, control: Control, settings: Settings) -> None:
        self._control = control
        self._settings = settings
        self._runners: list[web.AppRunner] = []
        self._readers: set[asyncio.Task[Any]] = set()

    async def start(self, unix_socket: Path, remembered_port: int = 0) -> int:
        """Listen; returns the TCP port: the one set, else the remembered or usual one if free.

        Raises OperatorError if that cannot be, or if others could listen in.
        """
        tls = _tls(self._settings)
        host = self._settings.api.host
        listener = _listener(self._settings.api, remembered_port)
        port: int = listener.getsockname()[1]
        try:
            await self._serve(True, _private_socket(unix_socket))
            await self._serve(False, listener, tls)
        except BaseException:
            listener.close()
            raise
        if host == "127.0.0.1" and (twin := _bind(Endpoint("::1", port))) is not None:
            await self._serve(False, twin, tls)  # where `localhost` means IPv6
        return port

    async def close(self) -> None:
        """Stop listening and end waiting readers at once."""
        for reader in self._readers:
            reader.cancel()
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _serve(
        self, trusted: bool, listener: socket.socket, tls: ssl.SSLContext | None = None
    ) -> None:
        runner = web.AppRunner(
            self._app(trusted),
            access_log=None,
            auto_decompress=False,
            handle_signals=False,
            handler_cancellation=True,
            max_field_size=4096,
            max_line_size=4096,
            shutdown_timeout=1.0,
        )
        self._runners.append(runner)
        await runner.setup()
        await web.SockSite(runner, listener, ssl_context=tls).start()

    def _app(self, trusted: bool) -> web.Application:
        settings = self._settings
        hosts = set(guard.LOCAL_HOSTS) | {host.lower() for host in settings.api_hosts}
        if settings.api.host not in ("0.0.0.0", "::"):
            hosts.add(str(Endpoint(settings.api.host)).lower())
        keeper = Guard(frozenset(hosts), self._control.token, trusted, settings.api.loopback)
        app = web.Application(
            middlewares=[guard.middleware(keeper)], client_max_size=BODY_BYTES_MAX
        )
        app.on_response_prepare.append(guard.add_headers)
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/version", self._version),
                web.get("/metrics", self._metrics),
                web.get("/api/v1/status", self._status),
                web.get("/api/v1/peers", self._peers),
                web.get("/api/v1/peers/{id}", self._peer),
                web.get("/api/v1/events", self._events),
                web.get("/api/v1/limits", self._limits),
                web.patch("/api/v1/limits", self._limit),
                web.post("/api/v1/peers", self._add_peer),
                web.post("/api/v1/swarm/invites", self._invite),
                web.post("/api/v1/shutdown", self._shutdown),
            ]
        )
        return app

    async def _livez(self, _: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        checks = self._control.checks()
        ready = all(result == "ok" for result in checks.values())
        return json_response({"ready": ready, "checks": checks}, 200 if ready else 503)

    async def _version(self, _: web.Request) -> web.Response:
        return json_response(self._control.version())

    async def _metrics(self, _: web.Request) -> web.Response:
        body = self._control.metrics.render(self._control.status())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _status(self, _: web.Request) -> web.Response:
        return json_response(as_json(self._control.status()))

    async def _peers(self, _: web.Request) -> web.Response:
        items = [as_json(peer) for peer in self._control.peers()]
        return json_response({"items": items, "next": None})

    async def _peer(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"].upper()
        found = [peer for peer in self._control.peers() if peer.id.startswith(wanted)]
        if len(wanted) < 7 or len(found) != 1:
            raise ApiError(
                404, "no_such_peer", f"no peer has the id {wanted[:70]}", "see /api/v1/peers"
            )
        return json_response(as_json(found[0]))

    async def _limits(self, _: web.Request) -> web.Response:
        return json_response(self._control.limits.caps)

    async def _limit(self, request: web.Request) -> web.Response:
        """Set the limits that the body names; the others stay."""
        limits = self._control.limits
        throttles = {"up_Bps": limits.up, "down_Bps": limits.down}
        wanted = [
            (throttles[key], _rate(key, value))
            for key, value in (await _object(request, throttles)).items()
        ]
        for throttle, rate in wanted:
            throttle.limit(rate)
        self._control.events.emit("net.limited", **limits.caps)
        return json_response(limits.caps)

    async def _add_peer(self, request: web.Request) -> web.Response:
        address = await _field(request, "address", str)
        try:
            endpoint = Endpoint.parse(address)
        except ValueError as error:
            raise ApiError(400, "bad_address", str(error), "give host:port") from error
        if not endpoint.port:
            raise ApiError(400, "bad_address", f"{address!r} has no port", "give host:port")
        await self._control.add_peer(str(endpoint))
        return json_response({"address": str(endpoint), "status": "dialing"}, 202)

    async def _invite(self, request: web.Request) -> web.Response:
        expires_s = await _field(request, "expires_s", int, 86400)
        if not 0 <= expires_s <= INVITE_S_MAX:
            raise ApiError(400, "bad_value", f"expires_s is not within 0 and {INVITE_S_MAX}")
        token = self._control.invite(expires_s)
        expires_at = rfc3339(time.time() + expires_s) if expires_s else None
        return json_response({"token": token, "expires_at": expires_at}, 201)

    async def _shutdown(self, request: web.Request) -> web.Response:
        now = await _field(request, "now", bool, False)
        # After the answer is on its way: the node may close this very connection.
        asyncio.get_running_loop().call_later(0.05, self._control.stop, now)
        return json_response({"status": "stopping"}, 202)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        if len(self._readers) >= READERS_MAX:
            raise ApiError(503, "too_many_readers", f"{READERS_MAX} readers are waiting already")
        self._readers.add(task)
        try:
            if "text/event-stream" in request.headers.get("Accept", ""):
                return await self._stream(request)
            return await self._poll(request)
        finally:
            self._readers.discard(task)

    async def _poll(self, request: web.Request) -> web.Response:
        events = self._control.events
        after = int(_query(request, "since", 0, math.inf))
        limit = int(_query(request, "limit", EVENTS_MAX, EVENTS_MAX))
        timeout_s = _query(request, "timeout", POLL_S, POLL_S_MAX)
        found = await events.wait(after, _types(request), timeout_s)
        if len(found) > limit:
            found = found[:limit]
            latest = found[-1].id if found else after
        else:
            latest = events.latest
        return json_response({"items": [event.as_json() for event in found], "next": latest})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events.  A keep-alive carries the newest id, so that a filtered reader which
        comes back does not ask for what it has already been spared."""
        events = self._control.events
        types = _types(request)
        after = int(_query(request, "since", 0, math.inf))
        last = request.headers.get("Last-Event-ID", "")
        if last.isdecimal() and len(last) < 16:
            after = int(last)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the reader has gone
            while True:
                found = await events.wait(after, types, KEEP_ALIVE_S)
                after = events.latest
                parts = [_sse(event) for event in found] or [f": keep-alive\nid: {after}\n\n"]
                await response.write("".join(parts).encode())
        return response


def _sse(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.type}\ndata: {json.dumps(event.as_json())}\n\n"


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """The context of an API beyond loopback, which is refused without one."""
    if not settings.api_cert and not settings.api_key:
        if settings.api.loopback:
            return None
        raise OperatorError(
            f"the API at {settings.api} would be open to the network without TLS",
            "set api_cert and api_key (PEM files) in config.toml, or use --api 127.0.0.1",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with file_faults("read", settings.api_cert or settings.api_key):
        try:
            context.load_cert_chain(settings.api_cert, settings.api_key or None)
        except ssl.SSLError as error:
            raise OperatorError(
                f"{settings.api_cert} and {settings.api_key} are not a certificate and its key",
                "correct api_cert and api_key in config.toml",
            ) from error
    return context


def _listener(endpoint: Endpoint, remembered_port: int) -> socket.socket:
    """A listening socket on the wanted port; without one, on the remembered, usual or a free."""
    if endpoint.port is not None:
        candidates = [endpoint.port]
    else:
        candidates = [port for port in (remembered_port, API_PORT) if port] + [0]
    for port in candidates:
        if (listener := _bind(Endpoint(endpoint.host, port))) is not None:
            return listener
    raise OperatorError(
        f"the API cannot listen on {endpoint}: the port is in use, or the host is not this machine",
        f"choose another with --api {Endpoint(endpoint.host, 0)}",
    )


def _bind(endpoint: Endpoint) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((endpoint.host, endpoint.port or 0))
        listener.listen(128)
    except OSError:
        listener.close()
        return None
    return listener


def _private_socket(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with file_faults("create the socket", path):
        try:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            os.chmod(path, 0o600)
            listener.listen(128)
        except OSError:
            listener.close()
            raise
    return listener


def _types(request: web.Request) -> list[str]:
    return [word for word in request.query.get("types", "").split(",") if word]


def _query(request: web.Request, name: str, default: float, most: float) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = float(text) if len(text) < 16 else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf or value > most:
        raise ApiError(400, "bad_value", f"{name}={text[:20]!r} is not a number from 0 to {most:g}")
    return value


async def _field(request: web.Request, name: str, kind: type, default: Any = None) -> Any:
    """The one field that the JSON body of this request has."""
    value = (await _object(request, [name])).get(name, default)
    if type(value) is not kind:
        raise ApiError(400, "bad_body", f"{name} is {_KINDS[kind]}")
    return value


async def _object(request: web.Request, names: Collection[str]) -> dict[str, Any]:
    """The JSON body of this request, an object of no other fields than ``names``."""
    try:
        body = json.loads(await request.text() or "{}")
    except (ValueError, RecursionError, LookupError) as error:
        raise ApiError(400, "not_json", "the body is not JSON") from error
    if not isinstance(body, dict) or set(body) - set(names):
        raise ApiError(400, "bad_body", f"the body is an object of {', '.join(names)}")
    return body


def _rate(name: str, value: Any) -> Rate:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ApiError(400, "bad_body", f"{name} is a number of bytes per second, or null")
    try:
        return Rate.of_json(value)
    except (ValueError, OverflowError) as error:
        raise ApiError(400, "bad_value", f"{name} = {value!r:.20} {error}") from error
