"""TLS 1.3 between members of one swarm: who the other end is, and how many bytes went each way.

Both ends show a leaf signed by the swarm's CA (protocols/certificates.py).  The client's contexts
pin the expected identity inside the handshake, so a wrong peer never sees an HTTP byte.
"""

import os
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from covey.node.ledger import Lane, Ledger
from covey.node.streams import Buffer
from covey.protocols.certificates import authority, leaf, peer_of, pem
from covey.protocols.errors import Forged
from covey.protocols.identity import Identity, PeerId

# X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name: clocks on a LAN are wrong.
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
RECORD_BYTES = 1 << 14  # the most in one (RFC 8446, 5.1)


class WrongIdentity(ssl.SSLError):
    """The other end is a member, but not the peer that was dialed."""

    def __init__(self, message: str) -> None:
        super().__init__(0, message)  # two arguments, or str() shows a tuple


class Handshake:
    """How one ended: whom it proved, or why this or the other side refused."""

    def __init__(self) -> None:
        self.peer: PeerId | None = None
        self.refusal: ssl.SSLError | None = None


_current: ContextVar[Handshake | None] = ContextVar("handshake", default=None)


@contextmanager
def handshake() -> Iterator[Handshake]:
    """Tells how the handshake of a connection that is opened in the block ends.

    asyncio reports some refusals only as a connection that broke, because the other end's close
    comes first, and a client of aiohttp never sees the socket.
    """
    record = Handshake()
    token = _current.set(record)
    try:
        yield record
    finally:
        _current.reset(token)


