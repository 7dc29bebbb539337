"""The numbers of blocks: how scales are chosen, packed, and read back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip import blocks, quantiser
from covey.protocols.errors import Malformed


@given(st.lists(st.floats(0, 2.0**104, width=32), min_size=1, max_size=50))
def test_scales_are_packed_upwards(values: list[float]) -> None:
    scales = np.array(values, np.float32)
    back = quantiser.unpack_scales(quantiser.pack_scales(scales))
    assert (back >= scales).all()
    assert (back <= scales * (1 + 2.0**-7) + 1e-39).all()
    assert np.array_equal(quantiser.unpack_scales(quantiser.pack_scales(back)), back)


@pytest.mark.parametrize("bad", [-1.0, float("inf"), float("nan"), 2.0**105, -0.0])
def test_a_scale_no_model_needs_is_malformed(bad: float) -> None:
    packed = np.array([1.0, bad], np.float32).view(np.uint32) >> 16
    with pytest.raises(Malformed, match="scale"):
        quantiser.unpack_scales(packed.astype("<u2"))


def test_own_scales_follow_history_movement_and_the_vector() -> None:
    sizes, movement = np.array([[1.0, 0.0, 2.0**30], [0.1, 0.2, 0.0]], np.float32)
    typical = np.array([0.5, 0.0, 0.0], np.float32)
    scales = quantiser.own_scales(sizes, movement, typical)
    assert np.allclose(scales, [0.5, 0.14, 2.0**10])
    assert quantiser.own_scales(np.full(1, 3e38, "f4"), movement[:1], typical[:1]) <= 2.0**104


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_a_grid_has_steps_where_scales_are_usable(seed: int) -> None:
    scales = np.array([1.0, 0.0, 2.0**-120, 2.0**-100], np.float32)
    steps, inverse = np.full((2, 4), 9, np.float32)
    starts = np.zeros(4, np.uint32)
    blocks.grid(scales, steps, inverse, starts, (0.25, 2.0**-100, seed))
    assert np.array_equal(steps, [0.25, 0, 0, 2.0**-102])
    assert np.array_equal(inverse, [4, 0, 0, 2.0**102])
    elements = np.arange(4, dtype=np.uint64) * 64 * blocks.WEYL + seed
    assert np.array_equal(starts, elements % 2**32)


def test_the_outcome_is_of_blocks_as_told() -> None:
    energy, peak = np.array([25, 0, 9], np.int32), np.array([5, 0, 3], np.int16)
    doubtful = np.array([False, False, True])
    steps, most = np.array([[2, 1, 1], [100, 100, 50]], np.float32)
    largest, lanes = np.empty(3, np.float32), np.empty(blocks.LANES)
    blocks.outcome(energy, peak, doubtful, steps, most, largest, lanes, 128.0)
    assert np.array_equal(largest, [10, 0.5, 50]), "at least half a step, at most what was said"
    assert lanes[:4].tolist() == [100, 0, 9, 0]
