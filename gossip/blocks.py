"""Blocks of vectors: their size and code, and the arithmetic on the few numbers of each.

Of reference.py's functions these take one number of a block each: scales, steps, what was decoded.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK = 64  # elements
HALF = BLOCK // 2
CODED = HALF + 1  # bytes
LANES = 32  # sums of squares that are kept apart
WEYL = 2654435769  # 2**32 / golden ratio: equidistributed multiples

Buffer = bytes | bytearray | memoryview
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def own_scales(
    sizes: Floats,
    movement: Floats,
    typical: Floats,
    out: Floats,
    numbers: tuple[float, float, float],
) -> None:
    """out <- the largest of typical, ``moved`` movement and ``finest`` sizes, at most ``largest``:
    the three ``numbers``.  Nothing is NaN."""
    moved, finest, largest = map(np.float32, numbers)
    np.multiply(movement, moved, out=out)
    np.maximum(typical, out, out=out)
    np.maximum(out, sizes * finest, out=out)
    np.minimum(out, largest, out=out)


def pack(scales: Floats, out: NDArray[np.uint16]) -> None:
    """out <- the upper half of each float32, rounded up: of numbers that are not negative."""
    out[:] = (scales.view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16)


def unpack(packed: NDArray[np.uint16], out: Floats, largest: int) -> bool:
    """Read ``pack`` back; whether none was greater than ``largest``."""
    out.view(np.uint32)[:] = packed.astype(np.uint32) << np.uint32(16)
    return not np.count_nonzero(packed > largest)


def grid(
    scales: Floats,
    steps: Floats,
    inverse: Floats,
    starts: NDArray[np.uint32],
    numbers: tuple[float, float, int],
) -> None:
    """steps <- D and inverse <- 1 / D, both 0 where the scale is below ``smallest``; starts <- the
    dither's counter of each block.  ``numbers``: D per scale, ``smallest``, seed."""
    per_scale, smallest, seed = numbers
    usable = scales >= np.float32(smallest)
    np.multiply(scales, np.float32(per_scale), out=steps)
    steps[~usable] = 0
    inverse.fill(0)
    np.divide(np.float32(1), steps, out=inverse, where=usable)
    starts[:] = np.arange(len(starts), dtype=np.uint32)
    starts *= np.uint32(BLOCK * WEYL & 0xFFFFFFFF)
    starts += np.uint32(seed)


def outcome(
    energy: NDArray[np.int32],
    peak: NDArray[np.int16],
    doubtful: NDArray[np.bool_],
    steps: Floats,
    most: Floats,
    largest: Floats,
    lanes: NDArray[np.float64],
    edge: float,
) -> None:
    """largest <- of each block the largest |k| D, at least D / 2, of ``edge`` steps where doubtful,
    and never more than ``most``; lanes <- the sums of energy D**2 over every 32nd block."""
    np.copyto(largest, peak)
    np.maximum(largest, np.float32(0.5), out=largest)
    largest[doubtful] = edge
    largest *= steps
    np.minimum(largest, most, out=largest)
    wide = energy * steps.astype(np.float64) * steps
    whole = len(wide) // LANES * LANES
    np.add.reduce(wide[:whole].reshape(-1, LANES), axis=0, out=lanes)
    lanes[: len(wide) - whole] += wide[whole:]
