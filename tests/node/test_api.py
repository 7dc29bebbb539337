"""The HTTP API over real sockets: shapes, who may do what, long polls, server-sent events."""

import datetime
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from covey.node.client import Client
from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.report import Severity, WarningReport
from covey.node.settings import Endpoint, Settings

if TYPE_CHECKING:
    from tests.node.conftest import FakeNode

    RunNode = Callable[[Home, Settings], AbstractContextManager[FakeNode]]

TOKEN = {"Authorization": "Bearer " + "t" * 43}
JSON = {"Content-Type": "application/json"}
V1 = "/api/v1"


def ask(
    node: "FakeNode",
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any, http.client.HTTPMessage]:
    """One request over TCP: the status, the JSON (or text) and the headers."""
    text = body if isinstance(body, bytes) else json.dumps(body) if body is not None else None
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    with closing(connection):
        connection.request(method, path, text, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        kind = answer.headers.get_content_type()
        return answer.status, json.loads(data or "null") if "json" in kind else data, answer.headers


def code_of(plain: Any) -> str:
    assert set(plain) == {"error"}
    assert set(plain["error"]) == {"code", "message", "hint"}
    return str(plain["error"]["code"])


def test_the_open_routes(node: "FakeNode") -> None:
    assert ask(node, "GET", "/livez")[:2] == (200, {"status": "ok"})
    assert ask(node, "GET", "/version")[:2] == (200, {"version": "0.1.0"})
    checks = {"identity": "ok", "listen": "ok"}
    assert ask(node, "GET", "/readyz")[:2] == (200, {"ready": True, "checks": checks})
    node.control.readiness["listen"] = "starting"
    status, plain, _ = ask(node, "GET", "/readyz")
    assert (status, plain["ready"]) == (503, False)


def test_status_and_peers(node: "FakeNode") -> None:
    node.control.warnings = (WarningReport("x", Severity.ERROR, "broken", "mend it"),)
    status, plain, _ = ask(node, "GET", f"{V1}/status")
    assert (status, plain["training"]["step"], plain["health"]) == (200, 18420, "degraded")
    status, plain, _ = ask(node, "GET", f"{V1}/peers")
    assert status == 200
    assert plain["next"] is None
    assert [peer["name"] for peer in plain["items"]] == ["two", ""]
    assert ask(node, "GET", f"{V1}/peers/ccccccc")[1]["name"] == "two"
    assert code_of(ask(node, "GET", f"{V1}/peers/CC")[1]) == "no_such_peer"
    assert code_of(ask(node, "GET", f"{V1}/peers/ZZZZZZZ")[1]) == "no_such_peer"


def test_metrics_are_prometheus_text(node: "FakeNode") -> None:
    status, text, headers = ask(node, "GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b'covey_build_info{version="0.1.0"} 1.0' in text


def test_every_answer_has_the_security_headers(node: "FakeNode") -> None:
    for path in ("/livez", "/nowhere", "/metrics"):
        headers = ask(node, "GET", path)[2]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "covey"
        assert not any(name.lower().startswith("access-control") for name in headers)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:99", "127.0.0.1:17701", "[::1]", "[::1]:5", "studio.lan:1"]
)
def test_our_own_host_names_are_answered(node: "FakeNode", host: str) -> None:
    assert ask(node, "GET", "/livez", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "10.0.0.1", "::1"]
)
def test_any_other_host_name_is_refused(node: "FakeNode", host: str) -> None:
    status, plain, _ = ask(node, "GET", "/livez", headers={"Host": host})
    assert (status, code_of(plain)) == (403, "wrong_host")


