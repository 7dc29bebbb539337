"""Why a peer could not be asked: one exception with a kind, and a line that says what to do."""

import errno
import socket
import ssl
from enum import StrEnum

import aiohttp

from covey.node.tls import WrongIdentity
from covey.protocols import limits, packing
from covey.protocols.errors import RemoteError


class Kind(StrEnum):
    """What stood in the way, as counters and the peers table name it."""

    REFUSED = "refused"  # nothing listens there
    TIMEOUT = "timeout"
    NO_ROUTE = "no_route"
    UNKNOWN_HOST = "unknown_host"
    NOT_COVEY = "not_covey"  # something else listens there
    OTHER_SWARM = "other_swarm"  # it is no member of ours
    NOT_A_MEMBER = "not_a_member"  # it does not take us for one
    WRONG_IDENTITY = "wrong_identity"  # a member, but another node
    PROTOCOL = "protocol"  # another protocol version
    BUSY = "busy"
    NOTHING = "nothing"  # it has no model, or no longer that state
    REJECTED = "rejected"  # it found fault with what we sent
    CUT = "cut"  # the connection ended in between


class Unreachable(Exception):
    """The peer could not be asked, or would not answer.  Not its fault, nor a bug: try later."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def failed(
    address: str, error: BaseException, refusal: ssl.SSLError | None, fresh: bool
) -> Unreachable:
    """What an exception of aiohttp or of a body's reading means.

    ``refusal`` is what this side's TLS found wrong, ``fresh`` says that the connection was new.
    """
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    for tls in (refusal, cause):
        if isinstance(tls, ssl.SSLError):
            return _of_tls(address, tls)
    if isinstance(error, aiohttp.ClientConnectorDNSError) or isinstance(cause, socket.gaierror):
        text = f"{address}: there is no host of this name; use its IP address"
        return Unreachable(Kind.UNKNOWN_HOST, text)
    if isinstance(cause, TimeoutError):
        text = f"{address} does not answer; is the machine on, and the port open in its firewall?"
        return Unreachable(Kind.TIMEOUT, text)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _of_socket(address, cause)
    if isinstance(error, aiohttp.ClientResponseError):
        return Unreachable(Kind.NOT_COVEY, f"{address} does not answer as a covey node")
    if fresh and isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        text = f"{address} ended the connection at once; is it stopping, or too busy?"
        return Unreachable(Kind.CUT, text)
    return Unreachable(Kind.CUT, f"the connection to {address} broke")


def not_dialled(address: str, error: OSError, refusal: ssl.SSLError | None) -> Unreachable:
    """What an exception of asyncio means that opened no connection."""
    if refusal is not None or isinstance(error, ssl.SSLError | socket.gaierror | TimeoutError):
        return failed(address, error, refusal, True)
    return _of_socket(address, error)


def _of_tls(address: str, error: ssl.SSLError) -> Unreachable:
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, WrongIdentity):
        text = f"{address} is another node now: {error}"
        return Unreachable(Kind.WRONG_IDENTITY, text)
    if isinstance(error, ssl.SSLCertVerificationError):
        text = (
            f"{address} is not of this swarm; to be in the same one, run `covey invite` on one"
            " machine and the line it prints on the other"
        )
        return Unreachable(Kind.OTHER_SWARM, text)
    if "ALERT" in reason and ("UNKNOWN_CA" in reason or "CERTIFICATE" in reason):
        text = (
            f"{address} does not take this node for a member of its swarm; run `covey invite`"
            " there and the line it prints here"
        )
        return Unreachable(Kind.NOT_A_MEMBER, text)
    why = reason.lower().replace("_", " ") or str(error)
    return Unreachable(Kind.NOT_COVEY, f"no covey node answers at {address} ({why})")


def _of_socket(address: str, error: BaseException) -> Unreachable:
    number = getattr(error, "errno", None)
    if number == errno.ECONNREFUSED:
        text = f"{address} refuses the connection; no node is running there, or not on this port"
        return Unreachable(Kind.REFUSED, text)
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTDOWN):
        text = f"there is no way to {address}; are both machines on one network?"
        return Unreachable(Kind.NO_ROUTE, text)
    if isinstance(error, ConnectionError):
        text = f"{address} ended the connection before TLS; is it a covey node?"
        return Unreachable(Kind.CUT, text)
    return Unreachable(Kind.NO_ROUTE, f"{address} cannot be reached: {error}")


_OF_STATUS = {404: Kind.NOTHING, 426: Kind.PROTOCOL, 429: Kind.BUSY}


def refused(address: str, body: bytes, status: int = 0) -> Unreachable:
    """What a peer's refusal means; ``body`` is its map of reason and detail, and of the status if
    HTTP did not tell it."""
    detail = "it refuses"
    try:
        fields = packing.unpack(body, limits.MESSAGE_BYTES_MAX)
        if isinstance(fields, dict):
            if isinstance(fields.get("detail"), str):
                detail = fields["detail"]
            if type(fields.get("status")) is int:
                status = status or fields["status"]
    except RemoteError:
        pass  # not msgpack: the status must do
    if status and detail == "it refuses":
        detail = f"status {status}"
    shown = "".join(c if c.isprintable() else " " for c in detail[:200])
    kind = _OF_STATUS.get(status, Kind.REJECTED)
    return Unreachable(kind, f"{address}: {shown}")
