"""Who may ask the HTTP API for what: the one middleware every request passes.

The Unix socket is private to the user and trusted.  Over TCP a request must name a host of ours (a
page from elsewhere cannot, even with DNS rebinding), must not come from another site, and needs the
bearer token for whatever changes state, and for reading too once the API leaves loopback.
"""

import hmac
import json
import logging
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from covey.node.faults import OperatorError

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN_PATHS = frozenset({"/livez", "/readyz", "/version"})
_READS = frozenset({"GET", "HEAD"})
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "covey",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_log = logging.getLogger(__name__)


class ApiError(Exception):
    """A refused request: the status, a machine-readable code, one line and what to do."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint

    def response(self) -> web.Response:
        error = {"code": self.code, "message": self.message, "hint": self.hint}
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else None
        return json_response({"error": error}, self.status, headers)


def json_response(
    plain: Any, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    text = json.dumps(plain, allow_nan=False)
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


@dataclass(frozen=True)
class Guard:
    """``trusted``: a Unix socket.  ``open_reads``: reading needs no token (a loopback address)."""

    hosts: frozenset[str]
    token: str
    trusted: bool
    open_reads: bool

    def admit(self, request: web.Request) -> None:
        """Raise ApiError unless the request may go on."""
        self._check_host(request)
        self._check_site(request)
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise ApiError(415, "encoded", "compressed requests are not read")
        reads = request.method in _READS
        if not reads and request.content_type != "application/json":
            raise ApiError(
                415,
                "not_json",
                "a request that changes something is JSON",
                "send Content-Type: application/json",
            )
        if not self.trusted and not (reads and (self.open_reads or request.path in OPEN_PATHS)):
            self._check_token(request)

    def _check_host(self, request: web.Request) -> None:
        named = request.headers.getall("Host", [])
        if len(named) != 1 or _without_port(named[0].lower()) not in self.hosts:
            raise ApiError(
                403,
                "wrong_host",
                f"this API does not answer to the host name {', '.join(named)[:200]!r}",
                "use http://127.0.0.1, or name the host in api_hosts in config.toml",
            )

    def _check_site(self, request: web.Request) -> None:
        site = request.headers.get("Sec-Fetch-Site", "none")
        origin = request.headers.get("Origin")
        foreign = origin is not None and urlsplit(origin).netloc != request.headers["Host"]
        if foreign or site not in ("same-origin", "none"):
            raise ApiError(403, "cross_site", "requests from other web sites are refused")

    def _check_token(self, request: web.Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self.token.encode()):
            raise ApiError(
                401,
                "no_token",
                "this request needs the node's token",
                "send `Authorization: Bearer …` with what api.token in the node's home holds",
            )


def middleware(guard: Guard) -> Middleware:
    """Admit or refuse, and turn every failure into the documented JSON."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            guard.admit(request)
            return await handler(request)
        except ApiError as error:
            return error.response()
        except OperatorError as error:
            return ApiError(400, "operator", error.message, error.fix).response()
        except web.HTTPException as error:
            refusal = _of_http(error)
            response = refusal.response()
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response
        except Exception:  # a bug, at the boundary of its task: the node goes on, the log has it
            _log.exception("bug while answering %s %s", request.method, request.path)
            return ApiError(
                500, "bug", "an error in covey itself; the node's log has it"
            ).response()

    return guarded


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """The on_response_prepare signal: nothing is framed, sniffed, cached or told about us."""
    response.headers.update(_HEADERS)


def _of_http(error: web.HTTPException) -> ApiError:
    codes = {404: "not_found", 405: "wrong_method", 413: "too_large"}
    hints = {404: "the paths are in the documentation: /api/v1/status, /api/v1/peers, …"}
    return ApiError(
        error.status, codes.get(error.status, "http"), error.reason, hints.get(error.status, "")
    )


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
