"""Attackers: who they are, what they bring, and that honest nodes are what is measured."""

from dataclasses import replace

import numpy as np
import pytest

from covey.gossip.config import Config
from covey.simulate.attackers import Attacker, attackers_of, unbounded
from covey.simulate.scenario import Attack, Scenario
from covey.simulate.world import World
from tests.simulate.strolls import Strolls

SCENARIO = Scenario(nodes=10, periods=5, steps=4, measures=2)
LIES = ("negate", "noise", "alie", "empire", "stale")


def world_of(kind: str) -> tuple[World, Strolls]:
    strolls = Strolls(SCENARIO.nodes)
    return World(replace(SCENARIO, attack=Attack(kind, 0.2)), strolls), strolls


def test_attackers_are_as_many_as_asked_and_drawn_by_the_seed() -> None:
    for share, count in ((0.2, 2), (0.5, 5), (0.01, 1)):
        scenario = replace(SCENARIO, attack=Attack("noise", share))
        drawn = attackers_of(scenario)
        assert len(drawn) == count
        assert drawn == attackers_of(replace(scenario, periods=9))
    half = replace(SCENARIO, attack=Attack("noise", 0.5))
    seeds = {attackers_of(replace(half, seed=seed)) for seed in range(20)}
    assert len(seeds) > 5
    assert attackers_of(SCENARIO) == frozenset()


@pytest.mark.parametrize("kind", LIES)
def test_what_an_attacker_brings(kind: str) -> None:
    world, strolls = world_of(kind)
    first = strolls.vectors[0].copy()
    world.run()
    liar = next(resident for resident in world.residents if isinstance(resident, Attacker))
    liar.disguise()
    brought = liar.core.replica.x
    honest = np.stack([resident.core.replica.x for resident in world.honest()])
    mean, length = honest.mean(0), float(np.linalg.norm(honest.mean(0)))
    if kind == "negate":
        np.testing.assert_array_equal(brought, -mean)
    elif kind == "stale":
        np.testing.assert_array_equal(brought, first)
    elif kind == "alie":
        np.testing.assert_allclose(mean - brought, 1.5 * honest.std(0), atol=1e-5)
    elif kind == "noise":
        assert np.linalg.norm(brought - mean) == pytest.approx(length, rel=0.2)
    else:
        slow = np.mean([resident.core.replica.slow for resident in world.honest()], axis=0)
        np.testing.assert_allclose(brought - mean, -5 * (mean - slow), atol=1e-5)


@pytest.mark.parametrize("kind", [*LIES, "flip"])
def test_attackers_take_part_and_are_not_measured(kind: str) -> None:
    world, strolls = world_of(kind)
    result = world.run()
    hostile = [resident for resident in world.residents if resident not in world.honest()]
    assert len(hostile) == 2
    assert all(resident.sent for resident in hostile)
    assert all(isinstance(resident, Attacker) == (kind != "flip") for resident in hostile)
    honest = strolls.vectors[[resident.number for resident in world.honest()]]
    assert result.final.loss == pytest.approx(strolls.score(honest).loss.mean())


def test_attackers_bound_nothing_themselves() -> None:
    config = unbounded(Config(exchanges=2))
    assert config.exchanges == 2
    assert config.screening.unscreened >= 10**6
