"""How many bytes a message takes on the wire, its signed envelope included, without signing it.

Signing costs more than everything else a small simulation does, and its length is always the same.
"""

from dataclasses import dataclass, field

from covey.gossip.core import Outgoing
from covey.protocols.envelope import Scope, Sealer
from covey.protocols.identity import Identity

_SCOPE = Scope(bytes(32), bytes(32))


@dataclass
class Wire:
    """Sizes of messages: a sealed one of each kind is measured once."""

    _headers: dict[tuple[type, int], int] = field(default_factory=dict)

    def size(self, out: Outgoing) -> int:
        """In bytes, header, signature and payload; TLS and HTTP come on top."""
        payload = len(out.payload)
        key = type(out.message), payload.bit_length()
        if key not in self._headers:
            sealer = Sealer(Identity(bytes(32)), bytes(16))
            self._headers[key] = len(sealer.seal(_SCOPE, out.message, out.payload))
        return self._headers[key] + payload
