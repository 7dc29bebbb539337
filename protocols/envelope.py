"""The signed envelope round every exchange message, and the window that refuses replays.

On the wire: 4-byte big-endian length, the packed header, its 64-byte signature, the payload.
The signature covers the header, which holds the payload's SHA-256, so tensor bytes are hashed once
and never signed directly.
"""

import hashlib
import struct
from collections import OrderedDict
from dataclasses import dataclass

from covey.protocols import limits, messages, packing
from covey.protocols.errors import Forged, Malformed, Stale, TooLarge, Unsupported
from covey.protocols.identity import Identity, PeerId, verify
from covey.protocols.messages import ExchangeMessage

VERSION = 1
LENGTH = struct.Struct(">I")
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
    """An authenticated envelope.  The payload has yet to arrive and match ``payload_hash``."""

    sender: PeerId
    instance: bytes
    sequence: int
    scope: Scope
    message: ExchangeMessage
    payload_length: int
    payload_hash: bytes

    def check(self, payload: bytes | bytearray | memoryview) -> None:
        """Raise Forged unless ``payload`` is the one that was signed."""
        if hashlib.sha256(payload).digest() != self.payload_hash:
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
        """The length-prefixed signed header for ``message``; the payload follows it on the wire."""
        self._sequence += 1
        header = Header(
            version=VERSION,
            swarm=scope.swarm,
            layout=scope.layout,
            sender=self._identity.peer.key,
            instance=self._instance,
            sequence=self._sequence,
            kind=type(message).__name__.lower(),
            payload_length=memoryview(payload).nbytes,
            payload_hash=hashlib.sha256(payload).digest(),
        )
        signed = packing.pack([packing.to_map(header), packing.to_map(message)])
        sealed = signed + self._identity.sign(_DOMAIN + signed)
        return LENGTH.pack(len(sealed)) + sealed


def open_sealed(sealed: bytes) -> Opened:
    """Check size, signature, version and form of a header (without its length prefix).

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
    kind = _KINDS.get(header.kind)
    if kind is None:
        raise Unsupported(f"unknown message {header.kind[:32]!r}")
    return Opened(
        sender=sender,
        instance=header.instance,
        sequence=header.sequence,
        scope=Scope(header.swarm, header.layout),
        message=packing.from_map(kind, parts[1]),
        payload_length=header.payload_length,
        payload_hash=header.payload_hash,
    )


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
