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
padded with zeros.  Everything works in chunks that stay in cache.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from covey.protocols.errors import Malformed

BLOCK = 64
LAYERS = 3  # 4, 8 and 12 bits of every difference at most
# Half the range of the first layer in units of the scale.  At 1.25 a layer has to be repeated so
# often that an exchange takes 16 % more bytes, and digits are learned no better (5 paired seeds).
KAPPA = 2.0
STEP_PER_SCALE = np.float32(2 * KAPPA / 16)
RANGE_PER_SCALE = STEP_PER_SCALE * np.float32(8 << 4 * (LAYERS - 1))  # of all layers
_FINEST = np.float32(2.0**-20)  # scale per |x|: keeps |q| below 2**23, exact in float32
_LARGEST = np.float32(2.0**104)  # keeps k D finite, and |q| below 2**27 for any finite x
_SMALLEST = np.float32(2.0**-100)  # below this a scale counts as zero, so 1 / D stays finite
_LARGEST_PACKED = int(_LARGEST.view(np.uint32)) >> 16
_HALF = BLOCK // 2
_CHUNK = 512  # blocks worked on at a time: 128 KiB of float32
_WEYL = np.uint32(2654435769)  # 2**32 / golden ratio: equidistributed multiples
_DITHER = np.arange(_CHUNK * BLOCK, dtype=np.uint32).reshape(_CHUNK, BLOCK) * _WEYL  # of seed 0
# Each odd number below 128 once, with a sign, found by search so that the prefix sums all differ
# mod 256: one or two coordinates that are off by a turn are always noticed, and so is any run of
# neighbours that is off alike, as when a whole block drifts one way; other patterns 127 in 128.
# As float32, whose matrix product is fast and here exact: 64 x 127 x 255 < 2**24.
# fmt: off
_CHECK_WEIGHTS = np.array([
    -61, 91, -55, 111, -5, -1, -113, 23, 17, 115, -127, 73, -87, -99, 81, 95,
    43, -107, -41, -119, -31, -101, -83, -67, 21, -105, -89, -29, 19, 123, 53, -9,
    117, -51, 7, -13, -33, -109, -125, 65, 35, 11, 97, -47, 71, 69, 103, -3,
    -75, -37, -121, 27, 79, -77, 85, 25, -15, 57, -45, 59, -93, -39, -49, -63,
], np.float32)
# fmt: on

