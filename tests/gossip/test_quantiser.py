"""The quantiser against a slow reference, and the properties that the exchange rests on."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from covey.gossip import quantiser, reference
from covey.gossip.quantiser import BLOCK, LAYERS, Floats, Quantiser, Workspace
from covey.protocols.errors import Malformed

CHUNK = 512 * BLOCK
WEIGHTS = reference._CHECK_WEIGHTS.astype(np.int64)
LENGTHS = st.one_of(st.integers(1, 300), st.sampled_from([64, 128, CHUNK - 1, CHUNK, CHUNK + 65]))


@dataclass(frozen=True)
class Case:
    """Two vectors, the scales that both sides use, and a seed."""

    x: Floats
    y: Floats
    scales: Floats
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Vectors of any size from denormal to huge, apart by less or more than the scales expect."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    length = draw(LENGTHS)
    magnitude = 2.0 ** draw(st.integers(-140, 126))
    apart = 2.0 ** draw(st.integers(-24, 8)) * magnitude
    x = (rng.uniform(-1, 1, length) * magnitude).astype(np.float32)
    with np.errstate(over="ignore"):
        y = (x + rng.standard_normal(length) * apart).astype(np.float32)
    y = np.clip(y, -3e38, 3e38)
    blocks = quantiser.blocks_in(length)
    zeros, same = rng.random((2, blocks)) < draw(st.sampled_from([0.0, 0.3]))
    for block in range(blocks):
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        if zeros[block]:
            x[part] = 0
        if same[block]:
            y[part] = x[part]
    typical = rng.random(blocks) * min(apart * 2.0 ** draw(st.integers(-8, 3)), 3e38)
    return Case(x, y, agreed(x, y, typical.astype(np.float32)), draw(st.integers(0, 2**32 - 1)))


def agreed(x: Floats, y: Floats, typical: Floats) -> Floats:
    """The scales that an exchange of ``x`` and ``y`` arrives at."""
    none = np.zeros_like(typical)
    sizes = [quantiser.block_max(v) for v in (x, y)]
    sent = [quantiser.pack_scales(quantiser.own_scales(s, none, typical)) for s in sizes]
    return np.maximum(*map(quantiser.unpack_scales, sent))


def quantised(x: Floats, side: Quantiser, seed: int) -> NDArray[np.int64]:
    """q = floor(x / D + U), an element at a time as the file's docstring says: the oracle."""
    out = np.zeros(len(side.steps) * BLOCK, np.int64)
    for i, value in enumerate(x):
        step = side.steps[i // BLOCK]
        inverse = np.float32(1) / step if step > 0 else np.float32(0)
        dither = np.float32((i * 2654435769 + seed) % 2**32 >> 8) * np.float32(2.0**-24)
        out[i] = int(np.floor(dither + value * inverse))
    return out.reshape(-1, BLOCK)


def distance(side: Quantiser) -> float:
    return side.outcome(np.full_like(side.steps, np.inf))[0]


def largest_of(side: Quantiser) -> Floats:
    return side.outcome(np.full_like(side.steps, np.inf))[1]


def decoded(side: Quantiser) -> Floats:
    """The whole difference as it would be applied with weight 1, padding included."""
    out = np.zeros(len(side.steps) * BLOCK, np.float32)
    side.moves(1.0).add(out, out)
    return out


def pair(case: Case) -> tuple[Quantiser, Quantiser]:
    return Quantiser(case.x, case.scales, case.seed), Quantiser(case.y, case.scales, case.seed)


def swap(a: Quantiser, b: Quantiser, layer: int) -> None:
    from_a, from_b = a.write(layer), b.write(layer)
    a.read(layer, from_b)
    b.read(layer, from_a)


def exchanged(case: Case) -> tuple[Quantiser, Quantiser]:
    a, b = pair(case)
    for layer in range(LAYERS):
        swap(a, b, layer)
        assert np.array_equal(a.unsure, b.unsure), "both sides find the same blocks unsure"
        if not len(a.unsure):
            break
    return a, b


@settings(max_examples=150)
@given(cases(), st.sampled_from([1.0, 0.5, 0.35, 1e-3]))
def test_both_sides_find_exactly_opposite_differences(case: Case, weight: float) -> None:
    a, b = exchanged(case)
    out_a, out_b = np.zeros_like(case.x), np.zeros_like(case.x)
    a.moves(weight).add(out_a, out_a)
    b.moves(weight).add(out_b, out_b)
    assert np.isfinite(out_a).all()
    assert np.array_equal(out_a, -out_b)
    assert distance(a) == distance(b)
    assert np.array_equal(largest_of(a), largest_of(b))


@settings(max_examples=60)
@given(cases())
def test_a_difference_is_exact_or_detected(case: Case) -> None:
    case = Case(case.x[:300], case.y[:300], case.scales[: quantiser.blocks_in(300)], case.seed)
    a, b = pair(case)
    true = quantised(case.y, b, case.seed) - quantised(case.x, a, case.seed)
    for layer in range(LAYERS):
        before = a.unsure
        swap(a, b, layer)
        sure = np.setdiff1d(before, a.unsure)
        half = 8 << 4 * layer
        known = np.abs(true) < half
        # In range: decoded, and exactly so.
        assert set(before[known[before].all(axis=1)]) <= set(sure)
        k = (decoded(a).reshape(-1, BLOCK)[sure] / np.maximum(a.steps[sure, None], 1e-37)).round()
        assert np.array_equal(k[known[sure]], true[sure][known[sure]])
        # Out of range and missed (1 block in 256): off by whole ranges, never out of this one.
        assert (np.abs(k) < half).all()
        if not len(a.unsure):
            break
    undecoded = np.abs(true[a.unsure]).max(axis=1, initial=0)
    assert (undecoded >= 8 << 4 * (LAYERS - 1)).all() or not len(undecoded)
    assert not decoded(a).reshape(-1, BLOCK)[a.unsure].any(), "an unsure block is left alone"


@settings(max_examples=100)
@given(st.integers(0, BLOCK - 1), st.integers(8, 2000), st.booleans(), st.integers(0, 2**32 - 1))
def test_one_element_out_of_range_is_always_detected(
    place: int, steps: int, negative: bool, seed: int
) -> None:
    x = np.zeros(BLOCK, np.float32)
    y = x.copy()
    y[place] = -steps if negative else steps
    case = Case(x, y, np.full(1, 1 / quantiser.STEP_PER_SCALE, np.float32), seed)
    a, b = pair(case)
    swap(a, b, 0)
    assert len(a.unsure) == 1
    a, b = exchanged(case)
    assert np.array_equal(decoded(a), y - x)


@settings(max_examples=200)
@given(st.integers(0, BLOCK), st.integers(0, BLOCK), st.sampled_from([-16, 16]))
def test_neighbours_that_drift_as_one_are_detected(first: int, last: int, steps: int) -> None:
    """Also when they are the whole block."""
    x, y = np.zeros((2, BLOCK), np.float32)
    y[first:last] = steps
    a, _ = exchanged(Case(x, y, np.full(1, 1 / quantiser.STEP_PER_SCALE, np.float32), 0))
    assert np.array_equal(decoded(a), y)


def test_any_two_that_are_off_by_a_turn_are_detected() -> None:
    assert sorted(np.abs(WEIGHTS)) == list(range(1, 128, 2))
    sums = WEIGHTS[:, None] + WEIGHTS[None, :]
    differences = WEIGHTS[:, None] - WEIGHTS[None, :]
    others = ~np.eye(BLOCK, dtype=bool)
    assert (sums[others] % 256 != 0).all()
    assert (differences[others] % 256 != 0).all()


def test_overflowing_blocks_are_missed_once_in_256() -> None:
    rng = np.random.default_rng(5)
    x = np.zeros(64 * 20_000, np.float32)
    y = (rng.integers(-500, 500, len(x)) * 16).astype(np.float32)  # all read as no difference
    case = Case(x, y, np.full(20_000, 1 / quantiser.STEP_PER_SCALE, np.float32), 1)
    a, b = pair(case)
    swap(a, b, 0)
    missed, expected = 20_000 - len(a.unsure), 20_000 / 256
    assert abs(missed - expected) < 4 * np.sqrt(expected)


def test_the_difference_is_unbiased_and_its_variance_known() -> None:
    rng = np.random.default_rng(2)
    step, seeds = 0.01, 4000
    x = rng.uniform(-1, 1, BLOCK).astype(np.float32)
    y = x + rng.uniform(-0.03, 0.03, BLOCK).astype(np.float32)
    exact = y.astype(np.float64) - x
    scales = np.full(1, step / float(quantiser.STEP_PER_SCALE), np.float32)
    found = np.empty((seeds, BLOCK))
    for number, seed in enumerate(rng.integers(0, 2**32, seeds)):
        found[number] = decoded(exchanged(Case(x, y, scales, int(seed)))[0])
    step = float(scales[0] * quantiser.STEP_PER_SCALE)
    f = (exact / step) % 1
    variance = f * (1 - f) * step**2
    assert (np.abs(found.mean(axis=0) - exact) < 4.5 * np.sqrt(variance / seeds) + 1e-7).all()
    ratio = found.var(axis=0).sum() / variance.sum()
    assert abs(ratio - 1) < 4 * np.sqrt(2 / (seeds * BLOCK))


def test_the_noise_vanishes_as_the_vectors_agree() -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    a, _ = exchanged(Case(x, x.copy(), np.full(16, 0.5, np.float32), 9))
    assert distance(a) == 0.0


def test_the_dither_is_uniform_over_seeds_and_over_elements() -> None:
    x = np.zeros(1 << 16, np.float32)
    high = np.full(1 << 10, 16.0, np.float32)  # D = 2.5
    share = np.float32(0.3) * high[0] * quantiser.STEP_PER_SCALE
    y = np.full_like(x, share)  # q differs for 30 % of all dithers
    across = np.array([decoded(exchanged(Case(x, y, high, seed))[0]) > 0 for seed in range(4)])
    assert np.allclose(across.mean(axis=1), 0.3, atol=1e-3)  # Weyl: far better than random
    seeds = np.random.default_rng(1).integers(0, 2**32, 2000)
    one = [decoded(exchanged(Case(x[:64], y[:64], high[:1], int(s)))[0])[7] > 0 for s in seeds]
    assert abs(np.mean(one) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)


@settings(max_examples=60)
@given(cases())
def test_the_codes_hold_the_low_bits_and_the_check(case: Case) -> None:
    case = Case(case.x[:300], case.y, case.scales[: quantiser.blocks_in(300)], case.seed)
    side = Quantiser(case.x, case.scales, case.seed)
    q = quantised(case.x, side, case.seed)
    wire = np.frombuffer(side.write(0), np.uint8).reshape(-1, 33)
    codes, checks = wire[:, :32], wire[:, 32]
    assert np.array_equal(np.hstack([codes & 15, codes >> 4]), q & 15)
    assert np.array_equal(checks, ((q >> 4) @ WEIGHTS) & 255)


@settings(max_examples=60)
@given(cases(), st.lists(st.integers(0, 520), max_size=4), st.randoms(use_true_random=False))
def test_layer_0_may_come_in_parts(case: Case, cuts: list[int], order: Random) -> None:
    (whole, other), (parted, _) = pair(case), pair(case)
    blocks = len(case.scales)
    edges = sorted({0, blocks, *(min(cut, blocks) for cut in cuts)})
    parts = list(pairwise(edges))
    order.shuffle(parts)
    codes = whole.write(0)
    theirs = other.write(0)
    whole.read(0, theirs)
    for first, stop in parts:
        piece = slice(first * 33, stop * 33)
        assert parted.write_part(first, stop) == codes[piece]
        parted.read_part(first, stop, memoryview(theirs)[piece])
    assert np.array_equal(parted.unsure, whole.unsure)
    assert np.array_equal(largest_of(parted), largest_of(whole))
    assert np.array_equal(decoded(parted), decoded(whole))


def test_threads_may_work_on_different_parts() -> None:
    """The extension lets go of the GIL: nothing but its own part may be touched by a call."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal(BLOCK * 3000 - 7).astype(np.float32)
    y = x + rng.standard_normal(len(x)).astype(np.float32) * np.float32(0.05)
    case = Case(x, y, np.full(3000, 0.1, np.float32), 8)
    (whole, other), (parted, _) = pair(case), pair(case)
    codes, theirs = whole.write(0), other.write(0)
    whole.read(0, theirs)

    def work(first: int) -> bytes:
        written = bytes(parted.write_part(first, first + 75))
        parted.read_part(first, first + 75, memoryview(theirs)[first * 33 : (first + 75) * 33])
        return written

    with ThreadPoolExecutor(4) as pool:
        assert b"".join(pool.map(work, range(0, 3000, 75))) == codes
    assert 0 < len(whole.unsure) < 3000
    assert np.array_equal(parted.unsure, whole.unsure)
    assert np.array_equal(decoded(parted), decoded(whole))


def test_parts_not_read_are_unsure() -> None:
    side = Quantiser(np.zeros(300, np.float32), np.ones(5, np.float32), 0)
    side.write(0)
    side.read_part(1, 3, bytes(side.write_part(1, 3)))
    assert list(side.unsure) == [0, 3, 4]


@settings(max_examples=40)
@given(cases(), cases())
def test_a_workspace_may_be_used_again(before: Case, case: Case) -> None:
    """What it held for another exchange does not matter, even for one broken off."""
    length = min(len(before.x), len(case.x))
    blocks = quantiser.blocks_in(length)
    before, case = (
        Case(c.x[:length], c.y[:length], c.scales[:blocks], c.seed) for c in (before, case)
    )
    a, b = exchanged(case)
    work = Workspace(length)
    Quantiser(before.y, before.scales, before.seed, work).write(0)
    other = Quantiser(before.x, before.scales, before.seed, work)
    other.read(0, other.write(0))
    again, peer = Quantiser(case.x, case.scales, case.seed, work), pair(case)[1]
    for layer in range(LAYERS):
        swap(again, peer, layer)
        if not len(again.unsure):
            break
    assert np.array_equal(decoded(again), decoded(a))
    assert distance(again) == distance(b)


def test_a_quantiser_with_a_workspace_takes_no_memory_per_element() -> None:
    x = np.zeros(64 * 32768, np.float32)
    work, scales = Workspace(len(x)), np.ones(32768, np.float32)
    theirs = Quantiser(x, scales, 1).write(0)
    tracemalloc.start()
    side = Quantiser(x, scales, 1, work)
    for first in range(0, 32768, 128):
        piece = slice(first * 33, (first + 128) * 33)
        side.write_part(first, first + 128)
        side.read_part(first, first + 128, memoryview(theirs)[piece])
    side.moves(0.5).add(x, x)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < len(x)


@given(st.integers(1, 5000))
def test_a_layer_has_the_size_that_is_promised(length: int) -> None:
    blocks = quantiser.blocks_in(length)
    assert (blocks - 1) * BLOCK < length <= blocks * BLOCK
    side = Quantiser(np.zeros(length, np.float32), np.ones(blocks, np.float32), 0)
    assert len(side.write(0)) == quantiser.layer_bytes(blocks) == blocks * 33


def test_four_bits_and_three_bytes_per_block_in_all() -> None:
    parameters = 1_000_000 // BLOCK * BLOCK
    blocks = quantiser.blocks_in(parameters)
    wire = (
        quantiser.layer_bytes(blocks) + len(quantiser.pack_scales(np.ones(blocks, "f4")).data) * 2
    )
    assert wire / parameters == 0.5 + 3 / 64


@settings(max_examples=40)
@given(cases(), st.integers(0, LAYERS - 1))
def test_garbage_is_bounded_by_the_range(case: Case, layers: int) -> None:
    rng = np.random.default_rng(case.seed)
    side = Quantiser(case.x, case.scales, case.seed)
    for layer in range(layers + 1):
        side.write(layer)
        size = quantiser.layer_bytes(len(side.unsure))
        side.read(layer, rng.bytes(size))
    most = np.repeat(side.steps * np.float32(8 << 4 * layers), BLOCK)
    assert (np.abs(decoded(side)) <= most).all()
    assert (largest_of(side) <= side.steps * (8 << 4 * (LAYERS - 1))).all()


@pytest.mark.parametrize("change", [-1, 1])
def test_a_layer_of_another_size_is_malformed(change: int) -> None:
    side = Quantiser(np.zeros(100, np.float32), np.ones(2, np.float32), 0)
    side.write(0)
    with pytest.raises(Malformed, match="bytes of codes"):
        side.read(0, bytes(66 + change))


@settings(max_examples=60)
@given(cases())
def test_distance_largest_and_apply_agree(case: Case) -> None:
    a, _ = exchanged(case)
    whole = decoded(a).astype(np.float64)
    assert distance(a) == pytest.approx(np.linalg.norm(whole), rel=1e-5)
    largest = np.abs(whole).reshape(-1, BLOCK).max(axis=1).astype(np.float32)
    largest = np.maximum(largest, a.steps / 2)
    largest[a.unsure] = a.steps[a.unsure] * 2048
    assert np.array_equal(largest_of(a), largest)
    moved = case.x.copy()
    with np.errstate(over="ignore"):
        a.moves(0.5).add(moved, moved)
        halved = np.float32(0.5) * decoded(a)[: len(moved)]
        assert np.array_equal(moved, case.x + halved)
