"""The two ways an exchange may encode a vector, behind one interface.

``mod4`` sends parameters as layered 4-bit codes (quantiser.py) and buffers as float32: a running
variance must not be quantised below zero, and buffers are few.  ``f32`` sends everything exactly.
A ``Coder`` is one side of one exchange; a ``Side`` is what it reads of its node.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from covey.gossip import mixing, quantiser
from covey.gossip.quantiser import LAYERS, Floats, Quantiser
from covey.gossip.screening import Pair
from covey.protocols.errors import Malformed, Unsupported

Buffer = quantiser.Buffer


@dataclass(frozen=True, slots=True)
class Side:
    """This node's part: its vector, how many elements are parameters, and its block scales."""

    x: Floats
    parameters: int
    scales: Floats  # float32, one per block of parameters


class Coder(Protocol):
    """One side of one exchange.  Sizes are in bytes; reads raise Malformed.

    The proposer sends ``scales``; the accepter opens with them and sends its own and layer 0; then
    each side writes a layer as soon as it knows that one is needed; a reader that can ask for no
    more may ``skip`` what is unsure after layer 0.  When nothing is ``pending``,
    ``distances`` and ``largest`` tell of the difference and ``apply`` adds it, weighted, to x;
    after that the difference is gone.
    """

    @property
    def name(self) -> str: ...
    def scales(self) -> bytes: ...
    def open(self, theirs: Buffer, nonces: bytes) -> None: ...
    def write(self) -> Buffer: ...
    def read(self, data: Buffer) -> None: ...
    def layer_size(self) -> int: ...
    def skip(self) -> None: ...
    @property
    def pending(self) -> bool: ...
    @property
    def undecoded(self) -> float: ...
    def distances(self) -> Pair: ...
    def largest(self) -> Floats: ...
    def apply(self, x: Floats, weights: Pair) -> None: ...


def coder(name: str, side: Side) -> Coder:
    """The coder called ``name``.  Raises Unsupported for a name this version does not know."""
    if name == Mod4.name:
        return Mod4(side)
    if name == F32.name:
        return F32(side)
    raise Unsupported(f"unknown codec {name[:16]!r}; known are 'mod4' and 'f32'")


def scales_size(name: str, parameters: int) -> int:
    """Bytes of the scales that open an exchange."""
    return 2 * quantiser.blocks_in(parameters) if name == Mod4.name else 0


def split(payload: Buffer, size: int) -> tuple[memoryview, memoryview]:
    """The first ``size`` bytes and the rest.  Raises Malformed if there are fewer."""
    if len(payload) < size:
        raise Malformed(f"a payload of {len(payload)} bytes where at least {size} are due")
    view = memoryview(payload)
    return view[:size], view[size:]


def payload_limit(parameters: int, buffers: int) -> int:
    """The largest payload of any message of an exchange of such a vector, in bytes."""
    blocks = quantiser.blocks_in(parameters)
    coded = 2 * blocks + LAYERS * quantiser.layer_bytes(blocks) + 4 * buffers
    return max(coded, 4 * (parameters + buffers))


class F32:
    """Exact: the vector itself, little-endian float32, in one layer."""

    name = "f32"
    undecoded = 0.0

    def __init__(self, side: Side) -> None:
        self._x, self._parameters = side.x, side.parameters
        self._theirs: Floats | None = None

    def scales(self) -> bytes:
        return b""

    def open(self, theirs: Buffer, nonces: bytes) -> None:
        if len(theirs):
            raise Malformed("f32 has no scales")

    def write(self) -> Buffer:
        little = self._x.astype("<f4", copy=False)
        return memoryview(little.data).cast("B")

    def layer_size(self) -> int:
        return 4 * len(self._x)

    def read(self, data: Buffer) -> None:
        self._theirs = floats(data, len(self._x))

    def skip(self) -> None:
        """Nothing is ever unsure."""

    @property
    def pending(self) -> bool:
        return self._theirs is None

    def distances(self) -> Pair:
        theirs, split = self._decoded, self._parameters
        return (
            mixing.norm(theirs[:split], self._x[:split]),
            mixing.norm(theirs[split:], self._x[split:]),
        )

    def largest(self) -> Floats:
        with np.errstate(over="ignore"):
            return quantiser.block_max(
                self._decoded[: self._parameters], self._x[: self._parameters]
            )

    def apply(self, x: Floats, weights: Pair) -> None:
        parts = slice(0, self._parameters), slice(self._parameters, len(x))
        for part, weight in zip(parts, weights, strict=True):
            if weight:
                mixing.add_difference(x[part], self._decoded[part], self._x[part], weight)

    @property
    def _decoded(self) -> Floats:
        assert self._theirs is not None, "read() comes first"
        return self._theirs


