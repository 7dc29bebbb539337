"""Layered shared-dither modular quantisation of the difference of two vectors.

Both sides hold a vector and agree, per block of 64, on a step D and on a dither U in [0, 1).  With
q = floor(x / D + U) each sends only q mod 16 and a check of q div 16; the receiver knows its own q,
so the centred difference k = q_theirs - q_mine follows if it is in (-8, 8).  Properties:

* E[k D] is the true difference, and the noise vanishes as the vectors agree (shared dither);
* the two sides find exactly opposite k, so an exchange preserves the mean to the bit;
* the check is linear (a weighted sum of q_i div 16 mod 256), so it passes on one side exactly if
  it passes on the other: both know which blocks are unsure without saying so;
* an unsure block is not lost: its next 4 bits are sent (range x16), once more if need be (x256).

Family: Davies et al. 2021 (lattice quantisation with side information), Lu & De Sa 2020 (Moniqua);
shared dither, layers and the check are ours.  Vectors are float32 of any length; the last block is
padded with zeros.  A layer is its blocks one after the other, each 32 bytes of codes and its check,
so that any run of blocks is a run of bytes.
"""

from dataclasses import dataclass
from math import fsum, sqrt

import numpy as np
from numpy.typing import NDArray

from covey.gossip import reference
from covey.gossip.blocks import BLOCK as BLOCK
from covey.gossip.blocks import CODED, HALF, LANES, Bytes
from covey.gossip.blocks import Buffer as Buffer
from covey.gossip.blocks import Floats as Floats
from covey.gossip.kernels import chosen as kernels
from covey.protocols.errors import Malformed

LAYERS = 3  # 4, 8 and 12 bits of every difference at most
# Half the range of the first layer in units of the scale.  At 1.25 a layer has to be repeated so
# often that an exchange takes 16 % more bytes, and digits are learned no better (5 paired seeds).
KAPPA = 2.0
STEP_PER_SCALE = np.float32(2 * KAPPA / 16)
RANGE_PER_SCALE = STEP_PER_SCALE * np.float32(8 << 4 * (LAYERS - 1))  # of all layers
_FINEST = 2.0**-20  # scale per |x|: keeps |q| below 2**23, exact in float32
_LARGEST = 2.0**104  # keeps k D finite, and |q| below 2**27 for any finite x
_SMALLEST = 2.0**-100  # below this a scale counts as zero, so 1 / D stays finite
_LARGEST_PACKED = int(np.float32(_LARGEST).view(np.uint32)) >> 16
_DEEP_MAX = 4096  # 1 MiB of float32
_PART = 512  # blocks of further layers worked on at a time
_MOVED = 0.7  # of the largest local movement, that a scale covers
_PACKED = np.dtype("<u2")

Indices = NDArray[np.intp]
_NOWHERE: Indices = np.empty(0, np.intp)
_NOTHING: NDArray[np.int16] = np.empty((0, BLOCK), np.int16)