Buffer = bytes | bytearray | memoryview
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def blocks_in(length: int) -> int:
    """How many blocks hold ``length`` elements."""
    return -(-length // BLOCK)


def layer_bytes(blocks: int) -> int:
    """Wire size of one layer of ``blocks`` blocks: half a byte per element and a check each."""
    return blocks * (_HALF + 1)


def block_max(a: Floats, b: Floats | None = None) -> Floats:
    """Largest |a - b| (or |a|) of each block: float32, shape (blocks,)."""
    out = np.empty(blocks_in(len(a)), np.float32)
    whole = len(a) // BLOCK
    for first in range(0, whole, _CHUNK):
        rows = slice(first, min(first + _CHUNK, whole))
        flat = slice(rows.start * BLOCK, rows.stop * BLOCK)
        part = a[flat] if b is None else a[flat] - b[flat]
        # Without their sign the bits of floats are ordered as the floats are, and compare faster.
        bits = part.view(np.int32) & np.int32(0x7FFFFFFF)
        out[rows] = bits.reshape(-1, BLOCK).max(axis=1).view(np.float32)
    if whole < len(out):
        tail = a[whole * BLOCK :] if b is None else a[whole * BLOCK :] - b[whole * BLOCK :]
        out[whole] = np.abs(tail).max()
    return out


def pack_scales(scales: Floats) -> NDArray[np.uint16]:
    """The upper half of float32, rounded up: 2 bytes each, little-endian, never too small."""
    bits = np.ascontiguousarray(scales).view(np.uint32)
    packed: NDArray[np.uint16] = ((bits + np.uint32(0xFFFF)) >> np.uint32(16)).astype("<u2")
    return packed


def unpack_scales(packed: NDArray[np.uint16]) -> Floats:
    """Read ``pack_scales`` back.  Raises Malformed for a negative, absurd or non-finite scale."""
    if packed.size and int(packed.max()) > _LARGEST_PACKED:
        raise Malformed("a scale is negative, absurdly large or not finite")
    scales: Floats = (packed.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return scales


def own_scales(x: Floats, movement: Floats, typical: Floats) -> Floats:
    """What this side asks for: the typical largest difference of each block, 0.7 of the largest
    local movement, and never so fine that q would not be exact.  All float32, shape (blocks,)."""
    scales = np.maximum(typical, np.float32(0.7) * movement)
    scales = np.maximum(scales, _FINEST * block_max(x))
    bounded: Floats = np.minimum(scales, _LARGEST)
    return bounded


class Quantiser:
    """One side of one exchange: ``x`` (float32, held still meanwhile) against a peer's codes.

    ``scales`` (float32, one per block) is the larger of both sides', ``seed`` the shared dither's.
    Call ``write``/``read`` for layer 0, then for each further layer while ``unsure`` is not empty.
    """

    def __init__(self, x: Floats, scales: Floats, seed: int) -> None:
        self._x = x
        usable = scales >= _SMALLEST
        self.steps: Floats = scales * STEP_PER_SCALE
        self.steps *= usable
        self._inverse = np.zeros(len(scales), np.float32)
        np.divide(np.float32(1), self.steps, out=self._inverse, where=usable)
        self._seed = seed & 0xFFFFFFFF
        self._difference = np.zeros((len(scales), BLOCK), np.int16)
        self._first: Buffer = b""  # layer 0 as written: most blocks are read against it alone
        self.unsure: Indices = np.arange(len(scales))
        self._edge = 8  # of the range of the layers read, in steps

    def write(self, layer: int) -> bytearray:
        """The 4 bits and the checks of ``layer`` for all blocks still unsure before it was read."""
        count = len(self.unsure)
        out = bytearray(layer_bytes(count))
        codes, checks = _split(out, count)
        for part, rows in self._chunks():
            q = self._quantised(rows)
            q >>= 4 * layer
            low = q.astype(np.uint8)
            np.bitwise_or(low[:, :_HALF] & 15, low[:, _HALF:] << 4, out=codes[part])
            q >>= 4
            checks[part] = _check(q)
        if layer == 0:
            self._first = bytes(out)
        return out

    def read(self, layer: int, data: Buffer) -> None:
        """Take the peer's ``layer``; afterwards ``unsure`` holds the blocks that need the next one.

        Blocks unsure after the last layer are skipped: their difference is zero.  The layer must
        have been written before.  Raises Malformed if ``data`` has not the size of the unsure
        blocks.
        """
        count = len(self.unsure)
        if len(data) != layer_bytes(count):
            raise Malformed(f"{len(data)} bytes of codes, not {layer_bytes(count)}")
        assert layer or len(self._first) == len(data), "layer 0 is written before it is read"
        codes, checks = _split(data, count)
        doubtful = np.empty(count, bool)
        for part, rows in self._chunks():
            if layer == 0:
                doubtful[part] = self._read_first(part, codes[part], checks[part])
            else:
                doubtful[part] = self._read_further(layer, rows, codes[part], checks[part])
        self.unsure = self.unsure[doubtful]
        self._edge = 8 << 4 * layer
        if layer == LAYERS - 1:
            self.skip()

    def skip(self) -> None:
        """Take the difference of the blocks still unsure for zero: no further layer will come.

        For ``largest`` it is what one more layer could have told, so that scales grow fast enough.
        """
        self._difference[self.unsure] = 0
        self._edge = min(16 * self._edge, 8 << 4 * (LAYERS - 1))

    def distance(self) -> float:
        """Euclidean length of the decoded difference."""
        total = 0.0
        for first in range(0, len(self.steps), _CHUNK):
            rows = slice(first, first + _CHUNK)
            k = self._difference[rows].astype(np.float32)
            squares = np.einsum("ij,ij->i", k, k).astype(np.float64)
            total += float(squares @ np.square(self.steps[rows], dtype=np.float64))
        return float(np.sqrt(total))

    def apply(self, out: Floats, weight: float) -> None:
        """out <- out + weight * difference, in place; the other side adds exactly the negative."""
        for first in range(0, len(self.steps), _CHUNK):
            rows = slice(first, first + _CHUNK)
            part = self._difference[rows] * self.steps[rows, None]
            part *= np.float32(weight)
            target = out[first * BLOCK : first * BLOCK + part.size]
            target += part.reshape(-1)[: len(target)]

    def largest(self) -> Floats:
        """Largest |difference| per block, at least half a step; a whole range where skipped."""
        most = np.empty(len(self.steps), np.float32)
        for first in range(0, len(self.steps), _CHUNK):
            rows = slice(first, first + _CHUNK)
            most[rows] = np.abs(self._difference[rows]).max(axis=1)
        np.maximum(most, np.float32(0.5), out=most)
        most[self.unsure] = self._edge
        most *= self.steps
        return most

    def _read_first(self, part: slice, codes: Bytes, checks: Bytes) -> NDArray[np.bool_]:
        """Layer 0 of consecutive blocks, in bytes: no need to quantise once more."""
        own_codes, own_checks = _split(self._first, len(self.steps))
        mine, k = _nibbles(own_codes[part]), _nibbles(codes)
        k -= mine
        k += 8
        k &= 15  # 0 is the edge, -8, which the other side reads as -8 too
        edge = k == 0
        k -= 8
        self._difference[part] = k.view(np.int8)
        mine += k
        carry = mine.view(np.int8)
        carry >>= 4  # of the peer's q div 16 against ours, if k is right
        doubtful: NDArray[np.bool_] = own_checks[part] + _check(carry) != checks
        if edge.any():
            doubtful |= edge.any(axis=1)
        return doubtful

    def _read_further(
        self, layer: int, rows: Indices | slice, codes: Bytes, checks: Bytes
    ) -> NDArray[np.bool_]:
        """The next 4 bits of some blocks; the lower bits are known from the layers before."""
        shift, half = 4 * layer, 8 << 4 * layer
        q = self._quantised(rows)
        theirs = _nibbles(codes).astype(np.int32) << shift
        theirs |= (q + self._difference[rows]) & ((1 << shift) - 1)
        k = ((theirs - q + half) & (2 * half - 1)) - half
        self._difference[rows] = k
        doubtful: NDArray[np.bool_] = _check((q + k) >> (shift + 4)) != checks
        doubtful |= (k == -half).any(axis=1)
        return doubtful

    def _chunks(self) -> Iterator[tuple[slice, Indices | slice]]:
        """Parts of the unsure blocks: where they stand in a layer, and which blocks they are."""
        count, everything = len(self.unsure), len(self.unsure) == len(self.steps)
        for first in range(0, count, _CHUNK):
            part = slice(first, min(first + _CHUNK, count))
            yield part, part if everything else self.unsure[part]

    def _quantised(self, rows: Indices | slice) -> NDArray[np.int32]:
        """q = floor(x / D + U) of some blocks: int32, shape (rows, BLOCK)."""
        if isinstance(rows, slice):
            first, count = rows.start, rows.stop - rows.start
            start = (first * BLOCK * int(_WEYL) + self._seed) & 0xFFFFFFFF
            dither = _DITHER[:count] + np.uint32(start)
        else:
            starts = rows.astype(np.uint32) * np.uint32(BLOCK) * _WEYL + np.uint32(self._seed)
            dither = _DITHER[:1] + starts[:, None]
        dither >>= np.uint32(8)
        scaled = dither.astype(np.float32)
        scaled *= np.float32(2.0**-24)
        scaled += self._block_rows(rows) * self._inverse[rows, None]
        np.floor(scaled, out=scaled)
        return scaled.astype(np.int32)

    def _block_rows(self, rows: Indices | slice) -> Floats:
        """``x`` as rows of 64; a partial last block is padded with zeros."""
        x, whole = self._x, len(self._x) // BLOCK
        if isinstance(rows, slice) and rows.stop <= whole:
            return x[rows.start * BLOCK : rows.stop * BLOCK].reshape(-1, BLOCK)
        numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        out = np.zeros((len(numbers), BLOCK), np.float32)
        full = numbers < whole
        out[full] = x[: whole * BLOCK].reshape(-1, BLOCK)[numbers[full]]
        out[~full, : len(x) - whole * BLOCK] = x[whole * BLOCK :]
        return out


def _check(high: NDArray[np.int32] | NDArray[np.int8]) -> Bytes:
    """Sum of w_i high_i mod 256 of each row."""
    sums: Bytes = (high.astype(np.uint8).astype(np.float32) @ _CHECK_WEIGHTS).astype(np.int32)
    return sums.astype(np.uint8)


def _nibbles(codes: Bytes) -> Bytes:
    """The 4-bit numbers of some blocks, a byte each: a fresh array."""
    out = np.empty((len(codes), BLOCK), np.uint8)
    np.bitwise_and(codes, 15, out=out[:, :_HALF])
    np.right_shift(codes, 4, out=out[:, _HALF:])
    return out


def _split(data: Buffer, blocks: int) -> tuple[Bytes, Bytes]:
    whole = np.frombuffer(data, np.uint8)
    codes = whole[: blocks * _HALF].reshape(blocks, _HALF)
    return codes, whole[blocks * _HALF :]