def raw(node: "FakeNode", request: bytes) -> bytes:
    """The first part of the answer to a request that http.client would not send."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=30) as connection:
        connection.sendall(request)
        return connection.recv(4096)


def test_no_host_or_two_hosts_are_refused(node: "FakeNode") -> None:
    assert b"403" in raw(node, b"GET /livez HTTP/1.0\r\n\r\n").split(b"\r\n")[0]
    twice = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n"
    assert raw(node, twice).split()[1] in (b"400", b"403")


def test_the_host_is_checked_on_the_unix_socket_too(node: "FakeNode") -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(node.home.api_socket))
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: evil\r\n\r\n")
        assert b"403" in connection.recv(4096)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_other_web_sites_are_refused(node: "FakeNode", headers: dict[str, str]) -> None:
    status, plain, _ = ask(node, "GET", f"{V1}/status", headers=headers)
    assert (status, code_of(plain)) == (403, "cross_site")


def test_our_own_pages_are_not_refused(node: "FakeNode") -> None:
    host = f"127.0.0.1:{node.port}"
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{host}", "Host": host}
    assert ask(node, "GET", f"{V1}/status", headers=headers)[0] == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [("/peers", {"address": "a:1"}), ("/swarm/invites", {}), ("/shutdown", {"now": False})],
)
def test_changes_over_tcp_need_the_token(node: "FakeNode", path: str, body: object) -> None:
    wrong = [{}, {"Authorization": "Bearer " + "x" * 43}, {"Authorization": "Basic " + "t" * 43}]
    for headers in [*wrong, {"Authorization": "Bearer t\xff"}]:
        status, plain, answered = ask(node, "POST", V1 + path, body, JSON | headers)
        assert (status, code_of(plain)) == (401, "no_token")
        assert answered["WWW-Authenticate"] == "Bearer"
    assert ask(node, "POST", V1 + path, body, TOKEN)[0] == 415
    assert (node.control.added, node.control.invited, node.control.stopped) == ([], [], [])
    assert ask(node, "POST", V1 + path, body, JSON | TOKEN)[0] in (201, 202)


def test_changes_over_the_unix_socket_need_none(node: "FakeNode") -> None:
    client = Client(node.home)
    client.post(f"{V1}/peers", {"address": "studio-2:17700"})
    assert node.control.added == ["studio-2:17700"]
    assert client.post(f"{V1}/swarm/invites", {"expires_s": 60})["token"] == "covey1-fake"
    assert client.post(f"{V1}/swarm/invites", {"expires_s": 0})["expires_at"] is None
    assert node.control.invited == [60, 0]


def test_both_sockets_are_private(node: "FakeNode") -> None:
    assert node.home.api_socket.stat().st_mode & 0o777 == 0o600
    assert node.home.runtime.stat().st_mode & 0o777 == 0o700


def test_shutdown_answers_before_it_acts(node: "FakeNode") -> None:
    answer = Client(node.home).post(f"{V1}/shutdown", {"now": True})
    assert answer == {"status": "stopping"}


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/peers", {}, "bad_body"),
        ("/peers", {"address": 1}, "bad_body"),
        ("/peers", {"address": "a:1", "more": 1}, "bad_body"),
        ("/peers", [], "bad_body"),
        ("/peers", b"{", "not_json"),
        ("/peers", b"\xff", "not_json"),
        ("/peers", b"[" * 50_000, "not_json"),
        ("/peers", b"[" * 70_000, "too_large"),
        ("/peers", {"address": "no port"}, "bad_address"),
        ("/peers", {"address": "a"}, "bad_address"),
        ("/peers", {"address": "a:0"}, "bad_address"),
        ("/peers", {"address": "http://a:1/x"}, "bad_address"),
        ("/peers", {"address": "full:1"}, "operator"),
        ("/swarm/invites", {"expires_s": -1}, "bad_value"),
        ("/swarm/invites", {"expires_s": 1e9}, "bad_body"),
        ("/swarm/invites", {"expires_s": True}, "bad_body"),
        ("/shutdown", {"now": 1}, "bad_body"),
        ("/nowhere", {}, "not_found"),
        ("/status", {}, "wrong_method"),
    ],
)
def test_a_bad_request_is_a_documented_error(
    node: "FakeNode", path: str, body: object, code: str
) -> None:
    status, plain, _ = ask(node, "POST", V1 + path, body, JSON | TOKEN)
    assert 400 <= status < 500
    assert code_of(plain) == code


def test_compressed_requests_are_not_read(node: "FakeNode") -> None:
    headers = JSON | TOKEN | {"Content-Encoding": "gzip"}
    assert code_of(ask(node, "POST", f"{V1}/peers", b"\x1f\x8b", headers)[1]) == "encoded"


def test_a_bug_is_logged_and_answered(node: "FakeNode", caplog: pytest.LogCaptureFixture) -> None:
    status, plain, _ = ask(node, "POST", f"{V1}/peers", {"address": "bug:1"}, JSON | TOKEN)
    assert (status, code_of(plain)) == (500, "bug")
    assert "KeyError: 'a bug'" in caplog.text


def test_long_headers_are_refused(node: "FakeNode") -> None:
    assert ask(node, "GET", "/livez", headers={"X-Long": "x" * 5000})[0] == 400


def test_a_long_poll_waits_for_the_next_event(node: "FakeNode") -> None:
    node.emit("peer.alive", peer="two")
    first = ask(node, "GET", f"{V1}/events?since=0")[1]
    assert [event["type"] for event in first["items"]] == ["peer.alive"]
    answers: list[Any] = []
    path = f"{V1}/events?since={first['next']}&types=train.*"
    reader = threading.Thread(target=lambda: answers.append(ask(node, "GET", path)[1]))
    reader.start()
    node.emit("peer.dead")
    node.emit("train.step", step=3)
    reader.join(30)
    (page,) = answers
    assert [event["data"] for event in page["items"]] == [{"step": 3}]
    assert page["next"] == 3


def test_a_page_of_events_goes_on_where_it_ended(node: "FakeNode") -> None:
    for number in range(5):
        node.emit("train.step", step=number)
    page = ask(node, "GET", f"{V1}/events?since=0&limit=2")[1]
    assert (len(page["items"]), page["next"]) == (2, 2)
    page = ask(node, "GET", f"{V1}/events?since=2&limit=9")[1]
    assert (len(page["items"]), page["next"]) == (3, 5)
    assert ask(node, "GET", f"{V1}/events?since=5&timeout=0")[1] == {"items": [], "next": 5}


@pytest.mark.parametrize("query", ["since=x", "since=-1", "limit=1e9", "timeout=nan", "since=inf"])
def test_bad_numbers_are_refused(node: "FakeNode", query: str) -> None:
    assert code_of(ask(node, "GET", f"{V1}/events?{query}")[1]) == "bad_value"


def stream(node: "FakeNode", headers: str, blocks: int, emit: Callable[[], None]) -> list[bytes]:
    """The first blocks of a server-sent event stream; ``emit`` is called once it is open."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=30) as connection:
        request = f"GET {V1}/events HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n"
        connection.sendall(request.encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(4096)
        assert b"Content-Type: text/event-stream" in data
        emit()
        while data.count(b"\n\n") < blocks:
            data += connection.recv(4096)
    lines = [line.strip() for line in data.split(b"\r\n\r\n", 1)[1].split(b"\n")]
    return [line for line in lines if line.startswith((b"id:", b"event:", b"data:", b":"))]


def test_events_are_streamed_from_the_last_id(node: "FakeNode") -> None:
    node.emit("train.step", step=1)
    node.emit("train.step", step=2)
    headers = "Accept: text/event-stream\r\nLast-Event-ID: 1"
    lines = stream(node, headers, 2, lambda: node.emit("peer.alive"))
    assert lines[:2] == [b"id: 2", b"event: train.step"]
    assert json.loads(lines[2].removeprefix(b"data: "))["data"] == {"step": 2}
    assert lines[3:5] == [b"id: 3", b"event: peer.alive"]


def test_a_quiet_stream_is_kept_alive(node: "FakeNode", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.node.api.KEEP_ALIVE_S", 0.02)
    node.emit("train.step")
    headers = "Accept: text/event-stream\r\nLast-Event-ID: 1"
    assert stream(node, headers, 2, lambda: None)[:2] == [b": keep-alive", b"id: 1"]


def test_waiting_readers_are_bounded_and_end_with_the_node(
    home: Home, settings: Settings, run_node: "RunNode", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covey.node.api.READERS_MAX", 1)
    headers = "Accept: text/event-stream"
    with run_node(home, settings) as node:

        def second() -> None:
            assert code_of(ask(node, "GET", f"{V1}/events")[1]) == "too_many_readers"
            node.emit("train.step")

        stream(node, headers, 1, second)
        open_reader = socket.create_connection(("127.0.0.1", node.port), timeout=30)
        request = f"GET {V1}/events?since=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        open_reader.sendall(request.encode())
    with open_reader:  # the block above ended at once, though a reader was waiting
        assert open_reader.recv(4096) == b""


def test_ipv6_loopback_answers_on_the_same_port(node: "FakeNode") -> None:
    if not socket.has_ipv6:
        return
    connection = http.client.HTTPConnection("::1", node.port, timeout=30)
    with closing(connection):
        try:
            connection.request("GET", "/livez")
        except OSError:  # no IPv6 here; the API went on without
            return
        assert connection.getresponse().status == 200


def test_a_port_in_use_is_one_clear_line(home: Home, run_node: "RunNode") -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(api=Endpoint("127.0.0.1", taken.getsockname()[1]))
        refused = pytest.raises(OperatorError, match=r"port is in use.*--api 127.0.0.1:0")
        with refused, run_node(home, settings):
            raise AssertionError


def test_without_a_port_the_usual_one_or_another_is_taken(
    home: Home, run_node: "RunNode", monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("covey.node.api.API_PORT", taken.getsockname()[1])
        with run_node(home, Settings()) as node:
            assert node.port not in (0, taken.getsockname()[1])


def test_beyond_loopback_only_with_tls_and_token(
    home: Home, tmp_path: Path, run_node: "RunNode"
) -> None:
    anywhere = Endpoint("0.0.0.0", 0)
    with pytest.raises(OperatorError, match=r"without TLS.*api_cert"):
        start(home, Settings(api=anywhere), run_node)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    settings = Settings(api=anywhere, api_cert=str(cert), api_key=str(key))
    with pytest.raises(OperatorError, match="cannot read"):
        start(home, settings, run_node)
    cert.write_text("nonsense")
    key.write_text("nonsense")
    with pytest.raises(OperatorError, match="not a certificate"):
        start(home, settings, run_node)
    make_certificate(cert, key)
    with run_node(home, settings) as node:
        context = ssl.create_default_context(cafile=str(cert))

        def get(path: str, headers: dict[str, str]) -> int:
            connection = http.client.HTTPSConnection("localhost", node.port, context=context)
            with closing(connection):
                connection.request("GET", path, headers=headers)
                return connection.getresponse().status

        assert get("/livez", {}) == 200
        assert get("/metrics", {}) == 401
        assert get(f"{V1}/status", {}) == 401
        assert get(f"{V1}/status", TOKEN) == 200
        assert get(f"{V1}/status", TOKEN | {"Host": "elsewhere"}) == 403


def start(home: Home, settings: Settings, run_node: "RunNode") -> None:
    with run_node(home, settings):
        pass


def make_certificate(cert: Path, key: Path) -> None:
    """A self-signed one for localhost."""
    private = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    alternative = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    built = (
        x509.CertificateBuilder(name, name, private.public_key(), 1, now - day, now + day)
        .add_extension(alternative, critical=False)
        .sign(private, algorithm=None)
    )
    cert.write_bytes(built.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
