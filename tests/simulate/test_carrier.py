"""Messages between two residents: how long they take, and what is left when they break."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from covey.gossip.config import Config, OuterStep
from covey.simulate.carrier import Carrier
from covey.simulate.scenario import Network, Scenario
from covey.simulate.world import World
from tests.simulate.strolls import Strolls

STILL = Scenario(nodes=2, config=Config(outer=OuterStep(0.0, 1.0)))


def world_of(network: Network, seed: int = 0) -> World:
    """Two residents, of whom one has moved away, as far as its codes reach; the carrier draws its
    losses from ``seed``.

    Each model is then what its node has, before any exchange.
    """
    strolls = Strolls(2)
    world = World(replace(STILL, network=network), strolls)
    world.carrier = Carrier(network, world.agenda, Random(seed))
    for _ in range(4):
        strolls.step(np.arange(1))
    for resident in world.residents:
        resident.core.progress(resident.vector, applied=True)
        resident.core.open_period()
        resident.finish()
    return world


def converse(world: World, reaches: bool = True) -> None:
    caller, called = world.residents
    out = caller.core.propose([called.core.me], world.agenda.now)
    assert out is not None
    world.carrier.converse(caller, called, out, lambda: reaches)


def moved(world: World) -> tuple[bool, bool]:
    """Which of the two took the exchange in."""
    first, second = (
        bool((resident.core.replica.x != resident.vector).any()) for resident in world.residents
    )
    return first, second


def test_a_broken_connection_holds_nobody() -> None:
    """Whichever message it breaks at."""
    for seed in range(20):
        world = world_of(Network(loss=0.999), seed)
        converse(world)
        world.agenda.run(1.0)
        assert not any(resident.core.busy for resident in world.residents)


def test_an_exchange_takes_two_round_trips_and_its_bytes() -> None:
    network = Network(latency_s=1.0, bytes_per_s=1000.0)
    world = world_of(network)
    converse(world)
    first, second = world.residents
    world.agenda.run(3.9)
    assert moved(world) == (False, False)
    world.agenda.run(20.0)
    assert moved(world) == (True, True)
    assert (first.exchanges, second.exchanges) == (1, 1)
    assert first.sent > 300 + 300 * 4 / 8  # a proposal, and codes of 4 bits
    quick = world_of(network)
    converse(quick)
    took_s = 4.0 + (first.sent + second.sent) / 1000.0
    quick.agenda.run(took_s - 0.01)
    assert quick.residents[0].core.busy
    quick.agenda.run(took_s + 0.01)
    assert not quick.residents[0].core.busy


def test_whatever_breaks_nobody_stays_busy_and_no_vector_is_odd() -> None:
    seen = set[tuple[bool, bool]]()
    for seed in range(24):
        world = world_of(Network(loss=0.999), seed)
        converse(world)
        world.agenda.run(120.0)
        assert not any(resident.core.busy for resident in world.residents)
        assert all(np.isfinite(resident.core.replica.x).all() for resident in world.residents)
        assert world.residents[0].reasons == {"unreachable": 1}
        seen.add(moved(world))
    # Lost before the proposer's codes: nothing.  Lost after: the accepter has taken its half.
    assert seen == {(False, False), (False, True)}


def test_who_is_off_or_cut_off_does_not_answer() -> None:
    for reaches, up in ((False, True), (True, False)):
        world = world_of(Network())
        world.residents[1].up = up
        converse(world, reaches)
        world.agenda.run(60.0)
        assert world.residents[0].reasons == {"timeout": 1}
        assert world.residents[1].sent == 0
        assert moved(world) == (False, False)


def test_an_answer_to_who_went_off_is_lost() -> None:
    world = world_of(Network(latency_s=1.0))
    converse(world)
    world.agenda.run(1.5)
    world.residents[0].up = False
    world.agenda.run(60.0)
    assert world.residents[0].reasons == {"off": 1}
    assert not any(resident.core.busy for resident in world.residents)


@pytest.mark.parametrize("loss", [0.0, 0.5])
def test_the_share_that_breaks_is_the_loss(loss: float) -> None:
    broken = 0
    for seed in range(60):
        world = world_of(Network(loss=loss), seed)
        converse(world)
        world.agenda.run(60.0)
        broken += bool(world.residents[0].reasons)
    assert broken == pytest.approx(60 * loss, abs=9 if loss else 0)
