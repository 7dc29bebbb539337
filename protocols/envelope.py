"""The signed envelope of every exchange message, and the window that refuses replays.

It is the packed header and its 64-byte signature, and follows the payload (node/letters.py).
The signature covers the header, which holds the payload's BLAKE3, so tensor bytes are hashed once,
as they pass, and never signed directly.  What the message says is announced before its payload, so
that work on it may begin; nothing comes of it before the envelope is checked.
"""

from collections import OrderedDict
from dataclasses import dataclass

from blake3 import blake3

from covey.protocols import limits, messages, packing
from covey.protocols.errors import Forged, Malformed, Stale, TooLarge, Unsupported
from covey.protocols.identity import Identity, PeerId, verify
from covey.protocols.messages import ExchangeMessage

VERSION = 1
# Of payloads: as strong as SHA-256, and several times faster without special hardware.
Hash = blake3
_DOMAIN = b"covey/envelope/1\0"
_KINDS: dict[str, type[ExchangeMessage]] = {
    kind.__name__.lower(): kind
    for kind in (
        messages.Propose,
        messages.Accept,
        messages.Commit,
        messages.More,
        messages.Settled,
        messages.Busy,
        messages.Refuse,
        messages.Pull,
        messages.Pulled,
        messages.Push,
        messages.Pushed,
        messages.Handover,
        messages.Taken,
        messages.Onward,
        messages.Noted,
    )
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What both ends must share for a message to mean anything: the swarm and the layout."""

    swarm: bytes  # 32 bytes
    layout: bytes  # 32 bytes


@dataclass(frozen=True, slots=True)
class Header:
    """The signed part, as maps of plain values."""

    version: int
    swarm: bytes
    layout: bytes
    sender: bytes
    instance: bytes
    sequence: int
    kind: str
    payload_length: int
    payload_hash: bytes

    def __post_init__(self) -> None:
        if len(self.sender) != 32 or len(self.instance) != 16 or len(self.payload_hash) != 32:
            raise ValueError("an id, instance or hash has the wrong length")
        if not 0 <= self.sequence < 2**63 or self.payload_length < 0:
            raise ValueError("a sequence or length is out of range")


@dataclass(frozen=True, slots=True)
class Opened:
    """An authenticated envelope.  Its payload is yet to be compared with ``payload_hash``."""

    sender: PeerId
    instance: bytes
    sequence: int
    scope: Scope
    message: ExchangeMessage
    payload_length: int
    payload_hash: bytes

    def check(self, payload: bytes | bytearray | memoryview) -> None:
        """Raise Forged unless ``payload`` is the one that was signed."""
        self.check_digest(Hash(memoryview(payload).cast("B")).digest())

    def check_digest(self, digest: bytes) -> None:
        """Raise Forged unless ``digest`` is the BLAKE3 that was signed."""
        if digest != self.payload_hash:
            raise Forged("the payload does not match its signed hash")


class Sealer:
    """Seals this node's messages with a sequence that only grows within one boot."""

    def __init__(self, identity: Identity, instance: bytes) -> None:
        self._identity = identity
        self._instance = instance
        self._sequence = 0

    def seal(
        self, scope: Scope, message: ExchangeMessage, payload: bytes | bytearray | memoryview = b""
    ) -> bytes:
        """The signed header for ``message`` and its payload."""
        plain = memoryview(payload).cast("B")
        return self.seal_digest(scope, message, len(plain), Hash(plain).digest())

    def seal_digest(
        self, scope: Scope, message: ExchangeMessage, length: int, digest: bytes
    ) -> bytes:
        """``seal``, for a payload of ``length`` bytes whose BLAKE3 is known."""
        self._sequence += 1
        header = Header(
            version=VERSION,
            swarm=scope.swarm,
            layout=scope.layout,
            sender=self._identity.peer.key,
            instance=self._instance,
            sequence=self._sequence,
            kind=type(message).__name__.lower(),
            payload_length=length,
            payload_hash=digest,
        )
        signed = packing.pack([packing.to_map(header), packing.to_map(message)])
        return signed + self._identity.sign(_DOMAIN + signed)


def open_sealed(sealed: bytes) -> Opened:
    """Check size, signature, version and form of a header.

    Raises TooLarge, Malformed, Forged or Unsupported.  The caller compares the sender with the
    connection's, the scope with its own, and passes the sequence to a ReplayWindow.
    """
    if len(sealed) > limits.HEADER_BYTES_MAX:
        raise TooLarge(f"a header of {len(sealed)} bytes; the most is {limits.HEADER_BYTES_MAX}")
    if len(sealed) < 64:
        raise Malformed("a header is shorter than its signature")
    signed, signature = sealed[:-64], sealed[-64:]
    parts = packing.unpack(signed, limits.HEADER_BYTES_MAX)
    if not isinstance(parts, list) or len(parts) != 2:
        raise Malformed("a header is [envelope, message]")
    version = parts[0].get("version") if isinstance(parts[0], dict) else None
    if type(version) is int and version != VERSION:
        raise Unsupported(f"envelope version {version}, not {VERSION}")
    header = packing.from_map(Header, parts[0])
    sender = PeerId(header.sender)
    verify(sender, _DOMAIN + signed, signature)
    return Opened(
        sender=sender,
        instance=header.instance,
        sequence=header.sequence,
        scope=Scope(header.swarm, header.layout),
        message=_message(header.kind, parts[1]),
        payload_length=header.payload_length,
        payload_hash=header.payload_hash,
    )


def announce(message: ExchangeMessage) -> bytes:
    """What goes before the payload."""
    return packing.pack([type(message).__name__.lower(), packing.to_map(message)])


def announced(data: bytes) -> ExchangeMessage:
    """Read ``announce`` back.  Raises TooLarge, Malformed or Unsupported."""
    parts = packing.unpack(data, limits.HEADER_BYTES_MAX)
    if not isinstance(parts, list) or len(parts) != 2 or not isinstance(parts[0], str):
        raise Malformed("an announcement is [kind, message]")
    return _message(parts[0], parts[1])


def _message(name: str, fields: object) -> ExchangeMessage:
    kind = _KINDS.get(name)
    if kind is None:
        raise Unsupported(f"unknown message {name[:32]!r}")
    return packing.from_map(kind, fields)


class ReplayWindow:
    """Accepts each sequence number of each sender's boot once, and none far below the highest.

    Source: the sliding window of RFC 6479 (IPsec anti-replay), as one integer bitmap per sender.
    """

    def __init__(self) -> None:
        # Oldest first: beyond the bound the sender not heard of for longest is forgotten.
        self._seen: OrderedDict[tuple[PeerId, bytes], tuple[int, int]] = OrderedDict()

    def admit(self, sender: PeerId, instance: bytes, sequence: int) -> None:
        """Raise Stale if ``sequence`` was seen before or is older than the window."""
        highest, bitmap = self._seen.pop((sender, instance), (-1, 0))
        behind = highest - sequence
        stale = behind >= limits.REPLAY_WINDOW or (behind >= 0 and bool(bitmap >> behind & 1))
        if not stale and behind < 0:
            shift = min(-behind, limits.REPLAY_WINDOW)
            bitmap = (bitmap << shift | 1) & ((1 << limits.REPLAY_WINDOW) - 1)
            highest = sequence
        elif not stale:
            bitmap |= 1 << behind
        self._seen[sender, instance] = (highest, bitmap)
        while len(self._seen) > limits.PEERS_MAX:
            self._seen.popitem(last=False)
        if stale:
            raise Stale(f"message {sequence} of {sender.short} was seen before or is too old")
