"""The two ways an exchange may encode a vector, behind one interface.

``mod4`` sends parameters as layered 4-bit codes (quantiser.py) and buffers as float32: a running
variance must not be quantised below zero, and buffers are few.  ``f32`` sends everything exactly.
A ``Coder`` is one side of one exchange; a ``Side`` is what it reads of its node.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from covey.gossip import mixing, quantiser
from covey.gossip.blocks import CODED
from covey.gossip.quantiser import LAYERS, Floats, Indices, Moves, Quantiser, Workspace
from covey.gossip.screening import Pair
from covey.protocols.errors import Malformed, Unsupported
from covey.protocols.limits import CHUNK_BYTES_MAX

Buffer = quantiser.Buffer

_PIECE_BLOCKS = 31 << 10  # of layer 0 coded at once, from 8 MiB of float32
_PIECE_BYTES = 1 << 20
_NO_ROOM = memoryview(b"")

assert _PIECE_BLOCKS * CODED <= CHUNK_BYTES_MAX
assert _PIECE_BYTES <= CHUNK_BYTES_MAX


class Side(NamedTuple):
    """This node's part: its vector, how many elements are parameters, and its block scales."""

    x: Floats
    parameters: int
    scales: Floats  # float32, one per block of parameters
    workspace: Workspace | None = None  # to be used again


class Coder(Protocol):
    """One side of one exchange.  Sizes are in bytes; reads raise Malformed.

    Each side sends its ``scales`` and opens with the other's.  Layer 0 comes and goes in pieces,
    both ways at once: ``pieces`` codes it as it is sent and ``take`` reads what has come of it and
    returns what is left over.  Then each side writes a layer as soon as it knows that one is
    needed; a reader that can ask for no more may ``skip`` what is unsure after layer 0.  When
    nothing is ``pending``, ``outcome`` tells how long the difference is, and the largest of each
    block, at most ``most``; ``apply`` adds it, weighted, to x.  ``moves`` is what it would add to
    the parameters, if that can wait: until then the workspace is in use.  Unless the vector turned
    out ``tame`` as it was written, which one that is not finite is not, all that means nothing.
    """

    @property
    def name(self) -> str: ...
    @property
    def workspace(self) -> Workspace | None: ...
    def scales(self) -> bytes: ...
    def open(self, theirs: Buffer, nonces: bytes) -> None: ...
    def pieces(self) -> Iterator[memoryview]: ...
    def take(self, piece: memoryview) -> memoryview: ...
    def write(self) -> Buffer: ...
    def read(self, data: Buffer) -> None: ...
    def layer_size(self) -> int: ...
    def skip(self) -> None: ...
    @property
    def first_pending(self) -> bool: ...
    @property
    def pending(self) -> bool: ...
    @property
    def undecoded(self) -> float: ...
    @property
    def tame(self) -> bool: ...
    @property
    def repeated(self) -> float: ...
    def outcome(self, most: Floats) -> tuple[Pair, Floats]: ...
    def differences(self, blocks: Indices) -> Floats: ...
    def moves(self, weight: float) -> Moves | None: ...
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
    return max(coded, 4 * (parameters + buffers)) + 4  # what a Commit ends with


