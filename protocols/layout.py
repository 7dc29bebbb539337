"""A model's shape as two peers must agree on it: names, shapes, dtypes and kinds, in order.

The shared tensors are flattened into one float32 vector, parameters first, then buffers.  Two nodes
mix only if their layouts have the same digest; if not, ``difference`` says which tensor differs.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import Any

from covey.protocols import limits, packing
from covey.protocols.errors import Malformed, TooLarge


class Kind(StrEnum):
    """How a tensor takes part: parameters are mixed and get the outer step, buffers averaged."""

    PARAMETER = "parameter"
    BUFFER = "buffer"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One shared tensor.  ``dtype`` is the learner's own (``float32``, ``bfloat16``, ``float16``);
    in the vectors every element is float32."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    kind: Kind = Kind.PARAMETER

    @property
    def size(self) -> int:
        return prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Layout:
    """The shared tensors in vector order.

    Raises ValueError for a duplicate name or a parameter that follows a buffer.
    """

    tensors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise ValueError(f"two shared tensors are called {twice!r}")
        kinds = [tensor.kind for tensor in self.tensors]
        if kinds != sorted(kinds, key=lambda kind: kind is Kind.BUFFER):
            raise ValueError("parameters come before buffers in a layout")

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> "Layout":
        """A layout in vector order from tensors in any order of kinds."""
        return cls(tuple(sorted(tensors, key=lambda tensor: tensor.kind is Kind.BUFFER)))

    @cached_property
    def parameters(self) -> int:
        """Elements that are parameters: the first ``parameters`` of the vector."""
        return sum(t.size for t in self.tensors if t.kind is Kind.PARAMETER)

    @cached_property
    def size(self) -> int:
        """Elements of the vector."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes, which the digest is taken of."""
        rows = [[t.name, list(t.shape), t.dtype, str(t.kind)] for t in self.tensors]
        return packing.pack(rows)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes."""
        return hashlib.sha256(b"covey/layout/1\0" + self.encoded).digest()

    @classmethod
    def decode(cls, data: bytes) -> "Layout":
        """Read ``encoded`` back.  Raises Malformed or TooLarge."""
        rows = packing.unpack(data, limits.LAYOUT_BYTES_MAX)
        if not isinstance(rows, list) or not rows:
            raise Malformed("a layout is a list of tensors and has at least one")
        if len(rows) > limits.TENSORS_MAX:
            raise TooLarge(f"{len(rows)} tensors; the most is {limits.TENSORS_MAX}")
        tensors = tuple(_tensor(row) for row in rows)
        if sum(tensor.size for tensor in tensors) > limits.PARAMETERS_MAX:
            raise TooLarge(f"more than {limits.PARAMETERS_MAX} parameters")
        try:
            return cls(tensors)
        except ValueError as error:
            raise Malformed(str(error)) from error

    def difference(self, other: "Layout") -> str | None:
        """The first tensor in which ``other`` differs, in one line; None if there is none."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=False):
            if mine != theirs:
                return f"here {mine} ({mine.kind}), there {theirs} ({theirs.kind})"
        here, there = len(self.tensors), len(other.tensors)
        if here != there:
            extra = max(self.tensors, other.tensors, key=len)[min(here, there)]
            return f"{extra} is only {'here' if here > there else 'there'}"
        return None


def _tensor(row: Any) -> Tensor:
    match row:
        case [str(name), list(shape), str(dtype), str(kind)]:
            pass
        case _:
            raise Malformed("a tensor is [name, shape, dtype, kind]")
    if not name or len(name.encode()) > limits.NAME_BYTES_MAX or len(dtype) > 16:
        raise Malformed("a tensor's name or dtype is empty or too long")
    if not (name + dtype).isprintable():  # both are shown in terminals
        raise Malformed("a tensor's name or dtype is not printable")
    if len(shape) > limits.DIMENSIONS_MAX or not all(type(n) is int and n >= 0 for n in shape):
        raise Malformed(f"the shape of {name} is not a list of sizes")
    if prod(shape) > limits.PARAMETERS_MAX:
        raise TooLarge(f"{name} has more than {limits.PARAMETERS_MAX} elements")
    try:
        return Tensor(name, tuple(shape), dtype, Kind(kind))
    except ValueError as error:
        raise Malformed(f"{name} is of the unknown kind {kind[:16]!r}") from error
