"""The array arithmetic, an element at a time."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip import reference
from covey.gossip.blocks import BLOCK, CODED, HALF


@given(st.lists(st.floats(width=32), min_size=1, max_size=200))
def test_block_max_is_the_largest_magnitude_and_a_nan_the_largest_of_all(
    values: list[float],
) -> None:
    a = np.array(values, np.float32)
    out = np.empty(-(-len(a) // BLOCK), np.float32)
    reference.block_max(a, None, out)
    firsts = range(0, len(a), BLOCK)
    expected = [np.abs(a[first : first + BLOCK]).max() for first in firsts]
    assert np.array_equal(out, np.array(expected, np.float32), equal_nan=True)
    with np.errstate(over="ignore", invalid="ignore"):
        reference.block_max(a, a[::-1].copy(), out)
        apart = np.abs(a - a[::-1])
    expected = [apart[first : first + BLOCK].max() for first in firsts]
    assert np.array_equal(out, np.array(expected, np.float32), equal_nan=True)


@settings(max_examples=30)
@given(st.integers(0, 700), st.integers(0, 2**32 - 1))
def test_decode_finds_the_difference_its_energy_and_its_peak(blocks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.integers(-(2**20), 2**20, (blocks, BLOCK))
    k = rng.integers(-7, 8, (blocks, BLOCK))
    ones, starts = np.ones(blocks, np.float32), np.zeros(blocks, np.uint32)
    mine, theirs = np.empty((2, blocks * CODED), np.uint8)
    reference.encode(q.astype(np.float32).reshape(-1), ones, starts, mine, 0)
    reference.encode((q + k).astype(np.float32).reshape(-1), ones, starts, theirs, 0)
    difference = np.empty((blocks, HALF), np.uint8)
    energy, peak = np.empty(blocks, np.int32), np.empty(blocks, np.int16)
    doubtful = np.empty(blocks, np.bool_)
    reference.decode(mine, theirs, difference, energy, peak, doubtful)
    assert not doubtful.any()
    assert np.array_equal(reference.signed(difference), k)
    assert np.array_equal(energy, (k * k).sum(axis=1))
    assert np.array_equal(peak, np.abs(k).max(axis=1, initial=0))


def test_each_layer_of_codes_is_four_bits_further_up() -> None:
    q = np.arange(BLOCK, dtype=np.float32) * 977 - 30_000
    one, start = np.ones(1, np.float32), np.zeros(1, np.uint32)
    for layer in range(3):
        out = np.empty(CODED, np.uint8)
        reference.encode(q, one, start, out, layer)
        assert np.array_equal(
            reference.unpacked(out[None, :HALF])[0], q.astype(np.int64) >> 4 * layer & 15
        )
