"""Each function of the C extension beside reference.py's, on the same arrays, to the bit.

``python kernel_checks.py PATH`` checks the extension built at PATH, for a sanitizer to watch.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covey.gossip import reference
from covey.gossip.blocks import BLOCK, CODED, HALF, LANES, Floats

Rng = np.random.Generator
Arrays = list[Any]
LENGTHS = [0, 1, 31, 32, 33, 63, 64, 65, 127, 4095, 4097, 512 * BLOCK - 1, 512 * BLOCK + 65]


def load(path: Path) -> ModuleType:
    """The extension built at ``path``."""
    spec = importlib.util.spec_from_file_location("_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def placed(rng: Rng, values: NDArray[Any]) -> NDArray[Any]:
    """A copy of ``values`` at some address that need not suit its type."""
    offset = int(rng.integers(0, values.itemsize))
    memory = np.empty(values.nbytes + offset, np.uint8)
    out = memory[offset:].view(values.dtype).reshape(values.shape)
    out[...] = values
    return out


def anything(rng: Rng, length: int) -> Floats:
    """Any float32, each kind of special one among them; or of one size, so that sums are exact."""
    if rng.random() < 0.3:
        size = 2.0 ** rng.integers(-149, 127)
        return (rng.standard_normal(length) * size).clip(-3e38, 3e38).astype(np.float32)
    values = rng.integers(0, 2**32, length, np.uint32).view(np.float32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38], np.float32)
    return np.where(rng.random(length) < 0.1, rng.choice(special, length), values)


def near(rng: Rng, values: Floats) -> Floats:
    """Equal to ``values`` but for a few elements, or none."""
    out = values.copy()
    for _ in range(int(rng.integers(0, 3)) if len(out) else 0):
        out[rng.integers(len(out))] += np.float32(rng.standard_normal())
    return out


def same(kernels: ModuleType, name: str, *args: Any) -> None:
    """The function ``name`` of both gives equal results and leaves equal arrays."""
    rng = np.random.default_rng(len(args))
    outcomes = []
    for module in (reference, kernels):
        given = [placed(rng, arg) if isinstance(arg, np.ndarray) else arg for arg in args]
        with np.errstate(all="ignore"):
            result = getattr(module, name)(*given)
        outcomes.append((result, [arg for arg in given if isinstance(arg, np.ndarray)]))
    (expected, arrays), (found, others) = outcomes
    assert found == expected, f"{name} gives {found}, not {expected}"
    for place, (one, other) in enumerate(zip(arrays, others, strict=True)):
        assert bits(one).tobytes() == bits(other).tobytes(), f"{name} differs in array {place}"


def bits(values: NDArray[Any]) -> NDArray[Any]:
    """``values``, every NaN the same: which of two comes out of a sum is the compiler's choice."""
    if values.dtype.kind != "f":
        return values
    return np.where(np.isnan(values), values.dtype.type(np.nan), values)


