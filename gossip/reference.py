"""The arithmetic of exchanges and replicas on numpy arrays.

Vectors are float32, one-dimensional and held still meanwhile.  Blocks are 64 consecutive elements;
the last of a vector may be shorter, and counts as padded with zeros.  A coded block is 33 bytes: 32
of codes, elements i and i + 32 in the lower and upper half of byte i, and the check.

Everything works in chunks that stay in cache: whole-array numpy expressions on large vectors cost
several times more in memory traffic and page faults.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covey.gossip.blocks import (
    BLOCK,
    CODED,
    HALF,
    LANES,
    WEYL,
    Buffer,
    Bytes,
    Floats,
)
from covey.gossip.blocks import grid as grid
from covey.gossip.blocks import outcome as outcome
from covey.gossip.blocks import own_scales as own_scales
from covey.gossip.blocks import pack as pack
from covey.gossip.blocks import unpack as unpack

_CHUNK = 512  # blocks worked on at a time: 128 KiB of float32
_OFFSETS = np.arange(BLOCK, dtype=np.uint32) * np.uint32(WEYL)
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


def block_max(a: Floats, b: Floats | None, out: Floats) -> None:
    """out <- the largest |a - b| (or |a|) of each block."""
    for rows, flat in _chunks(len(out)):
        part = a[flat] if b is None else a[flat] - b[flat]
        # Without their sign the bits of floats are ordered as the floats are, and compare faster.
        bits = part.view(np.int32) & np.int32(0x7FFFFFFF)
        out[rows] = _padded(bits, len(out[rows])).max(axis=1).view(np.float32)


def encode(
    x: Floats, inverse: Floats, starts: NDArray[np.uint32], out: Buffer | Bytes, layer: int
) -> bool:
    """out <- coded blocks: 4 bits of q = floor(x inverse + U), and a check of those above; whether
    all x inverse are numbers below 2**30.

    ``inverse`` (1 / D) and ``starts`` (the dither's counter) have one element per block.  ``layer``
    0 takes the lowest 4 bits.
    """
    coded, tame = _coded(out), True
    for rows, flat in _chunks(len(inverse)):
        part = _padded(x[flat], len(inverse[rows]))
        q, wild = quantised(part, inverse[rows], starts[rows])
        tame = tame and not wild
        q >>= 4 * layer
        low = q.astype(np.uint8)
        np.bitwise_or(low[:, :HALF] & 15, low[:, HALF:] << 4, out=coded[rows, :HALF])
        q >>= 4
        coded[rows, HALF] = _check(q)
    return tame


def decode(
    mine: Buffer | Bytes,
    theirs: Buffer | Bytes,
    difference: Bytes,
    energy: NDArray[np.int32],
    peak: NDArray[np.int16],
    doubtful: NDArray[np.bool_],
) -> None:
    """What both sides' layer 0 tells of consecutive blocks.

    difference <- k = theirs - mine in [-8, 8), 4 bits of two's complement each, 32 bytes a block;
    energy, peak <- the sum of k squared and the largest |k|; doubtful <- whether the check does not
    fit or k is at the edge, -8, which the other side reads as -8 too.
    """
    ours, others = _coded(mine), _coded(theirs)
    for rows, _ in _chunks(len(energy)):
        own, other = ours[rows, :HALF].copy(), others[rows, :HALF].copy()
        lower, upper = (other - own) & 15, (other & 0xF0) - (own & 0xF0)
        np.bitwise_or(lower, upper, out=difference[rows])
        k = signed(difference[rows])
        wide = k.astype(np.float32)
        energy[rows] = np.einsum("ij,ij->i", wide, wide)
        peak[rows] = np.abs(k).max(axis=1)
        carry = unpacked(own).view(np.int8)
        carry += k
        carry >>= 4  # of the peer's q div 16 against ours, if k is right
        fits = ours[rows, HALF] + _check(carry) == others[rows, HALF]
        doubtful[rows] = ~fits | (peak[rows] == 8)


def decode_further(
    x: Floats,
    inverse: Floats,
    starts: NDArray[np.uint32],
    theirs: Buffer | Bytes,
    k: NDArray[np.int16],
    doubtful: NDArray[np.bool_],
    layer: int,
) -> None:
    """What a further ``layer`` tells of some blocks, whole ones; ``inverse``, ``starts`` as above.

    k, of shape (blocks, 64), is known up to ``layer`` and gains that one; doubtful as above.
    """
    shift, half = 4 * layer, 8 << 4 * layer
    coded = _coded(theirs)
    for rows, flat in _chunks(len(doubtful)):
        q, _ = quantised(x[flat].reshape(-1, BLOCK), inverse[rows], starts[rows])
        other = unpacked(coded[rows, :HALF]).astype(np.int32) << shift
        other |= (q + k[rows]) & ((1 << shift) - 1)
        found = ((other - q + half) & (2 * half - 1)) - half
        k[rows] = found
        fits = _check((q + found) >> (shift + 4)) == coded[rows, HALF]
        doubtful[rows] = ~fits | (found == -half).any(axis=1)


def apply(
    difference: Bytes,
    steps: Floats,
    x: Floats,
    out: Floats,
    increment: Floats | None,
    weight: float,
) -> None:
    """out <- x + weight (D k), which may be x itself; increment <- by how much that is more.

    ``difference`` is as decode leaves it: shape (blocks, 32).
    """
    for rows, flat in _chunks(len(steps)):
        before = x[flat].copy()
        np.add(before, _moves(difference[rows], steps[rows], weight, len(before)), out=out[flat])
        if increment is not None:
            np.subtract(out[flat], before, out=increment[flat])


def undone(
    x: Floats,
    rows: NDArray[np.uint32],
    began: Floats,
    differences: Floats,
    lanes: NDArray[np.float64],
) -> None:
    """With w = x - began, of some blocks: lanes <- the sums of differences w, and of w**2, over
    each place in a block; float64, shape (2, 64).

    ``began`` and ``differences`` have shape (rows, 64); ``began`` is 0 where x has ended.
    """
    way = np.zeros_like(began)
    for number, row in enumerate(rows.tolist()):
        part = x[row * BLOCK : (row + 1) * BLOCK]
        np.subtract(part, began[number, : len(part)], out=way[number, : len(part)])
    wide = way.astype(np.float64)
    np.add.reduce(wide * differences, axis=0, out=lanes[0])
    np.add.reduce(np.square(wide), axis=0, out=lanes[1])


def is_finite(vector: Floats) -> bool:
    """Whether every element is finite."""
    return all(np.isfinite(vector[part]).all() for part in _parts(len(vector)))


def add_difference(x: Floats, new: Floats, old: Floats, weight: float) -> None:
    """x <- x + weight (new - old); ``old`` may be x itself."""
    for part in _parts(len(x)):
        difference = new[part] - old[part]
        if weight != 1.0:
            difference *= np.float32(weight)
        x[part] += difference


def progress(x: Floats, learner: Floats, snapshot: Floats, movement: Floats) -> None:
    """x <- x + snapshot - learner; learner <- snapshot; movement, one element per block, gains the
    largest |snapshot - learner|."""
    for rows, flat in _chunks(len(movement)):
        most = np.empty(len(movement[rows]), np.float32)
        block_max(snapshot[flat], learner[flat], most)
        movement[rows] += most
        add_difference(x[flat], snapshot[flat], learner[flat], 1.0)
        learner[flat] = snapshot[flat]


def follow(x: Floats, snapshot: Floats, movement: Floats, sizes: Floats) -> None:
    """Of each block, movement gains the largest |snapshot - x|, and sizes <- the largest
    |snapshot|."""
    for rows, flat in _chunks(len(movement)):
        most = np.empty(len(movement[rows]), np.float32)
        block_max(snapshot[flat], x[flat], most)
        movement[rows] += most
        block_max(snapshot[flat], None, sizes[rows])


def outer_step(
    x: Floats,
    slow: Floats,
    momentum: Floats,
    learner: Floats | None,
    sums: Floats,
    codes: tuple[Bytes, Floats] | None,
    increment: Floats | None,
    numbers: tuple[float, float, float],
) -> bool:
    """d <- x - slow, and weight (D k) more with ``codes``, which are k and D; m <- alpha m + d;
    slow <- slow + gamma (d + alpha m).  x and learner may be slow itself.

    increment <- slow - learner, or slow - x without one; returns whether that is not zero (False
    without an increment).  sums <- the largest |slow| of each block, and its sum of squares: shape
    (3, blocks), the third the largest |x - slow| before.  ``numbers`` are weight, alpha and gamma.
    """
    (weight, alpha, gamma), (sizes, energies, movement), changed = numbers, sums, False
    for rows, flat in _chunks(len(sizes)):
        moved = x[flat].copy()
        before = moved.copy() if learner is None else learner[flat].copy()
        block_max(moved, slow[flat], movement[rows])
        if codes is not None:
            moved += _moves(codes[0][rows], codes[1][rows], weight, len(moved))
        moved -= slow[flat]
        momentum[flat] *= np.float32(alpha)
        momentum[flat] += moved
        moved += np.float32(alpha) * momentum[flat]
        moved *= np.float32(gamma)
        slow[flat] += moved
        block_max(slow[flat], None, sizes[rows])
        energies[rows] = _energies(_padded(slow[flat], len(sizes[rows])))
        if increment is not None:
            np.subtract(slow[flat], before, out=increment[flat])
            changed = changed or bool(increment[flat].any())
    return changed


def _energies(blocks: Floats) -> Floats:
    """The sum of squares of each block, halves upon halves; infinite where it overflows."""
    with np.errstate(over="ignore"):
        squares: Floats = np.square(blocks)
        while squares.shape[1] > 1:
            half = squares.shape[1] // 2
            squares = squares[:, :half] + squares[:, half:]
    return squares[:, 0]


def subtract(a: Floats, b: Floats, out: Floats) -> bool:
    """out <- a - b; whether any element is not zero."""
    changed = False
    for part in _parts(len(a)):
        np.subtract(a[part], b[part], out=out[part])
        changed = changed or bool(out[part].any())
    return changed


def median(rows: Floats, out: Floats) -> None:
    """out <- the median of each column, of two the larger: of up to 9 rows, none below 0 or NaN."""
    for part in _parts(len(out)):
        known = rows[:, part].copy()
        for rank in range(len(known) // 2 + 1):
            for other in range(rank + 1, len(known)):
                larger = np.maximum(known[rank], known[other])
                np.minimum(known[rank], known[other], out=known[rank])
                known[other] = larger
        out[part] = known[len(known) // 2]


def squares(a: Floats, b: Floats | None, lanes: NDArray[np.float64]) -> None:
    """lanes <- the sums of (a - b)**2 (or a**2) over every 32nd element; float64, shape (32,).

    ``a`` is at most a few chunks long.  The difference is float32, and may be infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.square(a if b is None else a - b, dtype=np.float64)
    whole = len(wide) // LANES * LANES
    np.add.reduce(wide[:whole].reshape(-1, LANES), axis=0, out=lanes)
    lanes[: len(wide) - whole] += wide[whole:]


def _moves(difference: Bytes, steps: Floats, weight: float, length: int) -> Floats:
    """weight (D k) of some blocks: ``length`` elements."""
    moves = signed(difference) * steps[:, None]
    moves *= np.float32(weight)
    return moves.reshape(-1)[:length]


def quantised(
    x: Floats, inverse: Floats, starts: NDArray[np.uint32]
) -> tuple[NDArray[np.int32], bool]:
    """q = floor(x / D + U) of rows of 64: int32, shape (blocks, 64); 0 for what is no number below
    2**30, and whether there was any."""
    dither = starts[:, None] + _OFFSETS
    dither >>= np.uint32(8)
    scaled = dither.astype(np.float32)
    scaled *= np.float32(2.0**-24)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled += x * inverse[:, None]
    tame = np.abs(scaled) < np.float32(2.0**30)
    wild = not tame.all()
    if wild:
        scaled[~tame] = 0
    np.floor(scaled, out=scaled)
    return scaled.astype(np.int32), wild


def unpacked(codes: Bytes) -> Bytes:
    """The 4-bit numbers of some blocks, a byte each: a fresh array of shape (blocks, 64)."""
    out = np.empty((len(codes), BLOCK), np.uint8)
    np.bitwise_and(codes, 15, out=out[:, :HALF])
    np.right_shift(codes, 4, out=out[:, HALF:])
    return out


def signed(difference: Bytes) -> NDArray[np.int8]:
    """The k of some blocks: a fresh array of shape (blocks, 64)."""
    k = unpacked(difference)
    k ^= 8
    k -= 8
    return k.view(np.int8)


def _chunks(blocks: int) -> Iterator[tuple[slice, slice]]:
    """Which blocks are worked on at a time, and which elements these are."""
    for first in range(0, blocks, _CHUNK):
        stop = min(first + _CHUNK, blocks)
        yield slice(first, stop), slice(first * BLOCK, stop * BLOCK)


def _parts(length: int) -> Iterator[slice]:
    for _, part in _chunks(-(-length // BLOCK)):
        yield part


def _padded(part: NDArray[Any], blocks: int) -> NDArray[Any]:
    """``part`` as rows of 64, the last padded with zeros."""
    if len(part) < blocks * BLOCK:
        part = np.pad(part, (0, blocks * BLOCK - len(part)))
    return part.reshape(blocks, BLOCK)


def _coded(data: Buffer | Bytes) -> Bytes:
    return np.frombuffer(data, np.uint8).reshape(-1, CODED)


def _check(high: NDArray[np.int32] | NDArray[np.int8]) -> Bytes:
    """Sum of w_i high_i mod 256 of each row."""
    sums: Bytes = (high.astype(np.uint8).astype(np.float32) @ _CHECK_WEIGHTS).astype(np.int32)
    return sums.astype(np.uint8)
