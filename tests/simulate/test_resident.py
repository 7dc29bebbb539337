"""A resident: when it takes progress in, when it hands increments over, how it settles."""

from dataclasses import replace

import numpy as np

from covey.gossip.config import Config, OuterStep
from covey.gossip.core import Outgoing
from covey.protocols.messages import Busy, Propose
from covey.simulate.resident import Resident
from covey.simulate.scenario import Network, Scenario
from covey.simulate.world import World
from tests.simulate.strolls import Strolls

CALM = Config(outer=OuterStep(momentum=0.0, rate=1.0))
PAIR = Scenario(nodes=2, network=Network(latency_s=1.0), config=CALM)


def world_of(scenario: Scenario = PAIR, steps: int = 4) -> tuple[World, list[Resident]]:
    """Residents whose models have gone so many steps, in a world that stands still."""
    strolls = Strolls(scenario.nodes)
    world = World(scenario, strolls)
    for _ in range(steps):
        strolls.step(np.arange(scenario.nodes))
    return world, world.residents


def gap(residents: list[Resident]) -> float:
    return float(np.linalg.norm(residents[0].vector - residents[1].vector))


def test_an_increment_is_handed_over_between_steps_once_the_period_is_closed() -> None:
    world, residents = world_of()
    first = residents[0]
    before, apart = first.vector.copy(), gap(residents)
    residents[1].core.progress(residents[1].vector, applied=True)
    first.begin_period()
    world.agenda.run(3.0)
    first.boundary()
    assert not first.at_rest
    assert np.array_equal(first.vector, before)
    world.agenda.run(10.0)
    assert first.at_rest
    assert np.array_equal(first.vector, before)  # never in the middle of a step
    first.boundary()
    moved = first.vector.copy()
    assert 0.3 * apart < np.linalg.norm(moved - before) < 0.7 * apart
    first.boundary()
    assert np.array_equal(first.vector, moved)
    residents[1].boundary()
    assert gap(residents) < 0.2 * apart


def test_steps_during_an_exchange_are_kept() -> None:
    world, residents = world_of()
    first = residents[0]
    first.begin_period()
    world.agenda.run(1.0)
    first.vector += 1.0
    world.agenda.run(10.0)
    first.boundary()
    assert float(np.mean(first.vector - first.core.replica.x)) > 0.99
    first.begin_period()
    world.agenda.run(20.0)
    assert abs(float(np.mean(first.vector - first.core.replica.x))) < 0.6


def test_who_is_off_begins_no_period() -> None:
    _, (first, _) = world_of()
    first.up = False
    first.begin_period()
    assert first.at_rest


def test_own_work_that_waits_goes_first() -> None:
    world, (first, second) = world_of()
    second.begin_period()
    world.agenda.run(1.5)
    assert first.core.busy  # it has answered
    first.begin_period()  # and must wait with its snapshot
    again = Propose(b"n" * 16, "mod4", first.core.lineage, 1.0, 1.0)
    answer = first.receive(second.core.me, Outgoing(first.core.me, again))
    assert isinstance(answer.message, Busy)
    world.agenda.run(30.0)
    assert first.at_rest
    assert second.at_rest
    assert first.exchanges >= 1


def test_settling_ends_when_all_agree_or_the_rounds_are_over() -> None:
    for rounds in (2, 50):
        config = replace(CALM, codec="f32", settle_exchanges=rounds)
        scenario = replace(PAIR, nodes=6, network=Network(), config=config)
        world, residents = world_of(scenario)
        for resident in residents:
            resident.core.progress(resident.vector, applied=True)
            resident.settle()
        world.agenda.run(30.0)
        assert all(resident.settled for resident in residents)
        for resident in residents:
            resident.finish()
            assert np.array_equal(resident.vector, resident.core.replica.x)
        vectors = np.stack([resident.vector for resident in residents])
        length = float(np.linalg.norm(vectors.mean(0)))
        apart = float(np.linalg.norm(vectors - vectors.mean(0), axis=1).max()) / length
        proposed = sum(resident.exchanges for resident in residents) / 2
        if rounds == 2:
            assert proposed <= 12
        else:
            assert apart < scenario.config.settled_below
            assert proposed < 100  # of 300 that would be possible


def test_a_broken_exchange_is_counted_and_the_period_goes_on() -> None:
    world, (first, second) = world_of()
    second.core.accepting = False
    first.begin_period()
    world.agenda.run(30.0)
    assert first.at_rest
    assert first.exchanges == 0
    assert set(first.reasons) == {"not_ready"}
