"""The vector arithmetic against numpy on whole arrays, across chunk borders."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip import mixing
from covey.gossip.config import OuterStep
from covey.gossip.mixing import State
from covey.gossip.quantiser import Floats

LENGTHS = [0, 1, 1000, (1 << 16) - 1, 1 << 16, (1 << 17) + 3]


def vectors(count: int, length: int, seed: int = 0) -> list[Floats]:
    return list(np.random.default_rng(seed).standard_normal((count, length)).astype(np.float32))


@pytest.mark.parametrize("length", [length for length in LENGTHS if length])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_found_anywhere(length: int, bad: float) -> None:
    (vector,) = vectors(1, length)
    assert mixing.finite(vector)
    for place in (0, length // 2, length - 1):
        spoiled = vector.copy()
        spoiled[place] = bad
        assert not mixing.finite(spoiled)


def test_finite_values_whose_sum_overflows_are_finite() -> None:
    assert mixing.finite(np.full(1000, 3e38, np.float32))
    both = np.array([np.inf, -np.inf], np.float32)
    assert not mixing.finite(both)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("weight", [1.0, 0.5, 0.3])
def test_add_difference(length: int, weight: float) -> None:
    x, new, old = vectors(3, length)
    expected = x + (new - old) * np.float32(weight)
    mixing.add_difference(x, new, old, weight)
    assert np.array_equal(x, expected)
    expected = x + (new - x) * np.float32(weight)
    mixing.add_difference(x, new, x, weight)
    assert np.array_equal(x, expected)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_outer_step_is_nesterovs(length: int) -> None:
    x, slow, momentum = vectors(3, length)
    step = OuterStep(momentum=0.9, rate=0.7)
    wide = [v.astype(np.float64) for v in (x, slow, momentum)]
    moved = wide[0] - wide[1]
    expected_momentum = 0.9 * wide[2] + moved
    mixing.outer_step(x, State.of(slow, momentum), step)
    assert np.allclose(momentum, expected_momentum, rtol=0, atol=2e-6)
    assert np.allclose(slow, wide[1] + 0.7 * (moved + 0.9 * expected_momentum), rtol=0, atol=5e-6)


def test_outer_steps_are_torchs_nesterov_sgd() -> None:
    """DiLoCo's outer optimiser, with the period's movement as the negative gradient."""
    import torch

    step = OuterStep(momentum=0.9, rate=0.7)
    parameter = torch.nn.Parameter(torch.ones(100))
    outer = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    x = np.ones(100, np.float32)
    slow, momentum = x.copy(), np.zeros_like(x)
    rng = np.random.default_rng(0)
    for _ in range(50):
        movement = rng.normal(size=100).astype(np.float32)
        x += movement
        mixing.outer_step(x, State.of(slow, momentum), step)
        np.copyto(x, slow)
        parameter.grad = torch.from_numpy(-movement)
        outer.step()
    assert np.allclose(x, parameter.detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [*LENGTHS, 1 << 17])
def test_looking_back_gives_the_points_that_momentum_alone_would(length: int) -> None:
    """y, from which phi = y + gamma alpha m looks ahead, moves by gamma m."""
    step = OuterStep(momentum=0.8, rate=0.7)
    slow, *movements = vectors(5, length)
    momentum, y = np.zeros_like(slow), slow.astype(np.float64)
    for movement in movements:
        mixing.outer_step(slow + movement, State.of(slow, momentum), step)
        y += 0.7 * momentum
        back = slow.copy()
        mixing.look_back(back, momentum, step)
        assert np.allclose(back, y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_subtract_tells_whether_anything_changed(length: int) -> None:
    a, b = vectors(2, length)
    out = np.empty_like(a)
    assert mixing.subtract(a, b, out) == bool(length)
    assert np.array_equal(out, a - b)
    assert not mixing.subtract(a, a.copy(), out)
    if length:
        b = a.copy()
        b[-1] += 1
        assert mixing.subtract(a, b, out)


@pytest.mark.parametrize("count", range(1, 10))
def test_median_is_the_larger_of_two(count: int) -> None:
    rows = np.abs(np.array(vectors(count, 40_000, count)))
    out = np.empty(40_000, np.float32)
    before = rows.copy()
    mixing.median(rows, out)
    assert np.array_equal(out, np.sort(rows, axis=0)[count // 2])
    assert np.array_equal(rows, before)


@pytest.mark.parametrize("length", LENGTHS)
def test_norm(length: int) -> None:
    a, b = vectors(2, length)
    assert mixing.norm(a) == pytest.approx(np.linalg.norm(a.astype(np.float64)), rel=1e-12)
    apart = (a - b).astype(np.float64)
    assert mixing.norm(a, b) == mixing.norm(b, a) == pytest.approx(np.linalg.norm(apart), rel=1e-12)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_norm_of_large_values_does_not_overflow(value: float) -> None:
    assert mixing.norm(np.full(4, value, np.float32)) == pytest.approx(2 * abs(value))


def test_a_difference_that_overflows_is_infinitely_long() -> None:
    a = np.full(4, 3e38, np.float32)
    assert mixing.norm(a, -a) == float("inf")
