"""The signed envelope of every exchange message, and the window that refuses replays.

A message is announced, then its payload comes, then its envelope (node/letters.py): a head of fixed
form and a 64-byte signature.  The signature covers the head, which holds the payload's BLAKE3, so
that tensor bytes are hashed once, as they pass, and never signed directly; and what both sides know
and the wire need not repeat: the swarm, the sender, and the announcement.  That comes first so
that work on a payload may begin before its end; nothing comes of it before the envelope is checked.
"""

import struct
from collections import OrderedDict
from dataclasses import dataclass

from blake3 import blake3

from covey.protocols import limits, messages, packing
from covey.protocols.errors import Forged, Malformed, Stale, Unsupported
from covey.protocols.identity import Identity, PeerId, verify
from covey.protocols.messages import ExchangeMessage

VERSION = 2
# Of payloads: as strong as SHA-256, and several times faster without special hardware.
Hash = blake3
_DOMAIN = b"covey/envelope/2\0"
# Version, layout's digest, instance, sequence, length and hash of the payload.
_HEAD = struct.Struct(">B32s16sQQ32s")
_SIGNATURE_BYTES = 64
ENVELOPE_BYTES = _HEAD.size + _SIGNATURE_BYTES
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

    def __post_init__(self) -> None:
        assert len(self.swarm) == len(self.layout) == 32, "both are hashes"


@dataclass(frozen=True, slots=True)
class Opened:
    """An authenticated envelope.  Its payload is yet to be compared with ``payload_hash``."""

    layout: bytes
    instance: bytes  # 16 bytes
    sequence: int
    payload_length: int
    payload_hash: bytes

    def check(self, digest: bytes) -> None:
        """Raise Forged unless ``digest`` is the payload's BLAKE3 that was signed."""
        if digest != self.payload_hash:
            raise Forged("the payload does not match its signed hash")


class Sealer:
    """Seals this node's messages with a sequence that only grows within one boot."""

    def __init__(self, identity: Identity, instance: bytes) -> None:
        assert len(instance) == 16, "random bytes of a boot"
        self._identity = identity
        self._instance = instance
        self._sequence = 0

    def seal(self, scope: Scope, announcement: bytes, length: int, digest: bytes) -> bytes:
        """The envelope of what was announced and a payload of ``length`` bytes with that BLAKE3."""
        self._sequence += 1
        head = _HEAD.pack(VERSION, scope.layout, self._instance, self._sequence, length, digest)
        signed = _signed(head, announcement, self._identity.peer, scope.swarm)
        return head + self._identity.sign(signed)


def open_sealed(envelope: bytes, announcement: bytes, sender: PeerId, swarm: bytes) -> Opened:
    """Check that ``sender`` sealed ``announcement`` for ``swarm``.

    Raises Malformed, Unsupported or Forged.  The caller compares the layout and the payload's
    length, and passes the sequence to a ReplayWindow.
    """
    if envelope and envelope[0] != VERSION:
        raise Unsupported(f"envelope version {envelope[0]}, not {VERSION}")
    if len(envelope) != ENVELOPE_BYTES:
        raise Malformed(f"an envelope of {len(envelope)} bytes, not {ENVELOPE_BYTES}")
    head, signature = envelope[: _HEAD.size], envelope[_HEAD.size :]
    verify(sender, _signed(head, announcement, sender, swarm), signature)
    return Opened(*_HEAD.unpack(head)[1:])


def _signed(head: bytes, announcement: bytes, sender: PeerId, swarm: bytes) -> bytes:
    """What a signature covers; all but the last part are of fixed length."""
    return _DOMAIN + swarm + sender.key + head + announcement


def announce(message: ExchangeMessage) -> bytes:
    """What a message says, which goes before its payload."""
    return packing.pack([type(message).__name__.lower(), packing.to_map(message)])


def announced(data: bytes) -> ExchangeMessage:
    """Read ``announce`` back.  Raises TooLarge, Malformed or Unsupported."""
    parts = packing.unpack(data, limits.MESSAGE_BYTES_MAX)
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
