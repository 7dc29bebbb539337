"""The gate and the clip: from our own history, robust to a minority, and never shut for good."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip.config import Screening
from covey.gossip.screening import Bound, Bounds, Screen
from covey.protocols.identity import PeerId

DISTANCES = st.floats(0, allow_infinity=True, allow_nan=False)
CONFIG = Screening(first_reach=16.0, gate_quantile=0.5, gate_ratio=3.0)  # round numbers


PEERS = [PeerId(bytes([number]) * 32) for number in range(60)]


def screen(*distances: float, peers: int = 1, scale: float = 0.0) -> Screen:
    """With these distances to so many peers in turn."""
    made = Screen(CONFIG)
    made.scale = scale
    for number, distance in enumerate(distances):
        made.note(PEERS[number % peers], distance)
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


def test_the_first_peers_are_as_far_as_we_have_moved_ourselves() -> None:
    early = screen(scale=2.0)
    assert early.bound() == Bound(2.0, 2.0), "a sign turned round is farther"
    early.moved = 0.5
    assert early.bound() == Bound(8.0, 8.0)
    assert not early.settled
    for _ in range(4):
        early.note(PEERS[0], 1.0)
    assert early.settled
    assert early.bound().clip == 1.0


def test_a_copied_model_of_the_same_beginning_is_no_newborn() -> None:
    """The length of the model would let a liar take it away at once."""
    mature = screen(scale=50.0)
    for peer in PEERS[:8]:
        mature.note(peer, 1.0)
    reach = mature.bound().reach
    mature.begin()
    assert not mature.settled
    assert mature.bound() == Bound(reach, reach)
    mature.moved = 30.0
    assert mature.bound() == Bound(reach, reach), "however far it goes"
    for peer in PEERS[:8]:
        mature.note(peer, 3.0)
    assert mature.bound().clip == pytest.approx(3.0), "the flock was farther than we knew"


def test_without_any_yard_stick_all_is_taken() -> None:
    early = screen(1.0, 1.0, 1.0)
    assert early.bound().factor(1e9) == 1.0
    assert early.bound().factor(1e19) == 0.0, "but never so far that float32 might overflow"
    early.note(PEERS[0], 1.0)
    assert early.bound().factor(1e9) == 0.0


@pytest.mark.parametrize("peers", [1, 4, 24])
def test_the_bound_is_a_quantile_and_a_median(peers: int) -> None:
    made = screen(*np.linspace(1, 2, 24), peers=peers)
    assert made.bound().clip == pytest.approx(1.3)
    assert made.bound().reach == pytest.approx(4.5)


def test_only_the_latest_count() -> None:
    assert screen(*[1.0] * 24, *[2.0] * 24, peers=6).bound() == Bound(6.0, 2.0)
    assert screen(*[1.0] * 24, *[2.0] * 36, peers=60).bound() == Bound(6.0, 2.0)


@pytest.mark.parametrize("lie", [1e12, 1e-12])
def test_a_minority_of_liars_moves_the_bound_little(lie: float) -> None:
    votes = [1.0, 1.0, lie, 1.0] * 6
    assert screen(*votes, peers=4).bound() == Bound(3.0, 1.0)


@pytest.mark.parametrize("lie", [1e12, 1e-12])
def test_one_that_calls_ever_again_has_one_vote(lie: float) -> None:
    made = screen(*[1.0] * 12, peers=4)
    for _ in range(1000):
        made.note(PEERS[9], lie)
    assert made.bound() == Bound(3.0, 1.0)


def test_the_only_peer_stretches_the_bound_slowly() -> None:
    made = screen(*[1.0] * 24)
    for _ in range(11):
        made.note(PEERS[0], 1e15)
    assert made.bound().reach == 3.0
    for _ in range(11):
        made.note(PEERS[0], 1e15)
    assert made.bound().reach == 30.0


@pytest.mark.parametrize("peers", [1, 3, 8, 40])
@pytest.mark.parametrize("far", [10.0, 1e3, 1e6])
def test_a_gate_opens_again_after_a_drift(far: float, peers: int) -> None:
    drifted = screen(*[1.0] * 40, peers=peers)
    refusals = 0
    while drifted.bound().factor(far) == 0.0:
        drifted.note(PEERS[refusals % peers], far)
        refusals += 1
    assert refusals <= 13 * (1 + np.log10(far))
    for turn in range(60):
        drifted.note(PEERS[turn % peers], far)
    assert drifted.bound().factor(far) == 1.0


def test_a_majority_that_drifted_away_together_is_soon_plausible() -> None:
    """A partition that healed: four of seven peers are far, and go on being met in turn."""
    healed = screen(*[1.0] * 21, peers=3)
    for turn in range(35):
        healed.note(PEERS[turn % 7], 1.0 if turn % 7 < 3 else 20.0)
    assert healed.bound().factor(20.0) > 0.0


@pytest.mark.parametrize("distance", [0.0, 1e-30])
def test_a_flock_that_agreed_is_not_locked_out_of_itself(distance: float) -> None:
    """The distances of settling say nothing about those of training."""
    settled = screen(*[distance] * 100, peers=4, scale=50.0)
    for turn in range(20):
        settled.note(PEERS[turn % 4], 1.0)  # 2 % of the vector's length, as in training
    assert settled.bound().factor(1.0) > 0.4


def test_those_who_left_have_no_vote_if_others_have_enough() -> None:
    made = screen(*[1.0, 100.0] * 12, peers=2)
    made.keep({PEERS[0]})
    assert made.bound() == Bound(3.0, 1.0)
    made.keep(set())
    assert made.bound() == Bound(3.0, 1.0), "a hiccup of the network does not open the gate"


def test_distances_below_the_floor_are_never_clipped() -> None:
    bound = screen(*[1e-9] * 24, scale=1000.0).bound()
    assert bound == Bound(3.0, 1.0)


@given(st.lists(st.floats(1e-9, 1e9), min_size=4, max_size=24))
def test_the_bound_is_numpys_quantile(distances: list[float]) -> None:
    made = Screen(Screening(clip_quantile=0.3, gate_quantile=0.7, gate_ratio=2.0))
    made._distances[PEERS[0]] = distances
    made._yardstick = made._quantiles()
    assert made.bound().clip == pytest.approx(float(np.quantile(distances, 0.3)))
    assert made.bound().reach == pytest.approx(2 * float(np.quantile(distances, 0.7)))


def test_a_third_of_liars_moves_no_bound_and_two_halves_soon_meet_again() -> None:
    """By default: 16 nodes, of whom some are ten times as far away as the others."""

    def bound(far: int) -> Bound:
        made = Screen(Screening())
        for number in range(15):
            made.note(PEERS[number], 1.0)
        for number in range(far):
            made.note(PEERS[number], 10.0)
        return made.bound()

    assert bound(far=0) == bound(far=4) == Bound(2.0, 1.0)
    assert bound(far=5).reach >= 10.0


@given(st.lists(DISTANCES, max_size=60), st.floats(0, 1e30))
def test_bounds_are_always_numbers(distances: list[float], scale: float) -> None:
    bound = screen(*distances, peers=3, scale=scale).bound()
    assert 0 <= bound.clip <= 1e18
    assert 0 <= bound.reach <= 1e18