def blocks_in(length: int) -> int:
    return -(-length // BLOCK)


def coded(rng: Rng, length: int, layer: int = 0) -> Arrays:
    """Arguments of encode: x, 1 / D, starts, out, layer; |q| below 2**27 as scales make sure."""
    blocks = blocks_in(length)
    size = 2.0 ** rng.integers(-130, 120)
    x = (rng.uniform(-1, 1, length) * size).astype(np.float32)
    most = 2.0 ** rng.uniform(0, 26, blocks)
    with np.errstate(over="ignore"):
        inverse = np.minimum(most / size, 2.0**102).astype(np.float32)
    inverse[rng.random(blocks) < 0.1] = 0
    starts = rng.integers(0, 2**32, blocks, np.uint32)
    return [x, inverse, starts, np.zeros(blocks * CODED, np.uint8), layer]


def told(rng: Rng, length: int) -> Arrays:
    """Arguments of decode: two layers that mostly fit each other, and where the outcome goes."""
    x, inverse, starts, out, _ = coded(rng, length)
    reference.encode(x, inverse, starts, out, 0)
    theirs = out.copy()
    with np.errstate(all="ignore"):
        apart = rng.standard_normal(length) / np.repeat(inverse, BLOCK)[:length]
        y = np.where(np.isfinite(apart), x + apart, x).astype(np.float32)
    fits = np.abs(y) < 2 * np.abs(x).max(initial=0)
    reference.encode(np.where(fits, y, x), inverse, starts, theirs, 0)
    if rng.random() < 0.3:
        theirs = rng.integers(0, 256, len(out), np.uint8)
    blocks = blocks_in(length)
    outcome = [np.zeros((blocks, HALF), np.uint8), np.zeros(blocks, np.int32)]
    return [out, theirs, *outcome, np.zeros(blocks, np.int16), np.zeros(blocks, np.bool_)]


def told_further(rng: Rng, length: int) -> Arrays:
    """Arguments of decode_further, of whole blocks."""
    x, inverse, starts, out, layer = coded(rng, length // BLOCK * BLOCK, int(rng.integers(1, 3)))
    blocks, half = len(inverse), 8 << 4 * layer
    k = rng.integers(-half, half, (blocks, BLOCK))
    k[rng.random(blocks) < 0.5] //= 16
    q = reference.quantised(x.reshape(-1, BLOCK), inverse, starts)[0] + k
    low = q >> 4 * layer
    codes = out.reshape(-1, CODED)
    codes[:, :HALF] = low[:, :HALF] & 15 | (low[:, HALF:] & 15) << 4
    codes[:, HALF] = (low >> 4) @ reference._CHECK_WEIGHTS.astype(np.int64)
    codes[rng.random(blocks) < 0.2, HALF] += 1
    known = np.where(rng.random(k.shape) < 0.9, k & (half // 8 - 1), 0).astype(np.int16)
    return [x, inverse, starts, out, known, np.zeros(blocks, np.bool_), layer]


def moved(rng: Rng, length: int) -> Arrays:
    """Arguments of apply."""
    blocks = blocks_in(length)
    difference = rng.integers(0, 256, (blocks, HALF), np.uint8)
    steps, (out, increment) = np.abs(anything(rng, blocks)), np.zeros((2, length), np.float32)
    wanted = increment if rng.random() < 0.5 else None
    weight = float(rng.choice([1.0, 0.5, 0.35]))
    return [difference, steps, anything(rng, length), out, wanted, weight]


def stepped(rng: Rng, length: int) -> Arrays:
    """Arguments of outer_step."""
    difference, steps, learner, _, increment, weight = moved(rng, length)
    codes = (difference, steps) if rng.random() < 0.5 else None
    known = learner if rng.random() < 0.5 else None
    sums = np.ones((3, blocks_in(length)), np.float32)
    return [*vectors(3)(rng, length), known, sums, codes, increment, (weight, 0.45, 0.7)]


def vectors(count: int) -> Callable[[Rng, int], Arrays]:
    def drawn(rng: Rng, length: int) -> Arrays:
        first = anything(rng, length)
        others = [near(rng, first) if rng.random() < 0.5 else anything(rng, length)]
        return [first, *others, anything(rng, length)][:count]

    return drawn


def maxima(rng: Rng, length: int) -> Arrays:
    a, b = vectors(2)(rng, length)
    return [a, b if rng.random() < 0.5 else None, np.zeros(blocks_in(length), np.float32)]


def histories(rng: Rng, length: int) -> Arrays:
    count = int(rng.integers(1, 10))
    known = np.abs(anything(rng, count * length)).reshape(count, length)
    return [np.nan_to_num(known, nan=1.0), np.zeros(length, np.float32)]


def sums(rng: Rng, length: int) -> Arrays:
    a, b = vectors(2)(rng, length)
    return [a, b if rng.random() < 0.5 else None, np.ones(LANES)]


def finites(rng: Rng, length: int) -> Arrays:
    values = anything(rng, length)
    few = rng.random(length) < 1e-4  # so that none or one is not finite
    return [np.where(few | np.isfinite(values), values, np.float32(1)).astype(np.float32)]


def plain(rng: Rng, length: int) -> Floats:
    """Any float32 that a scale may be: not negative, not NaN."""
    return np.nan_to_num(np.abs(anything(rng, length)), nan=1.0, posinf=np.inf)


def scaled(rng: Rng, length: int) -> Arrays:
    """Arguments of grid."""
    scales = np.minimum(plain(rng, length), np.float32(2.0**104))
    seed = int(rng.integers(0, 2**32))
    starts = np.zeros(length, np.uint32)
    return [scales, *np.ones((2, length), np.float32), starts, (0.25, 2.0**-100, seed)]


def packed(rng: Rng, length: int) -> Arrays:
    """Arguments of unpack."""
    most = int(rng.choice([0x7000, 2**16]))
    return [rng.integers(0, most, length, np.uint16), np.zeros(length, np.float32), 0x7380]


def known(rng: Rng, length: int) -> Arrays:
    """Arguments of outcome."""
    energy = rng.integers(0, 2**28, length, np.int32)
    peak = rng.integers(0, 2049, length, np.int16)
    steps, most = np.minimum(plain(rng, 2 * length).reshape(2, -1), np.float32(2.0**102))
    doubtful = rng.random(length) < 0.1
    return [energy, peak, doubtful, steps, most, np.zeros_like(most), np.ones(LANES), 128.0]


def drawn(rng: Rng, length: int) -> Arrays:
    """Arguments of undone."""
    blocks = blocks_in(length)
    some = int(rng.integers(min(1, blocks), blocks + 1))
    rows = np.sort(rng.permutation(blocks)[:some]).astype(np.uint32)
    began, differences = anything(rng, 2 * len(rows) * BLOCK).reshape(2, -1, BLOCK)
    if length % BLOCK and len(rows) and rows[-1] == blocks - 1:
        began[-1, length % BLOCK :] = 0
    return [anything(rng, length), rows, began, differences, np.ones((2, BLOCK))]


ARGUMENTS: dict[str, Callable[[Rng, int], Arrays]] = {
    "block_max": maxima,
    "encode": lambda rng, length: coded(rng, length, int(rng.integers(3))),
    "decode": told,
    "decode_further": told_further,
    "apply": moved,
    "is_finite": finites,
    "add_difference": lambda rng, length: [*vectors(3)(rng, length), float(rng.choice([1.0, 0.3]))],
    "progress": lambda rng, length: [
        *vectors(3)(rng, length),
        np.abs(anything(rng, blocks_in(length))),
    ],
    "follow": lambda rng, length: [
        *vectors(2)(rng, length),
        *np.abs(anything(rng, 2 * blocks_in(length)).reshape(2, -1)),
    ],
    "outer_step": stepped,
    "own_scales": lambda rng, length: [
        *plain(rng, 4 * length).reshape(4, -1),
        (0.7, 2.0**-20, 2.0**104),
    ],
    "pack": lambda rng, length: [plain(rng, length), np.zeros(length, np.uint16)],
    "unpack": packed,
    "grid": scaled,
    "outcome": known,
    "undone": drawn,
    "subtract": vectors(3),
    "squares": sums,
    "median": histories,
}
WRITTEN = {  # the places of the arguments that a function writes
    "block_max": (2,),
    "encode": (3,),
    "decode": (2, 3, 4, 5),
    "decode_further": (4, 5),
    "apply": (3,),
    "is_finite": (),
    "add_difference": (0,),
    "progress": (0, 1, 3),
    "follow": (2, 3),
    "outer_step": (1, 2, 4),
    "own_scales": (3,),
    "pack": (1,),
    "unpack": (1,),
    "grid": (1, 2, 3),
    "outcome": (5, 6),
    "undone": (4,),
    "subtract": (2,),
    "squares": (2,),
    "median": (1,),
}


def equal(kernels: ModuleType, name: str, length: int, seed: int) -> None:
    """One comparison, of arrays that follow from ``seed``."""
    same(kernels, name, *ARGUMENTS[name](np.random.default_rng(seed), length))


def refused(kernels: ModuleType, name: str) -> None:
    """Arguments that do not fit are refused before anything is written."""
    function, given = getattr(kernels, name), ARGUMENTS[name](np.random.default_rng(3), 200)
    attempts: list[Arrays] = [[], given[:-1], [*given, None], [None] * len(given)]
    for place, arg in enumerate(given):
        bad: list[Any] = ["text", object()]
        if isinstance(arg, np.ndarray):
            bad += [np.zeros(arg.shape, kind) for kind in ("c8", "<i8", "S2", ">f4")]
            bad += [np.repeat(arg, 2)[::2]]
            if len(given) > 1 and (name, place) != ("undone", 0):  # whose x may be of any length
                bad += [arg[:-10], np.zeros((len(arg) + 65, *arg.shape[1:]), arg.dtype), arg[:0]]
        if place in WRITTEN[name]:
            held = arg.copy()
            held.flags.writeable = False
            bad += [held, None]
        attempts += [[*given[:place], wrong, *given[place + 1 :]] for wrong in bad]
    if name in ("encode", "decode_further"):
        attempts += [[*given[:-1], layer] for layer in (-1, 3, 2**40, 2**70)]
    before = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in given]
    for number, attempt in enumerate(attempts):
        try:
            function(*attempt)
        except (TypeError, ValueError, OverflowError):
            continue
        raise AssertionError(f"{name} took arguments that do not fit: attempt {number}")
    for arg, old in zip(given, before, strict=True):
        assert not isinstance(arg, np.ndarray) or arg.tobytes() == old.tobytes()


def main() -> None:
    kernels = load(Path(sys.argv[1]))
    for name in ARGUMENTS:
        refused(kernels, name)
        for number, length in enumerate([*LENGTHS, *LENGTHS]):
            equal(kernels, name, length, number)
    print("equal")


if __name__ == "__main__":
    main()
