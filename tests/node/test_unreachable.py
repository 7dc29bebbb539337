"""Each way of not reaching a peer has its kind, and a line that says what to do."""

import errno
import socket
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from covey.node.tls import WrongIdentity
from covey.node.unreachable import Kind, failed, refused
from covey.protocols import packing

KEY = ConnectionKey("192.0.2.1", 4001, True, True, None, None, None)
HERE = "192.0.2.1:4001"


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def connecting(error: OSError) -> aiohttp.ClientConnectorError:
    return aiohttp.ClientConnectorError(KEY, error)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (connecting(ConnectionRefusedError(errno.ECONNREFUSED, "no")), Kind.REFUSED, "running"),
        (connecting(OSError(errno.EHOSTUNREACH, "no")), Kind.NO_ROUTE, "one network"),
        (connecting(OSError(errno.ENETUNREACH, "no")), Kind.NO_ROUTE, "one network"),
        (connecting(OSError(errno.EACCES, "denied")), Kind.NO_ROUTE, "denied"),
        (connecting(ConnectionResetError()), Kind.CUT, "is it a covey node"),
        (connecting(TimeoutError()), Kind.TIMEOUT, "firewall"),
        (connecting(socket.gaierror(-2, "unknown")), Kind.UNKNOWN_HOST, "IP address"),
        (aiohttp.ClientConnectorDNSError(KEY, OSError()), Kind.UNKNOWN_HOST, "IP address"),
        (aiohttp.ServerTimeoutError(), Kind.TIMEOUT, "firewall"),
        (TimeoutError(), Kind.TIMEOUT, "firewall"),
        (tls("WRONG_VERSION_NUMBER"), Kind.NOT_COVEY, "wrong version number"),
        (tls("TLSV1_ALERT_UNKNOWN_CA"), Kind.NOT_A_MEMBER, "covey invite"),
        (tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"), Kind.NOT_A_MEMBER, "covey invite"),
        (ssl.SSLCertVerificationError(1, "no"), Kind.OTHER_SWARM, "covey invite"),
        (WrongIdentity("it is A, not B"), Kind.WRONG_IDENTITY, "it is A, not B"),
        (aiohttp.ServerDisconnectedError(), Kind.CUT, "broke"),
        (aiohttp.ClientPayloadError(), Kind.CUT, "broke"),
    ],
)
def test_kinds(error: Exception, kind: Kind, says: str) -> None:
    found = failed(HERE, error, None, fresh=False)
    assert found.kind is kind
    assert says in str(found)
    assert HERE in str(found)
    assert "\n" not in str(found)


def test_what_tls_found_wrong_explains_a_broken_connection() -> None:
    broken = connecting(ConnectionResetError())
    found = failed(HERE, broken, ssl.SSLCertVerificationError(1, "no"), fresh=False)
    assert found.kind is Kind.OTHER_SWARM


def test_a_connection_that_ends_at_once_is_told_from_one_that_breaks() -> None:
    found = failed(HERE, aiohttp.ServerDisconnectedError(), None, fresh=True)
    assert found.kind is Kind.CUT
    assert "at once" in str(found)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, Kind.NOTHING),
        (426, Kind.PROTOCOL),
        (429, Kind.BUSY),
        (400, Kind.REJECTED),
        (500, Kind.REJECTED),
    ],
)
def test_a_refusal_keeps_its_reason(status: int, kind: Kind) -> None:
    body = packing.pack({"reason": "stale", "detail": "message 3 was seen before"})
    found = refused(HERE, body, status)
    assert found.kind is kind
    assert str(found) == f"{HERE}: message 3 was seen before"
    fields = {"status": status, "reason": "stale", "detail": "message 3 was seen before"}
    assert str(refused(HERE, packing.pack(fields))) == str(found)
    assert refused(HERE, packing.pack(fields)).kind is kind


@pytest.mark.parametrize("body", [b"", b"<html>", packing.pack([1]), packing.pack({"detail": 5})])
def test_a_refusal_of_something_else(body: bytes) -> None:
    assert str(refused(HERE, body, 403)) == f"{HERE}: status 403"


def test_a_refusals_text_cannot_write_to_the_terminal() -> None:
    body = packing.pack({"detail": "\x1b[2Jgone\n" + "x" * 500})
    text = str(refused(HERE, body, 400))
    assert text.isprintable()
    assert len(text) < 250
