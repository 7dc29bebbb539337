"""Who gets through a handshake, on real sockets, and what it costs in bytes."""

import asyncio
import datetime
import ssl
from collections.abc import Callable

import pytest

from covey.node.ledger import Lane, Ledger
from covey.node.tls import Credentials, Handshake, PeerContext, PeerSocket, WrongIdentity, handshake
from covey.protocols import certificates
from covey.protocols.errors import Forged
from covey.protocols.identity import Identity
from tests.node.members import OTHER_SECRET, SECRET, Proxy, noise

SERVER, CLIENT, THIRD = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
Change = Callable[[PeerContext], None]


def credentials(identity: Identity, secret: bytes = SECRET) -> Credentials:
    return Credentials(identity, secret, Ledger())


class Meeting:
    """One connection between a server and a client context, and what both saw of it."""

    def __init__(self, server: PeerContext, client: ssl.SSLContext) -> None:
        self.server, self.client = server, client
        self.request = b"hello"
        self.answer = b"hello back"
        self.got = b""  # what the server's application saw
        self.reply = b""
        self.error: Exception | None = None  # the client's
        self.theirs: PeerSocket | None = None  # the server's socket, once it shook hands
        self.ours: PeerSocket | None = None
        self.handshake = Handshake()
        self.wire = (0, 0)  # bytes up and down, as a proxy counted them

    def run(self) -> "Meeting":
        asyncio.run(self._run())
        return self

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.server)
        async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
            host, _, port = proxy.address.partition(":")
            with handshake() as self.handshake:
                try:
                    reader, writer = await asyncio.open_connection(host, port, ssl=self.client)
                    self.ours = writer.get_extra_info("ssl_object")
                    writer.write(self.request)
                    async with asyncio.timeout(10):
                        self.reply = await reader.readexactly(len(self.answer))
                    self.wire = (proxy.up, proxy.down)
                    writer.transport.abort()
                except (OSError, asyncio.IncompleteReadError) as error:
                    self.error = error
        server.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.theirs = writer.get_extra_info("ssl_object")
        try:
            self.got = await reader.readexactly(len(self.request))
            writer.write(self.answer)
            await writer.drain()
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went, as many here do
        writer.transport.abort()


def meet(server: Credentials, client: Credentials, expected: Identity | None = None) -> Meeting:
    peer = expected.peer if expected is not None else None
    return Meeting(server.server_context(), client.client_context(Lane.CONTROL, peer)).run()


def test_members_prove_themselves_to_each_other() -> None:
    for expected in (SERVER, None):
        meeting = meet(credentials(SERVER), credentials(CLIENT), expected)
        assert (meeting.got, meeting.reply) == (b"hello", b"hello back")
        assert meeting.theirs is not None
        assert meeting.theirs.peer == CLIENT.peer
        assert meeting.handshake.peer == SERVER.peer
        assert meeting.theirs.version() == "TLSv1.3"


def test_another_swarms_server_is_refused_and_told_so() -> None:
    meeting = meet(credentials(SERVER, OTHER_SECRET), credentials(CLIENT))
    assert isinstance(meeting.handshake.refusal, ssl.SSLCertVerificationError)
    assert meeting.theirs is None


def test_another_swarms_client_is_refused_and_told_so() -> None:
    client = credentials(CLIENT)
    client._pem = credentials(CLIENT, OTHER_SECRET)._pem  # trusts this swarm, is of another
    meeting = meet(credentials(SERVER), client)
    assert meeting.handshake.refusal is not None
    assert "UNKNOWN_CA" in meeting.handshake.refusal.reason
    assert meeting.got == b""


def test_a_self_signed_client_is_refused() -> None:
    client = credentials(CLIENT)
    own = Identity(b"7" * 32)
    # A leaf signed by its own key, under the names that a real one has.
    fake = certificates._builder(
        "covey node",
        certificates._authority_key(own.seed).public_key(),
        certificates._authority_key(own.seed),
        serial=5,
    )
    der = certificates._signed(fake, certificates._authority_key(own.seed))
    key = Identity(certificates._authority_key(own.seed).private_bytes_raw())
    client._pem = certificates.pem(der, key)
    meeting = meet(credentials(SERVER), client)
    assert meeting.error is not None
    assert meeting.got == b""


def test_a_client_without_a_certificate_is_refused() -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE
    meeting = Meeting(credentials(SERVER).server_context(), bare).run()
    assert meeting.error is not None
    assert meeting.got == b""


def test_nothing_below_tls_1_3() -> None:
    old = credentials(CLIENT).client_context(Lane.CONTROL, None)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    meeting = Meeting(credentials(SERVER).server_context(), old).run()
    assert meeting.error is not None
    assert meeting.theirs is None


def test_a_wrong_peer_gets_no_byte() -> None:
    # This fails loudly if asyncio stops building its TLS objects through wrap_bio.
    meeting = meet(credentials(SERVER), credentials(CLIENT), expected=THIRD)
    assert isinstance(meeting.error, WrongIdentity)
    assert str(meeting.error) == f"it is {SERVER.peer.short}, not {THIRD.peer.short}"
    assert meeting.got == b""


def test_a_wrong_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    past = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    monkeypatch.setattr(certificates, "_NOT_BEFORE", past)
    monkeypatch.setattr(certificates, "_NOT_AFTER", past + datetime.timedelta(days=1))
    meeting = meet(credentials(SERVER), credentials(CLIENT), expected=SERVER)
    assert meeting.reply == b"hello back"


@pytest.mark.parametrize("lane", list(Lane))
def test_every_byte_is_counted_in_its_lane(lane: Lane) -> None:
    ours, theirs = Ledger(), Ledger()
    meeting = Meeting(
        Credentials(SERVER, SECRET, theirs).server_context(),
        Credentials(CLIENT, SECRET, ours).client_context(lane, SERVER.peer),
    )
    meeting.request, meeting.answer = noise(300_000), noise(1_000_000)
    meeting.run()
    up, down = meeting.wire
    assert meeting.reply == meeting.answer
    assert (ours.sent[lane], ours.received[lane]) == (up, down)
    assert (theirs.received[lane], theirs.sent[lane]) == (up, down)
    records = 1_000_000 // 16384 + 1
    assert 1_000_000 + 22 * records < down < 1_010_000
    assert [sum(ledger.sent.values()) for ledger in (ours, theirs)] == [up, down]


def test_a_refused_handshake_is_counted_too() -> None:
    ledger = Ledger()
    meeting = Meeting(
        Credentials(SERVER, OTHER_SECRET, ledger).server_context(),
        credentials(CLIENT).client_context(Lane.STATE, None),
    ).run()
    assert meeting.error is not None
    assert ledger.sent[Lane.STATE] > 500
    assert ledger.received[Lane.STATE] > 200


def test_a_certificate_without_an_ed25519_key_proves_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_key(certificate: bytes) -> None:
        raise Forged("the certificate holds no Ed25519 key")

    monkeypatch.setattr("covey.node.tls.peer_of", no_key)
    meeting = meet(credentials(SERVER), credentials(CLIENT))
    assert isinstance(meeting.error, WrongIdentity)
    assert meeting.theirs is None


def test_the_key_is_read_from_a_file_where_there_is_no_memory_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("covey.node.tls.sys.platform", "darwin")
    assert meet(credentials(SERVER), credentials(CLIENT)).reply == b"hello back"