class PeerSocket(ssl.SSLObject):
    """TLS over memory buffers that proves the peer and counts the bytes.

    Tunnels (tunnel.py) and asyncio build it through ``SSLContext.wrap_bio``; a handler gets it from
    its transport by ``get_extra_info("ssl_object")``.
    """

    peer: PeerId  # whose key the handshake proved; unset before
    _handshake: Handshake
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _policy: "PeerContext"
    _refusal: ssl.SSLError | None
    _lane: Lane | None
    drained: bool  # nothing is left of what was fed, for certain

    def bind(
        self, policy: "PeerContext", incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> "PeerSocket":
        """Take over the buffers; the stand-in for __init__, which SSLObject forbids."""
        self._policy, self._incoming, self._outgoing = policy, incoming, outgoing
        self._handshake = _current.get() or Handshake()
        self._refusal = None
        self._lane = policy.lane
        self.drained = False
        return self

    @property
    def lane(self) -> Lane:
        """What the connection is for, once it is open."""
        return self._lane or Lane.CONTROL

    @property
    def refused(self) -> bool:
        """Whether we did, and the alert that says why is to be sent."""
        return self._refusal is not None

    def do_handshake(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        waiting, queued = self._incoming.pending, self._outgoing.pending
        try:
            super().do_handshake()
            self.peer = self._proven()
            self._handshake.peer = self.peer
            self._lane = self._lane or Lane.of_alpn(self.selected_alpn_protocol())
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as refusal:
            self._handshake.refusal = refusal
            if isinstance(refusal, WrongIdentity) or not self._outgoing.pending:
                raise
            # asyncio would drop the alert that tells the other end why; ask it to flush first.
            self._refusal = refusal
            raise ssl.SSLWantReadError("the alert is on its way") from refusal
        finally:
            self._count(waiting, queued)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        waiting, queued = self._incoming.pending, self._outgoing.pending
        try:
            return super().read(len, buffer)
        except ssl.SSLError as error:
            self._note(error)
            raise
        finally:
            self._count(waiting, queued)

    def write(self, data: Any) -> int:
        waiting, queued = self._incoming.pending, self._outgoing.pending
        try:
            return super().write(data)
        finally:
            self._count(waiting, queued)

    def unwrap(self) -> None:
        waiting, queued = self._incoming.pending, self._outgoing.pending
        try:
            super().unwrap()
        finally:
            self._count(waiting, queued)

    # --- what a tunnel calls: all at once, where asyncio goes record by record -------------------

    def feed(self, sealed: Buffer) -> None:
        """Take what has come from the other end."""
        self._incoming.write(sealed)
        self.drained = False

    def sealed(self) -> bytes:
        """What is to be sent to it."""
        return self._outgoing.read()

    def decrypt(self, target: memoryview) -> int:
        """Fill ``target`` as far as what was fed goes; 0 after the other end's goodbye.

        Raises SSLWantReadError if there is nothing: who looks at ``drained`` need not be told so
        by an exception, which is slow.
        """
        waiting, queued, filled = self._incoming.pending, self._outgoing.pending, 0
        # What super().read calls, four hundred times for ten million parameters.
        read: Callable[[int, memoryview], int] = self._sslobj.read  # type: ignore[attr-defined]
        size = len(target)
        try:
            while filled < size and (count := read(RECORD_BYTES, target[filled:])):
                filled += count
        except ssl.SSLWantReadError:
            self.drained = True
            if not filled:
                raise
        except ssl.SSLError as error:
            self._note(error)
            raise
        finally:
            self._count(waiting, queued)
        return filled

    def encrypt(self, data: Buffer) -> None:
        """Seal all of ``data``."""
        waiting, queued = self._incoming.pending, self._outgoing.pending
        write, view = super().write, memoryview(data)
        try:
            while view:
                view = view[write(view) :]  # a record
        finally:
            self._count(waiting, queued)

    def goodbye(self) -> None:
        """Seal one, whether or not the other end's has come."""
        with suppress(ssl.SSLError):  # what it said meanwhile is lost on us
            self.unwrap()

    def count(self, received: int = 0, sent: int = 0) -> None:
        """Bytes that passed."""
        lane = self._lane or Lane.of_alpn(self.selected_alpn_protocol())
        self._policy.ledger.received[lane] += received
        self._policy.ledger.sent[lane] += sent

    # --- inside ----------------------------------------------------------------------------------

    def _count(self, waiting: int, queued: int) -> None:
        self.count(waiting - self._incoming.pending, self._outgoing.pending - queued)

    def _note(self, error: ssl.SSLError) -> None:
        # In TLS 1.3 the server refuses a client's certificate after the client's handshake.
        if "ALERT" in (getattr(error, "reason", None) or ""):
            self._handshake.refusal = error

    def _proven(self) -> PeerId:
        certificate = self.getpeercert(True)
        assert certificate is not None, "a handshake with CERT_REQUIRED has a certificate"
        try:
            peer = peer_of(certificate)
        except Forged as error:
            raise WrongIdentity(str(error)) from error
        expected = self._policy.expected
        if expected is not None and peer != expected:
            raise WrongIdentity(f"it is {peer.short}, not {expected.short}")
        return peer


class PeerContext(ssl.SSLContext):
    """One side's rules.  ``expected`` pins the peer; ``lane`` is None on the server, where each
    client names its own."""

    sslobject_class = PeerSocket
    ledger: Ledger
    lane: Lane | None = None
    expected: PeerId | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> PeerSocket:
        # No host name: peers are keys, and a name in the ClientHello would only leak.
        wrapped = super().wrap_bio(incoming, outgoing, server_side)
        assert isinstance(wrapped, PeerSocket), "sslobject_class made it"
        return wrapped.bind(self, incoming, outgoing)


class Credentials:
    """This node's membership of one swarm, as contexts for both ends of its connections."""

    def __init__(self, identity: Identity, secret: bytes, ledger: Ledger) -> None:
        self.peer = identity.peer
        self._ledger = ledger
        self._authority = authority(secret)
        self._pem = pem(leaf(secret, identity), identity)

    def server_context(self) -> PeerContext:
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # no resumption: identity is proven afresh each time
        context.set_alpn_protocols([lane.alpn for lane in Lane])
        return context

    def client_context(self, lane: Lane, expected: PeerId | None) -> PeerContext:
        """For connections of ``lane`` to ``expected``; None accepts any member (a first hello).

        Costs over a millisecond and about 20 KiB: make one per peer and lane, not per request.
        """
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.lane, context.expected = lane, expected
        context.set_alpn_protocols([lane.alpn])
        return context

    def _context(self, protocol: int) -> PeerContext:
        context = PeerContext(protocol)
        context.ledger = self._ledger
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= _NO_CHECK_TIME
        context.load_verify_locations(cadata=self._authority)
        with _as_file(self._pem) as path:
            context.load_cert_chain(path)
        return context


@contextmanager
def _as_file(secret: bytes) -> Iterator[str]:
    """A path to ``secret``, as load_cert_chain wants one; in memory where the system can."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("covey")
        try:
            os.write(descriptor, secret)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:  # 0600, removed at once
            file.write(secret)
            file.flush()
            yield file.name