def blocks_in(length: int) -> int:
    """How many blocks hold ``length`` elements."""
    return -(-length // BLOCK)


def layer_bytes(blocks: int) -> int:
    """Wire size of one layer of ``blocks`` blocks: half a byte per element and a check each."""
    return blocks * CODED


def block_max(a: Floats, b: Floats | None = None) -> Floats:
    """Largest |a - b| (or |a|) of each block: float32, shape (blocks,)."""
    out = np.empty(blocks_in(len(a)), np.float32)
    kernels.block_max(a, b, out)
    return out


def pack_scales(scales: Floats) -> NDArray[np.uint16]:
    """The upper half of float32, rounded up: 2 bytes each, little-endian, never too small."""
    packed: NDArray[np.uint16] = np.empty(len(scales), _PACKED)
    kernels.pack(scales, packed)
    return packed


def unpack_scales(packed: NDArray[np.uint16]) -> Floats:
    """Read ``pack_scales`` back.  Raises Malformed for a negative, absurd or non-finite scale."""
    scales: Floats = np.empty(len(packed), np.float32)
    if not kernels.unpack(packed, scales, _LARGEST_PACKED):
        raise Malformed("a scale is negative, absurdly large or not finite")
    return scales


def own_scales(sizes: Floats, movement: Floats, typical: Floats) -> Floats:
    """What this side asks for: the typical largest difference of each block, 0.7 of the largest
    local movement, and never so fine that q would not be exact, by ``sizes``, the largest |x|.
    All float32, shape (blocks,)."""
    scales: Floats = np.empty(len(sizes), np.float32)
    kernels.own_scales(sizes, movement, typical, scales, (_MOVED, _FINEST, _LARGEST))
    return scales


class Workspace:
    """The memory of a ``Quantiser``, mostly a byte per parameter: the next one may use it again.

    It must not before what was written into it has left.
    """

    def __init__(self, parameters: int) -> None:
        blocks = blocks_in(parameters)
        self.codes: Bytes = np.empty(layer_bytes(blocks), np.uint8)  # layer 0 as written
        self.difference: Bytes = np.empty((blocks, HALF), np.uint8)  # what reading it told:
        self.energy = np.empty(blocks, np.int32)  # sum of k squared, in squared steps
        self.peak = np.empty(blocks, np.int16)  # largest |k|
        self.doubtful = np.empty(blocks, np.bool_)
        self.steps: Floats = np.empty(blocks, np.float32)  # D
        self.inverse: Floats = np.empty(blocks, np.float32)  # 1 / D
        self.starts = np.empty(blocks, np.uint32)  # the dither's counter where each block starts


class Quantiser:
    """One side of one exchange: ``x`` (float32, held still meanwhile) against a peer's codes.

    ``scales`` (float32, one per block) is the larger of both sides', ``seed`` the shared dither's.
    Call ``write``/``read`` for layer 0, then for each further layer while ``unsure`` is not empty.
    Layer 0 may also be written and read in parts of consecutive blocks, in any order, each written
    before it is read; different parts may be worked on by several threads at once.
    """

    def __init__(
        self, x: Floats, scales: Floats, seed: int, workspace: Workspace | None = None
    ) -> None:
        blocks = len(scales)
        self._x = x
        self._work = work = Workspace(len(x)) if workspace is None else workspace
        assert len(work.difference) == blocks, "a workspace is for vectors of one length"
        self.steps, self._inverse, self._starts = work.steps, work.inverse, work.starts
        numbers = float(STEP_PER_SCALE), _SMALLEST, seed & 0xFFFFFFFF
        kernels.grid(scales, self.steps, self._inverse, self._starts, numbers)
        self._energy, self._peak, self._doubtful = work.energy, work.peak, work.doubtful
        self._doubtful.fill(True)  # until layer 0 is read, which tells the others
        self._edge = 8  # of the range of the layers read, in steps
        self.tame = True  # all that was written is numbers that codes can tell
        # What further layers tell of the few blocks that need them: which these are, and their k.
        self._rows: Indices = _NOWHERE
        self._deep: NDArray[np.int16] = _NOTHING

    @property
    def unsure(self) -> Indices:
        """The blocks that the layers read so far do not tell, in order."""
        return self._doubtful.nonzero()[0]

    def write(self, layer: int) -> bytearray:
        """The 4 bits and the checks of ``layer`` for all blocks still unsure before it was read."""
        if layer == 0:
            return bytearray(self.write_part(0, len(self.steps)))
        rows = self.unsure
        out = bytearray(layer_bytes(len(rows)))
        for first in range(0, len(rows), _PART):
            part = rows[first : first + _PART]
            place = memoryview(out)[first * CODED : (first + len(part)) * CODED]
            kernels.encode(*self._gathered(part), place, layer)
        return out

    def write_part(self, first: int, stop: int) -> memoryview:
        """Layer 0 of the blocks from ``first`` to ``stop``, in the workspace."""
        codes = self._work.codes[first * CODED : stop * CODED]
        x = self._x[first * BLOCK : stop * BLOCK]
        told = self._inverse[first:stop], self._starts[first:stop]
        if not kernels.encode(x, *told, codes, 0):
            self.tame = False
        return codes.data

    def read(self, layer: int, data: Buffer) -> None:
        """Take the peer's ``layer``; afterwards ``unsure`` holds the blocks that need the next one.

        Blocks unsure after the last layer are skipped: their difference is zero.  The layer must
        have been written before.  Raises Malformed if ``data`` has not the size of the unsure
        blocks.
        """
        if layer == 0:
            self.read_part(0, len(self.steps), data)
            return
        rows = self.unsure
        _check_size(data, len(rows))
        if layer == 1:
            self._rows, self._deep = rows, np.empty((len(rows), BLOCK), np.int16)
        places = np.searchsorted(self._rows, rows)
        for first in range(0, len(rows), _PART):
            part = slice(first, first + _PART)
            self._read_further(layer, rows[part], places[part], memoryview(data)[first * CODED :])
        self._edge = 8 << 4 * layer
        if layer == LAYERS - 1:
            self.skip()

    def read_part(self, first: int, stop: int, data: Buffer) -> None:
        """Take the peer's layer 0 of the blocks from ``first`` to ``stop``.  Raises Malformed."""
        _check_size(data, stop - first)
        part = slice(first, stop)
        mine = self._work.codes[first * CODED : stop * CODED]
        told = self._energy[part], self._peak[part], self._doubtful[part]
        kernels.decode(mine, data, self._work.difference[part], *told)

    def skip(self) -> None:
        """Take the difference of the blocks still unsure for zero: no further layer will come.

        The largest of a block is then what one more layer could have told, so that scales grow fast
        enough.
        """
        unsure = self.unsure
        self._work.difference[unsure] = 0
        self._deep[self._doubtful[self._rows]] = 0
        self._energy[unsure] = 0
        self._edge = min(16 * self._edge, 8 << 4 * (LAYERS - 1))

    def outcome(self, most: Floats) -> tuple[float, Floats]:
        """Of the decoded difference the Euclidean length, and of each block the largest element, at
        least half a step, a whole range where skipped, but not more than ``most``."""
        largest, lanes = np.empty(len(self.steps), np.float32), np.empty(LANES)
        told = self._energy, self._peak, self._doubtful, self.steps
        kernels.outcome(*told, most, largest, lanes, float(self._edge))
        return sqrt(fsum(lanes)), largest

    def differences(self, rows: Indices) -> Floats:
        """The decoded difference of some blocks: float32, shape (rows, 64); zero where unsure."""
        out, steps = np.zeros((len(rows), BLOCK), np.float32), self.steps[rows]
        flat = out.reshape(-1)
        kernels.apply(self._work.difference[rows], steps, flat, flat, None, 1.0)
        if len(self._rows):
            deep = np.isin(rows, self._rows)
            k = self._deep[np.searchsorted(self._rows, rows[deep])]
            out[deep] = k * steps[deep, None]
        if np.count_nonzero(self._doubtful):
            out[self._doubtful[rows]] = 0
        return out

    def moves(self, weight: float) -> "Moves":
        """weight * difference; the other side's are exactly the negative.  The workspace is in use
        until they are added."""
        return Moves(self._work.difference, self.steps, weight, self._rows, self._deep)

    def _read_further(self, layer: int, rows: Indices, places: Indices, data: Buffer) -> None:
        """The next 4 bits of some blocks; the lower bits are known from the layers before."""
        difference = self._work.difference
        k = self._deep[places]
        if layer == 1:
            k[:] = reference.signed(difference[rows])
            difference[rows] = 0  # else it would be applied twice
        codes, doubtful = data[: len(rows) * CODED], self._doubtful[rows]
        kernels.decode_further(*self._gathered(rows), codes, k, doubtful, layer)
        self._deep[places], self._doubtful[rows] = k, doubtful
        wide = k.astype(np.int32)
        self._energy[rows] = np.einsum("ij,ij->i", wide, wide)  # at most 2**28
        self._peak[rows] = np.abs(k).max(axis=1)

    def _gathered(self, rows: Indices) -> tuple[Floats, Floats, NDArray[np.uint32]]:
        """Of some blocks: x, padded with zeros to whole ones; 1 / D; where the dither starts."""
        return gathered(self._x, rows).reshape(-1), self._inverse[rows], self._starts[rows]


@dataclass(frozen=True, slots=True)
class Moves:
    """What an exchange adds to a vector: weight D k.

    ``difference`` has the k of all blocks but ``rows``, whose k are ``deep``, int16, (rows, 64).
    """

    difference: Bytes
    steps: Floats
    weight: float
    rows: Indices
    deep: NDArray[np.int16]

    def add(self, x: Floats, out: Floats, increment: Floats | None = None) -> None:
        """out <- x moved, which may be x itself; ``increment`` <- by how much."""
        deep = Deep.of(x, self.rows) if len(self.rows) else None
        kernels.apply(self.difference, self.steps, x, out, increment, self.weight)
        if deep is not None:
            self._scatter_deep(deep, out)
            if increment is not None:
                deep.tell(out, increment)

    @property
    def many_deep(self) -> bool:
        """Whether ``rows`` are too many for an increment to be told on the way."""
        return len(self.rows) > _DEEP_MAX

    def add_deep(self, x: Floats) -> "Deep | None":
        """Move ``rows`` of x, if there are any; what they were."""
        if not len(self.rows):
            return None
        deep = Deep.of(x, self.rows)
        self._scatter_deep(deep, x)
        return deep

    def _scatter_deep(self, before: "Deep", x: Floats) -> None:
        for first in range(0, len(self.rows), _PART):
            part = slice(first, first + _PART)
            moves = self.deep[part] * self.steps[self.rows[part], None]
            moves *= np.float32(self.weight)
            moves += before.values[part]
            scatter(moves, self.rows[part], x)


@dataclass(frozen=True, slots=True)
class Deep:
    """The few blocks that further layers told of, as they were before they moved."""

    rows: Indices
    values: Floats

    @classmethod
    def of(cls, x: Floats, rows: Indices) -> "Deep":
        return cls(rows, gathered(x, rows))

    def tell(self, moved: Floats, increment: Floats) -> None:
        """``increment`` <- how far they have moved."""
        scatter(gathered(moved, self.rows) - self.values, self.rows, increment)


def gathered(x: Floats, rows: Indices) -> Floats:
    """Some blocks of ``x``, in order: float32, shape (rows, 64), the last padded with zeros."""
    whole = len(x) // BLOCK
    out = np.zeros((len(rows), BLOCK), np.float32)
    count = int(np.searchsorted(rows, whole))
    out[:count] = x[: whole * BLOCK].reshape(-1, BLOCK)[rows[:count]]
    if count < len(rows):
        out[-1, : len(x) - whole * BLOCK] = x[whole * BLOCK :]
    return out


def scatter(values: Floats, rows: Indices, x: Floats) -> None:
    """``gathered`` back into some blocks of ``x``."""
    whole = len(x) // BLOCK
    count = int(np.searchsorted(rows, whole))
    x[: whole * BLOCK].reshape(-1, BLOCK)[rows[:count]] = values[:count]
    if count < len(rows):
        x[whole * BLOCK :] = values[-1, : len(x) - whole * BLOCK]


def _check_size(data: Buffer, blocks: int) -> None:
    if len(data) != layer_bytes(blocks):
        raise Malformed(f"{len(data)} bytes of codes, not {layer_bytes(blocks)}")
