"""How many bytes a message takes on the wire, announced and sealed, without signing it.

Hashing and signing would cost more than the rest of a small simulation, and their length is known.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from typing import cast

from covey.gossip.core import Outgoing
from covey.protocols.envelope import ENVELOPE_BYTES, announce


@dataclass
class Wire:
    """Sizes of messages: one of each kind and width is packed and measured."""

    _announced: dict[tuple[object, ...], int] = field(default_factory=dict)

    def size(self, out: Outgoing) -> int:
        """In bytes, announcement, payload and envelope; the lengths of chunks and TLS come on
        top."""
        message = out.message
        key = type(message), *(_width(value) for value in _values(message))
        announced = self._announced.get(key)
        if announced is None:
            announced = self._announced[key] = len(announce(message))
        return announced + len(out.payload) + ENVELOPE_BYTES


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
