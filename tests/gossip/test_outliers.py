"""Who is farther from all others than is usual counts for less, and nobody else does."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip.config import Screening
from covey.gossip.outliers import Outliers
from covey.gossip.screening import Bound
from covey.protocols.identity import PeerId

CONFIG = Screening(remembered=12, outlying=0.05)
PEERS = [PeerId(bytes([k]) * 32) for k in range(40)]
OURS = Bound(4.0, 1.5)
Distances = st.floats(0, allow_nan=False)


def times(bound: Bound, ratio: float) -> Bound:
    return Bound(bound.reach * ratio, bound.clip * ratio)


def outliers(ratios: list[float], rounds: int = 2, config: Screening = CONFIG) -> Outliers:
    """Of peers that state so many times our own bounds, each met so often."""
    made = Outliers(config)
    for _ in range(rounds):
        for peer, ratio in zip(PEERS, ratios, strict=False):
            made.note(peer, OURS, times(OURS, ratio))
    return made


@pytest.mark.parametrize(
    ("farther", "factor"), [(-0.7, 1), (0, 1), (0.05, 1), (0.1, 0.5), (0.15, 0), (2, 0)]
)
@pytest.mark.parametrize("usual", [0.7, 1.0, 3.0])
def test_who_is_farther_than_usual_counts_for_less(
    farther: float, factor: float, usual: float
) -> None:
    """Whatever is usual for us."""
    made = outliers([usual] * 9 + [usual * math.exp(farther)])
    assert made.factor(PEERS[9]) == pytest.approx(factor, abs=1e-9)
    assert made.factor(PEERS[0]) == 1.0


def test_where_peers_vary_it_takes_more_to_be_an_outlier() -> None:
    """Half of them are a tenth nearer or farther than the others: that much is usual."""
    ratios = [math.exp(0.1 * k) for k in (-1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1)]
    for farther, factor in [(0.1, 1.0), (0.2, 0.5), (0.3, 0.0)]:
        made = outliers([*ratios, math.exp(farther)])
        assert made.factor(PEERS[11]) == pytest.approx(factor, abs=1e-9)


def test_until_enough_was_noted_everybody_counts() -> None:
    assert outliers([1.0] * 10 + [2.0], rounds=1).factor(PEERS[10]) == 1.0  # 11 of 12 statements
    assert outliers([1.0] * 8 + [2.0], rounds=9).factor(PEERS[8]) == 1.0  # 9 peers are too few
    assert outliers([1.0] * 11 + [2.0], rounds=1).factor(PEERS[11]) == 0.0
    assert outliers([1.0] * 10).factor(PEERS[10]) == 1.0  # whom we never met


def test_a_statement_without_a_history_says_nothing() -> None:
    """A newcomer states one distance for both: how long its model is."""
    made = outliers([1.0] * 10)
    made.note(PEERS[10], OURS, Bound(50.0, 50.0))
    assert made.factor(PEERS[10]) == 1.0
    made.note(PEERS[11], Bound(0.1, 0.1), OURS)
    assert made.factor(PEERS[11]) == 1.0


def test_who_begins_anew_is_no_outlier_for_what_it_said_before() -> None:
    """It has copied a model, and has no history yet."""
    made = outliers([1.0] * 10 + [2.0])
    assert made.factor(PEERS[10]) == 0.0
    made.note(PEERS[10], OURS, Bound(9.0, 9.0))
    assert made.factor(PEERS[10]) == 1.0


def test_a_peers_latest_statement_counts() -> None:
    made = outliers([1.0] * 10)
    made.note(PEERS[0], OURS, times(OURS, 1.2))
    assert made.factor(PEERS[0]) == 0.0
    made.note(PEERS[0], OURS, times(OURS, math.exp(0.1)))
    assert made.factor(PEERS[0]) == pytest.approx(0.5)
    made.note(PEERS[0], OURS, OURS)
    assert made.factor(PEERS[0]) == 1.0


def test_peers_of_long_ago_are_forgotten() -> None:
    made = outliers([1.0] * 10)
    for peer in PEERS[20:32]:
        made.note(peer, OURS, times(OURS, 2.0))
    assert made.factor(PEERS[0]) == 1.0  # unknown again
    assert made.factor(PEERS[31]) == 1.0  # that is the usual now


@given(
    stated=st.lists(
        st.tuples(st.integers(0, 15), st.tuples(Distances, Distances)), min_size=1, max_size=80
    )
)
def test_most_peers_always_count_in_full(stated: list[tuple[int, tuple[float, float]]]) -> None:
    """Whatever they state, and never for more than in full."""
    made = Outliers(CONFIG)
    for number, distances in stated:
        made.note(PEERS[number], OURS, Bound(*distances))
    factors = [made.factor(PEERS[number]) for number in range(16)]
    assert all(0.0 <= factor <= 1.0 for factor in factors)
    assert 2 * sum(factor == 1.0 for factor in factors) >= len(factors)
