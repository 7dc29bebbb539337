"""How many bytes a message takes on the wire, announced and sealed, without signing it.

Hashing and signing would cost more than the rest of a small simulation, and their length is known.
"""

from dataclasses import dataclass, field

from covey.gossip.core import Outgoing
from covey.protocols import packing
from covey.protocols.envelope import Scope, Sealer, announce
from covey.protocols.identity import Identity

_SCOPE = Scope(bytes(32), bytes(32))


@dataclass
class Wire:
    """Sizes of messages: one envelope of each kind is sealed and measured."""

    _envelopes: dict[tuple[type, int], int] = field(default_factory=dict)

    def size(self, out: Outgoing) -> int:
        """In bytes, announcement, payload, header and signature; the lengths of chunks and TLS
        come on top."""
        payload, message = len(out.payload), len(packing.pack(packing.to_map(out.message)))
        key = type(out.message), payload.bit_length()  # decides how the length is packed
        if key not in self._envelopes:
            sealer = Sealer(Identity(bytes(32)), bytes(16))
            self._envelopes[key] = len(sealer.seal(_SCOPE, out.message, out.payload)) - message
        return len(announce(out.message)) + payload + self._envelopes[key] + message
