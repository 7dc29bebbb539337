"""Real cores do what is calculated, and what is calculated agrees with counting all cases."""

from collections.abc import Iterator
from itertools import product
from math import e, sqrt

import numpy as np
import pytest

from covey.gossip.config import OuterStep
from covey.simulate import schedules
from covey.simulate.schedules import PLAIN, Cores, Doubles, Order, Row

STEPS = [PLAIN, OuterStep(momentum=0.5, rate=0.7), OuterStep(momentum=0.3, rate=0.5)]


class Rash(OuterStep):
    """Any outer step, however it ends."""

    def __post_init__(self) -> None:
        """Whatever is asked for."""


def check(row: Row) -> None:
    assert row.error > 0
    assert row.error < 0.05 * row.formula, f"too few trials: {row}"
    assert abs(row.measured - row.formula) < 4 * row.error, row


def averaging(nodes: int, *pairs: tuple[int, int]) -> Doubles:
    """The matrix of these exchanges, one after the other."""
    whole = np.eye(nodes)
    for one, other in pairs:
        step = np.eye(nodes)
        step[[one, one, other, other], [one, other, one, other]] = 0.5
        whole = step @ whole
    return whole


def left(matrices: list[Doubles]) -> float:
    """What is left of the spread of deviations without direction, on average over all cases."""
    nodes = len(matrices[0])
    centred = np.eye(nodes) - 1 / nodes
    return float(np.mean([np.square(w @ centred).sum() for w in matrices])) / (nodes - 1)


@pytest.mark.parametrize("nodes", [3, 8, 14])
def test_a_pair_takes_its_share_of_the_spread(nodes: int) -> None:
    check(schedules.pair(Order(nodes, 128), 200))


@pytest.mark.parametrize("nodes", [4, 10])
@pytest.mark.parametrize("codec", ["f32", "mod4"])
def test_matchings_and_sequences_contract_as_calculated(nodes: int, codec: str) -> None:
    trials = {"f32": 800 // nodes, "mod4": 40}[codec]
    for row in schedules.contraction(Order(nodes, 64, trials, seed=3, codec=codec)):
        check(row)


@pytest.mark.parametrize("nodes", [3, 12])
def test_a_lost_answer_drifts_the_mean_as_calculated(nodes: int) -> None:
    check(schedules.drift(Order(nodes, 128), 200))


@pytest.mark.parametrize("codec", ["f32", "mod4"])
def test_complete_and_refused_exchanges_keep_the_mean(codec: str) -> None:
    cores = Cores(Order(10, 200, codec=codec))
    cores.scatter()
    mean = cores.x.mean(axis=0)
    cores.match(failing=0.4)
    assert schedules.spread(cores.x) < 0.9 * 9 * 200
    assert np.abs(cores.x.mean(axis=0) - mean).max() < 1e-7


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_the_moments_follow_their_matrix(step: OuterStep) -> None:
    check(schedules.recursion(Order(10, 128, 20), step))


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_noise_keeps_up_the_calculated_variance(step: OuterStep) -> None:
    check(schedules.steady(Order(8, 32, 24), step, 24))


@pytest.mark.parametrize("step", [Rash(0.9, 1.9), Rash(0.5, 2.5)], ids=str)
def test_a_radius_above_one_drives_nodes_apart(step: OuterStep) -> None:
    assert schedules.spectral_radius(schedules.moments(12, step)) > 1.2
    cores = Cores(Order(12, 64))
    cores.scatter()
    before = schedules.spread(cores.x)
    for _ in range(12):
        cores.match()
        for core in cores.cores:
            core.replica.outer_step(step)
    assert schedules.spread(cores.x) > 4 * before


def all_matchings(nodes: list[int]) -> Iterator[list[tuple[int, int]]]:
    if not nodes:
        yield []
        return
    for other in nodes[1:]:
        rest = [k for k in nodes[1:] if k != other]
        for pairs in all_matchings(rest):
            yield [(nodes[0], other), *pairs]


@pytest.mark.parametrize("nodes", [2, 4, 6])
def test_matching_counts_all_matchings(nodes: int) -> None:
    cases = [averaging(nodes, *pairs) for pairs in all_matchings(list(range(nodes)))]
    assert schedules.matching(nodes) == pytest.approx(left(cases), abs=1e-12)
    assert schedules.matching(nodes) == pytest.approx((nodes - 2) / (2 * (nodes - 1)))


@pytest.mark.parametrize("nodes", [2, 3, 4, 5])
def test_initiating_counts_all_choices(nodes: int) -> None:
    choices = [[(one, k) for k in range(nodes) if k != one] for one in range(nodes)]
    cases = [averaging(nodes, *pairs) for pairs in product(*choices)]
    assert schedules.initiating(nodes) == pytest.approx(left(cases), abs=1e-12)


def test_many_nodes_approach_the_known_limits() -> None:
    assert schedules.initiating(10_000) == pytest.approx(1 / (2 * sqrt(e)), rel=1e-3)
    assert schedules.matching(10_000) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("step", [*STEPS, Rash(0.9, 1.9)], ids=str)
def test_moments_count_all_matchings(step: OuterStep) -> None:
    """The growth of E z zᵀ, z the weights and momenta of four nodes, over their three matchings."""
    linear, centred = schedules._linear(step), np.eye(4) - 1 / 4
    grown = np.zeros((64, 64))
    for pairs in all_matchings([0, 1, 2, 3]):
        moved = averaging(4, *pairs) - np.eye(4)
        whole = np.block([[a * np.eye(4) + d * moved, b * np.eye(4)] for a, b, d in linear])
        whole = whole @ np.kron(np.eye(2), centred)
        grown += np.kron(whole, whole) / 3
    radius = schedules.spectral_radius(schedules.moments(4, step))
    assert radius == pytest.approx(schedules.spectral_radius(grown), abs=1e-5)


def test_rows_compare_every_claim() -> None:
    found = list(schedules.rows((12,), seed=1, effort=160, step=STEPS[1]))
    assert len({row.claim for row in found}) == 8
    assert all("n = 12" in row.setting for row in found)
    assert max(row.difference for row in found) < 0.12, "of few trials"