class Mod4:
    """Parameters in up to three layers of 4 bits, buffers exactly with the first layer."""

    name = "mod4"

    def __init__(self, side: Side) -> None:
        self._side = side
        self._packed = quantiser.pack_scales(side.scales)
        self._buffers = F32(Side(side.x[side.parameters :], 0, side.scales))
        self._quantiser: Quantiser | None = None
        self._written = self._read = 0  # layers

    def scales(self) -> bytes:
        return self._packed.tobytes()

    def open(self, theirs: Buffer, nonces: bytes) -> None:
        if len(theirs) != 2 * len(self._packed):
            raise Malformed(f"{len(theirs)} bytes of scales, not {2 * len(self._packed)}")
        # Packed scales are ordered as what they stand for, and ours are never absurd.
        scales = quantiser.unpack_scales(np.maximum(self._packed, np.frombuffer(theirs, "<u2")))
        seed = int.from_bytes(hashlib.sha256(nonces).digest()[:4], "big")
        x = self._side.x[: self._side.parameters]
        self._quantiser = Quantiser(x, scales, seed)

    def layer_size(self) -> int:
        """Of the next layer to read; 0 when nothing is pending."""
        if not self.pending:
            return 0
        size = quantiser.layer_bytes(len(self._open.unsure))
        return size + (self._buffers.layer_size() if self._read == 0 else 0)

    def write(self) -> Buffer:
        """The next layer: write layer n before reading the peer's layer n."""
        assert self._written == self._read, "a layer is written once"
        layer = self._open.write(self._written)
        if self._written == 0:
            layer += self._buffers.write()
        self._written += 1
        return layer

    def read(self, data: Buffer) -> None:
        if len(data) != self.layer_size():
            raise Malformed(f"{len(data)} bytes in a layer of {self.layer_size()}")
        view = memoryview(data)
        if self._read == 0:
            split = quantiser.layer_bytes(len(self._open.unsure))
            self._buffers.read(view[split:])
            view = view[:split]
        self._open.read(self._read, view)
        self._read += 1

    def skip(self) -> None:
        """Read no further layer."""
        assert self._read, "layer 0 is always read"
        self._open.skip()
        self._read = LAYERS

    @property
    def pending(self) -> bool:
        return self._read == 0 or (self._read < LAYERS and len(self._open.unsure) > 0)

    @property
    def undecoded(self) -> float:
        return len(self._open.unsure) / max(1, len(self._packed))

    def distances(self) -> Pair:
        return self._open.distance(), self._buffers.distances()[1]

    def largest(self) -> Floats:
        return self._open.largest()

    def apply(self, x: Floats, weights: Pair) -> None:
        split = self._side.parameters
        if weights[0]:
            self._open.apply(x[:split], weights[0])
        self._buffers.apply(x[split:], weights)

    @property
    def _open(self) -> Quantiser:
        assert self._quantiser is not None, "open() comes first"
        return self._quantiser


def floats(data: Buffer, length: int) -> Floats:
    """``length`` finite little-endian float32.  Raises Malformed."""
    if len(data) != 4 * length:
        raise Malformed(f"{len(data)} bytes where {4 * length} are due")
    values = np.frombuffer(data, "<f4")
    if not mixing.finite(values):
        raise Malformed("the payload holds a value that is not finite")
    return values
