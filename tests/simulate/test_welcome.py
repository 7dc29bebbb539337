"""Whoever was left behind copies a model, pays for it, and goes on with the flock."""

import numpy as np
import pytest

from covey.protocols.messages import Lineage
from covey.simulate.resident import Resident
from covey.simulate.scenario import Attack, Churn, Scenario
from covey.simulate.world import World
from tests.simulate.strolls import Strolls

SIZE = 300


def flock(nodes: int = 4) -> World:
    """Among whom nobody copies unless it is told to mind."""
    return World(Scenario(nodes=nodes), Strolls(nodes, SIZE))


def grow(residents: list[Resident], age: int) -> None:
    """They have come so far, each to a model of its own."""
    for resident in residents:
        core = resident.core
        vector = np.full(SIZE, 1.0 + resident.number, np.float32)
        core.begin(vector, Lineage(core.lineage.founder, age))


def test_a_node_far_behind_copies_the_eldest_that_it_reaches() -> None:
    world = flock()
    late, one, elder, off = world.residents
    grow([one], 40)
    grow([elder, off], 50)
    grow([late], 4)
    off.up = False
    world.agenda.run(0.9)
    assert late.core.lineage.age == 4
    world.agenda.run(1.2)
    assert late.core.lineage == elder.core.lineage
    assert np.array_equal(late.core.replica.x, elder.core.replica.x)
    assert world.welcome.copies == 1
    assert elder.sent == 4 * SIZE
    world.agenda.run(5.0)
    assert world.welcome.copies == 1, "once is enough"


def test_the_learner_keeps_what_it_did_meanwhile() -> None:
    world = flock(2)
    late, elder = world.residents
    grow([elder], 50)
    world.agenda.run(1.1)
    late.vector += np.float32(0.25)
    before = late.vector.copy()
    late.boundary()
    given = late.vector - before
    assert np.allclose(given, elder.core.replica.x - late.core.replica.learner + given)
    assert np.allclose(late.vector - 0.25, elder.core.replica.x, atol=1e-6)


def test_a_node_nearly_as_far_does_not_copy() -> None:
    world = flock()
    grow(world.residents, 50)
    grow(world.residents[:1], 40)
    world.agenda.run(5.0)
    assert not world.welcome.copies


def refuse(mine: Resident, others: list[Resident], times: int = 3) -> None:
    """All of them do, again and again; the last is the nearest."""
    for other in others:
        for _ in range(times):
            mine.core._tell(other.core.me, "implausible", distance=9.0 - other.number)
    mine._mixed()


def test_a_node_that_nearly_all_refuse_copies_the_nearest() -> None:
    world = flock()
    mine, *others = world.residents
    grow(world.residents, 50)
    refuse(mine, others)
    assert world.welcome.left_behind(mine)
    world.agenda.run(1.5)
    assert world.welcome.copies == 1
    assert mine.core.replica.x[0] == 1.0 + others[-1].number
    assert not world.welcome.left_behind(mine), "it begins anew"


def test_a_node_that_is_refused_to_the_end_copies_and_settles_once_more() -> None:
    world = flock()
    mine, *others = world.residents
    grow(world.residents, 50)
    grow(others, 50)
    for other in others:
        other.core.begin(np.ones(SIZE, np.float32), mine.core.lineage)
    mine.core.begin(np.full(SIZE, 40.0, np.float32), mine.core.lineage)
    refuse(mine, others)
    for resident in world.residents:
        resident.settle()
    world.agenda.run(0.9)
    assert world.welcome.left_behind(mine)
    world.agenda.run(3.0)
    assert world.welcome.copies == 1
    assert all(resident.settled for resident in world.residents)
    assert np.allclose(mine.core.replica.x, 1.0, atol=1e-3)
    assert mine.exchanges > 0


def test_one_refusal_of_each_is_enough_while_a_node_settles() -> None:
    """What remains of settling is too short for three."""
    world = flock()
    mine, *others = world.residents
    grow(world.residents, 50)
    refuse(mine, others, times=1)
    assert not world.welcome.left_behind(mine)
    mine.core.settling = True
    refuse(mine, others, times=1)
    assert world.welcome.left_behind(mine)


def test_an_elder_that_goes_off_gives_nothing_and_is_asked_again() -> None:
    world = flock(2)
    _, elder = world.residents
    grow([elder], 50)
    world.agenda.at(1.001, lambda: setattr(elder, "up", False))
    world.agenda.run(3.0)
    while_off = world.welcome.copies
    elder.up = True
    world.agenda.run(5.0)
    assert (while_off, world.welcome.copies) == (0, 1)


@pytest.mark.parametrize("attack", [None, Attack("negate", 0.2)])
def test_nodes_long_away_come_back_into_the_flock(attack: Attack | None) -> None:
    scenario = Scenario(
        nodes=8, periods=60, steps=2, churn=Churn(50.0, 50.0), attack=attack, seed=2
    )
    world = World(scenario, Strolls(8, seed=2))
    result = world.run()
    assert world.welcome.copies > 0
    if attack is None:
        assert result.final.apart < 0.1
        ages = sorted(resident.core.lineage.age for resident in world.residents)
        assert ages[-1] < 2 * ages[1], "all but one that came back at the very end"
