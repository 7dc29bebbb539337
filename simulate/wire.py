"""How many bytes a message takes on the wire, announced and sealed, without signing it.

Hashing and signing would cost more than the rest of a small simulation, and their length is known.
"""

from dataclasses import dataclass, field, fields
from functools import cache
from typing import cast

from covey.gossip.core import Outgoing
from covey.protocols.envelope import Scope, Sealer, announce
from covey.protocols.identity import Identity

_SCOPE = Scope(bytes(32), bytes(32))


@dataclass
class Wire:
    """Sizes of messages: one of each kind and width is sealed and measured."""

    _headers: dict[tuple[object, ...], int] = field(default_factory=dict)

    def size(self, out: Outgoing) -> int:
        """In bytes, announcement, payload, header and signature; the lengths of chunks and TLS
        come on top."""
        message, payload = out.message, len(out.payload)
        kind = type(message)
        values = [getattr(message, name) for name in _varying(cast(type, kind))]
        # A float takes 8 bytes whatever it is, but what is whole may come as an int, of fewer.
        widths = [float if type(value) is float else value for value in values]
        key = kind, payload.bit_length(), *widths  # decide the size packed
        header = self._headers.get(key)
        if header is None:
            sealer = Sealer(Identity(bytes(32)), bytes(16))
            header = len(announce(message)) + len(sealer.seal(_SCOPE, message, out.payload))
            self._headers[key] = header
        return header + payload


@cache
def _varying(kind: type) -> tuple[str, ...]:
    """The fields of ``kind`` but those of bytes: names and nonces, of one length each."""
    return tuple(entry.name for entry in fields(kind) if entry.type is not bytes)