class F32:
    """Exact: the vector itself, little-endian float32, in one layer."""

    name = "f32"
    undecoded = repeated = 0.0
    workspace = None

    def __init__(self, side: Side) -> None:
        self._x, self._parameters = side.x, side.parameters
        self._theirs: Floats | None = None if len(side.x) else side.x  # nothing is yet to come
        self._incoming = _NO_ROOM  # for their vector
        self.tame = True
        self._taken = 0

    def scales(self) -> bytes:
        return b""

    def open(self, theirs: Buffer, nonces: bytes) -> None:
        if len(theirs):
            raise Malformed("f32 has no scales")
        self.tame = mixing.finite(self._x)
        if not self.tame:  # parameters, which will not count
            self._x = self._x.copy()
            self._x[: self._parameters] = 0

    def pieces(self) -> Iterator[memoryview]:
        if not len(self._x):
            return
        whole = self.write()
        for start in range(0, len(whole), _PIECE_BYTES):
            yield whole[start : start + _PIECE_BYTES]

    def take(self, piece: memoryview) -> memoryview:
        if self._theirs is not None:
            return piece
        if not self._taken:
            self._incoming = np.empty(self.layer_size(), np.uint8).data
        part = piece[: self.layer_size() - self._taken]
        self._incoming[self._taken : self._taken + len(part)] = part
        self._taken += len(part)
        if self._taken == self.layer_size():
            self.read(self._incoming)
        return piece[len(part) :]

    def write(self) -> memoryview:
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

    first_pending = pending

    def outcome(self, most: Floats) -> tuple[Pair, Floats]:
        theirs, split = self._decoded, self._parameters
        with np.errstate(over="ignore"):
            largest = quantiser.block_max(theirs[:split], self._x[:split])
        return self.distances(), np.minimum(largest, most, out=largest)

    def distances(self) -> Pair:
        theirs, split = self._decoded, self._parameters
        return (
            mixing.norm(theirs[:split], self._x[:split]),
            mixing.norm(theirs[split:], self._x[split:]),
        )

    def differences(self, blocks: Indices) -> Floats:
        split = self._parameters
        theirs = quantiser.gathered(self._decoded[:split], blocks)
        return theirs - quantiser.gathered(self._x[:split], blocks)

    def moves(self, weight: float) -> None:
        return None

    def apply(self, x: Floats, weights: Pair) -> None:
        parts = slice(0, self._parameters), slice(self._parameters, len(x))
        for part, weight in zip(parts, weights, strict=True):
            if weight and part.start < part.stop:
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
        self.workspace = side.workspace or Workspace(side.parameters)
        self._quantiser: Quantiser | None = None
        self._written = self._read = 0  # layers
        self._unsure = len(self._packed)  # blocks
        self._coded = self._taken = 0  # blocks of layer 0
        self.repeated = 0.0  # share of the blocks that layer 0 did not tell

    def scales(self) -> bytes:
        return self._packed.tobytes()

    def open(self, theirs: Buffer, nonces: bytes) -> None:
        if len(theirs) != 2 * len(self._packed):
            raise Malformed(f"{len(theirs)} bytes of scales, not {2 * len(self._packed)}")
        # Packed scales are ordered as what they stand for, and ours are never absurd.
        scales = quantiser.unpack_scales(np.maximum(self._packed, np.frombuffer(theirs, "<u2")))
        seed = int.from_bytes(hashlib.sha256(nonces).digest()[:4], "big")
        x = self._side.x[: self._side.parameters]
        self._quantiser = Quantiser(x, scales, seed, self.workspace)

    def layer_size(self) -> int:
        """Of the next layer to read; 0 when nothing is pending."""
        if not self.pending:
            return 0
        size = quantiser.layer_bytes(self._unsure)
        return size + (self._buffers.layer_size() if self._read == 0 else 0)

    def pieces(self) -> Iterator[memoryview]:
        assert self._written == 0, "a layer is written once"
        self._written = 1
        return self._pieces()

    def _pieces(self) -> Iterator[memoryview]:
        for first in range(0, len(self._packed), _PIECE_BLOCKS):
            stop = min(first + _PIECE_BLOCKS, len(self._packed))
            self._code(stop)
            yield self._codes(first, stop)
        yield from self._buffers.pieces()

    def take(self, piece: memoryview) -> memoryview:
        """Raises Malformed also for a piece that ends inside a block."""
        due = quantiser.layer_bytes(len(self._packed) - self._taken)
        codes, piece = piece[:due], piece[due:]
        if len(codes):
            blocks, rest = divmod(len(codes), quantiser.layer_bytes(1))
            if rest:
                raise Malformed("a piece ends inside a block")
            stop = self._taken + blocks
            self._code(stop)  # codes are read against our own
            self._open.read_part(self._taken, stop, codes)
            self._taken = stop
        if self._taken == len(self._packed):
            piece = self._buffers.take(piece)
            if self._read == 0 and not self._buffers.pending:
                self._has_read(1)
        return piece

    def write(self) -> Buffer:
        """The next layer: write layer n before reading the peer's layer n."""
        if self._written == 0:
            return b"".join(self.pieces())
        assert self._written == self._read, "a layer is written once"
        self._written += 1
        return self._open.write(self._written - 1)

    def read(self, data: Buffer) -> None:
        if len(data) != self.layer_size():
            raise Malformed(f"{len(data)} bytes in a layer of {self.layer_size()}")
        if self._read == 0:
            self.take(memoryview(data))
        else:
            self._open.read(self._read, data)
            self._has_read(self._read + 1)

    def skip(self) -> None:
        """Read no further layer."""
        assert self._read, "layer 0 is always read"
        self._open.skip()
        self._has_read(LAYERS)

    @property
    def first_pending(self) -> bool:
        """Whether layer 0 has yet to come, or a part of it."""
        return self._read == 0

    @property
    def pending(self) -> bool:
        return self._read == 0 or (self._read < LAYERS and self._unsure > 0)

    @property
    def tame(self) -> bool:
        return self._open.tame and self._buffers.tame

    @property
    def undecoded(self) -> float:
        return self._unsure / max(1, len(self._packed))

    def outcome(self, most: Floats) -> tuple[Pair, Floats]:
        distance, largest = self._open.outcome(most)
        return (distance, self._buffers.distances()[1]), largest

    def differences(self, blocks: Indices) -> Floats:
        return self._open.differences(blocks)

    def moves(self, weight: float) -> Moves | None:
        return self._open.moves(weight) if weight else None

    def apply(self, x: Floats, weights: Pair) -> None:
        split = self._side.parameters
        if moves := self.moves(weights[0]):
            moves.add(x[:split], x[:split])
        self._buffers.apply(x[split:], weights)

    def _has_read(self, layers: int) -> None:
        self._read, self._unsure = layers, len(self._open.unsure)
        if layers == 1:
            self.repeated = self.undecoded

    def _code(self, stop: int) -> None:
        """Have layer 0 of the blocks up to ``stop``."""
        if stop > self._coded:
            self._open.write_part(self._coded, stop)
            self._coded = stop

    def _codes(self, first: int, stop: int) -> memoryview:
        return self.workspace.codes[quantiser.layer_bytes(first) : quantiser.layer_bytes(stop)].data

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
