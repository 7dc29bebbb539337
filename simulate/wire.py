"""How many bytes a message takes on the wire, announced and sealed, without signing it.

Hashing and signing would cost more than the rest of a small simulation, and their length is known.
"""

from collections.abc import Iterator
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
        key = type(message), payload.bit_length(), *(_width(value) for value in _values(message))
        header = self._headers.get(key)
        if header is None:
            sealer = Sealer(Identity(bytes(32)), bytes(16))
            header = len(announce(message)) + len(sealer.seal(_SCOPE, message, out.payload))
            self._headers[key] = header
        return header + payload


def _values(message: object) -> Iterator[object]:
    return (getattr(message, name) for name in _names(cast(type, type(message))))


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(kind))


def _width(value: object) -> object:
    """What decides how many bytes ``value`` takes when packed."""
    if isinstance(value, bytes):
        return len(value)
    # A float takes 8 bytes whatever it is, but what is whole may come as an int, of fewer.
    return float if type(value) is float else value
