"""Strict msgpack, and frozen dataclasses to and from it.

Sizes are checked before anything is allocated, extension types are refused, map keys are strings.
A dataclass travels as a map of its fields: an unknown field is ignored (a newer peer may send it),
a missing, mistyped, oversized one or a NaN is Malformed.
"""

import dataclasses
import math
import types
import typing
from functools import cache
from typing import Any, TypeVar

import msgpack

from covey.protocols import limits
from covey.protocols.errors import Malformed, TooLarge

T = TypeVar("T")
_SCALARS = {bytes, str, int, float, bool, type(None)}


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(data: bytes | memoryview, limit: int) -> Any:
    """Decode one value from at most ``limit`` bytes.  Raises Malformed or TooLarge.

    Takes at most about 20 times the bytes in memory, and 8 MB for empty lists and maps.
    """
    if len(data) > limit:
        raise TooLarge(f"{len(data)} bytes where at most {limit} are allowed")
    containers = _Containers()
    try:
        _check_complete(data)
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=limit,
            max_bin_len=limit,
            max_array_len=min(limit, limits.TENSORS_MAX),
            max_map_len=1024,
            max_ext_len=0,
            ext_hook=_no_extension,
            list_hook=containers.counted,
            object_hook=containers.counted_map,
        )
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(f"not msgpack: {type(error).__name__}") from error


def _check_complete(data: bytes | memoryview) -> None:
    """Raise ValueError or UnpackException unless ``data`` is one whole value.

    The decoder allocates a list as long as its head claims before it reads the first item, and
    lists nest: 3 kB of heads alone took 67 MB.  Skipping over the items first allocates nothing.
    """
    skipper = msgpack.Unpacker(max_buffer_size=max(1, len(data)))
    skipper.feed(data)
    skipper.skip()
    if skipper.tell() != len(data):
        raise ValueError("bytes follow the value")


class _Containers:
    """Counts lists and maps while they are decoded, and looks at the keys of maps."""

    def __init__(self) -> None:
        self._left = limits.CONTAINERS_MAX

    def counted(self, container: T) -> T:
        self._left -= 1
        if self._left < 0:
            raise TooLarge(f"more than {limits.CONTAINERS_MAX} lists and maps")
        return container

    def counted_map(self, container: dict[Any, Any]) -> dict[Any, Any]:
        if not all(type(key) is str for key in container):  # bytes pass strict_map_key
            raise Malformed("a map key is not a string")
        return self.counted(container)


def _no_extension(code: int, data: bytes) -> Any:
    raise Malformed(f"extension type {code}")


def to_map(message: Any) -> dict[str, Any]:
    """A dataclass as a map of plain values; nested dataclasses become maps too."""
    return {
        name: _plain(getattr(message, name)) for name in _names(typing.cast(type, type(message)))
    }


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _plain(value: Any) -> Any:
    if type(value) in _SCALARS:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_map(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def from_map(kind: type[T], value: Any) -> T:
    """Build the dataclass ``kind`` from a decoded map.  Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed(f"{kind.__name__} is not a map")
    arguments = {}
    for name, annotation, required in _fields(typing.cast(type, kind)):
        if name in value:
            arguments[name] = _typed(f"{kind.__name__}.{name}", annotation, value[name])
        elif required:
            raise Malformed(f"{kind.__name__} lacks {name}")
    try:
        return kind(**arguments)
    except ValueError as error:  # from __post_init__, which states the field's own bounds
        raise Malformed(f"{kind.__name__}: {error}") from error


@cache
def _fields(kind: type) -> list[tuple[str, Any, bool]]:
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    return [
        (f.name, hints[f.name], f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(kind)
    ]


def _typed(where: str, annotation: Any, value: Any) -> Any:
    origin = typing.get_origin(annotation)
    if origin is tuple:
        if not isinstance(value, list):
            raise Malformed(f"{where} is not a list")
        item = typing.get_args(annotation)[0]  # tuple[X, ...] only
        return tuple(_typed(where, item, element) for element in value)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
        return _typed(where, annotation, value)
    if dataclasses.is_dataclass(annotation):
        return from_map(typing.cast(type, annotation), value)
    if annotation is float:
        if type(value) not in (int, float) or math.isnan(value):
            raise Malformed(f"{where} is not a number")
        return float(value)
    if type(value) is not annotation:
        raise Malformed(f"{where} is not {annotation.__name__}")
    return value
