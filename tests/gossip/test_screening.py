"""The gate and the clip: from our own history, robust to a minority, and never shut for good."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip.config import Screening
from covey.gossip.screening import Bound, Bounds, Screen

DISTANCES = st.floats(0, allow_infinity=True, allow_nan=False)
CONFIG = Screening()


def screen(*distances: float, scale: float = 0.0, config: Screening = CONFIG) -> Screen:
    made = Screen(config)
    made.scale = scale
    for distance in distances:
        made.note(distance)
    return made


@given(DISTANCES, DISTANCES, DISTANCES)
def test_a_factor_never_lets_through_more_than_the_bound(
    reach: float, clip: float, distance: float
) -> None:
    factor = Bound(reach, clip).factor(distance)
    assert 0.0 <= factor <= 1.0
    if distance > reach:
        assert factor == 0.0
    elif np.isfinite(distance):
        assert factor * distance <= clip * (1 + 1e-12)
        assert factor == 1.0 or distance > clip


def test_what_is_not_a_distance_is_refused() -> None:
    assert Bound(1e18, 1e18).factor(float("inf")) == 0.0
    assert Bound(float("inf"), float("inf")).factor(float("nan")) == 0.0


@given(DISTANCES, DISTANCES, DISTANCES, DISTANCES, DISTANCES)
def test_the_gentler_bound_of_two_holds(
    a: float, b: float, c: float, d: float, distance: float
) -> None:
    mine, theirs = Bound(a, b), Bound(c, d)
    both = mine.both(theirs)
    assert both == theirs.both(mine)
    assert both.factor(distance) <= min(mine.factor(distance), theirs.factor(distance))


def test_both_parts_are_judged_on_their_own() -> None:
    bounds = Bounds(Bound(3.0, 1.0), Bound(30.0, 10.0))
    assert bounds.factors((2.0, 5.0)) == (0.5, 1.0)
    assert bounds.factors((4.0, 40.0)) == (0.0, 0.0)
    gentler = bounds.both(Bounds(Bound(9.0, 9.0), Bound(4.0, 4.0)))
    assert gentler == Bounds(Bound(3.0, 1.0), Bound(4.0, 4.0))


def test_the_first_exchanges_are_taken_as_they_are() -> None:
    early = screen(1.0, 1.0, 1.0)
    assert early.bound().factor(1e9) == 1.0
    assert early.bound().factor(1e19) == 0.0, "but never so far that float32 might overflow"
    early.note(1.0)
    assert early.bound().factor(1e9) == 0.0


def test_the_bound_is_a_quantile_and_a_median() -> None:
    bound = screen(*np.linspace(1, 2, 24)).bound()
    assert bound.clip == pytest.approx(1.3)
    assert bound.reach == pytest.approx(4.5)
    assert len(screen(*range(1, 100))._distances) == 24


def test_a_minority_of_liars_moves_the_bound_little() -> None:
    honest = [1.0] * 18
    far, near = screen(*honest, *[1e12] * 6).bound(), screen(*honest, *[1e-12] * 6).bound()
    assert far == near == Bound(3.0, 1.0)


def test_a_liar_raises_the_history_by_a_bounded_factor_only() -> None:
    liar = screen(*[1.0] * 24)
    liar.note(1e15)
    assert max(liar._distances) == CONFIG.growth


@pytest.mark.parametrize("far", [10.0, 1e3, 1e6])
def test_a_gate_opens_again_after_a_drift(far: float) -> None:
    drifted = screen(*[1.0] * 24)
    refusals = 0
    while drifted.bound().factor(far) == 0.0:
        drifted.note(far)
        refusals += 1
    assert refusals <= 24 * (1 + np.log(far) / np.log(CONFIG.growth))
    while drifted.bound().factor(far) < 1.0:
        drifted.note(far)


@pytest.mark.parametrize("distance", [0.0, 1e-30])
def test_a_flock_that_agreed_is_not_locked_out_of_itself(distance: float) -> None:
    """The distances of settling say nothing about those of training."""
    settled = screen(*[distance] * 100, scale=50.0)
    for _ in range(40):
        settled.note(1.0)  # 2 % of the vector's length, as in training
    assert settled.bound().factor(1.0) > 0.5


def test_distances_below_the_floor_are_never_clipped() -> None:
    bound = screen(*[1e-9] * 24, scale=1000.0).bound()
    assert bound == Bound(3.0, 1.0)


@given(st.lists(st.floats(1e-9, 1e9), min_size=4, max_size=24))
def test_the_bound_is_numpys_quantile(distances: list[float]) -> None:
    made = screen()
    made._distances.extend(distances)
    assert made.bound().clip == pytest.approx(float(np.quantile(distances, 0.3)))
    assert made.bound().reach == pytest.approx(3 * float(np.median(distances)))


@given(st.lists(DISTANCES, max_size=60), st.floats(0, 1e30))
def test_bounds_are_always_numbers(distances: list[float], scale: float) -> None:
    bound = screen(*distances, scale=scale).bound()
    assert 0 <= bound.clip <= 1e18
    assert 0 <= bound.reach <= 1e18
