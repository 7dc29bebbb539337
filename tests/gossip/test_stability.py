"""Which outer steps keep nodes together: the recursion against flocks that really meet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip.stability import (
    Contraction,
    affordable_momentum,
    spread_radius,
    steady_momentum,
)

NODES = 64


def growth(momentum: float, rate: float) -> float:
    """Per period, of the squared deviations of many independent flocks of 64 that are matched
    perfectly once a period, from the 10th period on."""
    rng = np.random.default_rng(1)
    phi = rng.normal(size=(NODES, 1000))
    phi -= phi.mean(axis=0)
    m = np.zeros_like(phi)
    sizes = []
    for _ in range(30):
        pairs = rng.permutation(NODES).reshape(2, -1)
        mixed = np.empty_like(phi)
        mixed[pairs] = phi[pairs].mean(axis=0)
        moved = mixed - phi
        m = momentum * m + moved
        phi = phi + rate * (moved + momentum * m)
        sizes.append(np.square(phi).sum())
    return float((sizes[-1] / sizes[9]) ** (1 / 20))


@pytest.mark.parametrize(
    ("momentum", "rate"), [(0.0, 1.0), (0.5, 0.7), (0.8, 0.7), (0.9, 0.7), (0.9, 1.2)]
)
def test_the_radius_is_the_growth_of_real_flocks(momentum: float, rate: float) -> None:
    contraction = NODES / (2 * (NODES - 1))
    expected = spread_radius(momentum, rate, contraction)
    assert growth(momentum, rate) == pytest.approx(expected, rel=0.03)


def test_without_momentum_the_radius_is_what_averaging_leaves() -> None:
    assert spread_radius(0.0, 1.0, 0.5) == pytest.approx(0.5, abs=1e-5)


def test_the_momentum_of_diloco_needs_half_a_contraction() -> None:
    assert spread_radius(0.9, 0.7, 0.5) < 0.95 < spread_radius(0.9, 0.7, 0.4)
    assert steady_momentum(0.9, 0.7, 50) == 0.9
    assert 0.7 <= steady_momentum(0.9, 0.7, 40) < 0.9


@given(st.floats(0, 0.99), st.floats(0.05, 1), st.integers(0, 100))
def test_a_steady_momentum_is_the_largest_there_is(most: float, rate: float, percent: int) -> None:
    momentum = steady_momentum(most, rate, percent)
    assert 0 <= momentum <= most
    if momentum:
        assert spread_radius(momentum, rate, percent / 100) <= 0.95 + 1e-5
    if momentum + 0.05 < most:
        notch = round(20 * momentum + 1) / 20
        assert spread_radius(min(notch, most), rate, percent / 100) > 0.95 - 1e-5


def test_a_small_flock_affords_little_momentum() -> None:
    assert affordable_momentum(0.7, 2) == pytest.approx(0.3)
    assert affordable_momentum(0.7, 3) == pytest.approx(0.533, abs=1e-3)
    assert affordable_momentum(0.7, 16) > 0.9
    assert affordable_momentum(1.0, 2) == 0


def test_a_contraction_is_expected_until_it_is_seen() -> None:
    assert Contraction(1).percent == 50
    assert Contraction(2).percent == 75


def test_a_contraction_follows_the_meetings_of_late() -> None:
    seen = Contraction(1)
    for _ in range(100):
        seen.met(0.5)
        seen.met(0.5)
        seen.close()
    assert seen.percent == 75
    for _ in range(100):
        seen.close()
    assert seen.percent == 0
    for _ in range(100):
        seen.averaged(5)
        seen.close()
    assert seen.percent == 80


def test_a_meeting_that_was_clipped_contracts_less() -> None:
    seen = Contraction(1)
    for _ in range(200):
        seen.met(0.1)
        seen.close()
    assert seen.percent == 18  # 1 - 0.1² - 0.9², two sides of 0.1 and 0.9
