"""The world: what it preserves, what it counts, and that each trouble does what it says."""

from dataclasses import replace

import numpy as np
import pytest

from covey.gossip.config import Config, OuterStep
from covey.gossip.core import Outgoing
from covey.protocols.envelope import Scope, Sealer
from covey.protocols.identity import Identity
from covey.simulate.learning import Learning
from covey.simulate.scenario import Attack, Churn, Cut, Network, Scenario
from covey.simulate.splits import Split
from covey.simulate.tasks import load
from covey.simulate.wire import Wire
from covey.simulate.world import World
from tests.protocols.examples import sealed
from tests.simulate.strolls import Strolls

CALM = Config(outer=OuterStep(momentum=0.0, rate=1.0))  # the outer step changes nothing
SHORT = Scenario(nodes=8, periods=6, steps=4, measures=3, config=CALM)


def run(scenario: Scenario) -> tuple[World, Strolls]:
    strolls = Strolls(scenario.nodes)
    world = World(scenario, strolls)
    world.run()
    return world, strolls


def drift(strolls: Strolls, nodes: slice = slice(None)) -> float:
    """Largest distance of a coordinate of the nodes' mean from where walking alone put it."""
    difference = strolls.vectors[nodes].mean(0, dtype=np.float64) - strolls.walked[nodes].mean(0)
    return float(np.abs(difference).max())


@pytest.mark.parametrize(
    "scenario",
    [
        SHORT,
        replace(SHORT, config=replace(CALM, codec="f32")),
        replace(SHORT, config=replace(CALM, exchanges=3)),
        replace(SHORT, spread=8.0, network=Network(latency_s=0.05, bytes_per_s=20_000)),
        replace(SHORT, cut=Cut(0.2, 0.7)),
    ],
    ids=["mod4", "f32", "three exchanges", "slow", "cut"],
)
def test_the_mean_is_what_walking_made_it(scenario: Scenario) -> None:
    world, strolls = run(scenario)
    assert sum(resident.exchanges for resident in world.residents) > 2 * scenario.nodes
    assert drift(strolls) < 1e-6
    moved = strolls.walked - strolls.walked.mean(0)
    left = strolls.vectors - strolls.vectors.mean(0)
    assert np.linalg.norm(left) < 0.5 * np.linalg.norm(moved)


def test_the_same_seed_is_the_same_run() -> None:
    scenario = replace(
        SHORT,
        spread=3.0,
        network=Network(0.01, 1e5, 0.2),
        churn=Churn(4, 2),
        attack=Attack("noise"),
    )
    results = [World(replace(scenario, seed=seed), Strolls(8)).run() for seed in (1, 1, 2)]
    assert repr(results[0]) == repr(results[1])  # NaN is not itself
    assert repr(results[0]) != repr(results[2])


class Sealing(Wire):
    """Seals every message for real, and adds up the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.carried = 0
        self._identity, self._scope = Identity(b"i" * 32), Scope(b"s" * 32, b"l" * 32)

    def size(self, out: Outgoing) -> int:
        sealer = Sealer(self._identity, b"b" * 16)
        parts = sealed(sealer, self._scope, out.message, bytes(out.payload))
        size = len(parts.announcement) + len(out.payload) + len(parts.envelope)
        self.carried += size
        return size


def test_bytes_counted_are_bytes_carried() -> None:
    counted, _ = run(SHORT)
    sealed = World(SHORT, Strolls(SHORT.nodes))
    sealed.carrier.wire = Sealing()
    sealed.run()
    assert [r.sent for r in sealed.residents] == [r.sent for r in counted.residents]
    assert sum(r.sent for r in sealed.residents) == sealed.carrier.wire.carried


def test_lost_exchanges_are_as_many_as_asked() -> None:
    network = Network(loss=0.3)
    scenario = replace(SHORT, nodes=16, periods=40, period_s=60.0, network=network, settle=False)
    world, strolls = run(scenario)  # with time enough that busy peers are rare
    reasons = [resident.reasons for resident in world.residents]
    lost = sum(counts.get("unreachable", 0) for counts in reasons)
    busy = sum(counts.get("busy", 0) for counts in reasons)
    done = sum(resident.exchanges for resident in world.residents) / 2
    tried = done + lost + busy
    assert busy < 0.1 * tried
    assert lost / tried == pytest.approx(0.3, abs=0.05)
    assert drift(strolls) < 0.05  # of a half exchange: half a difference of a pair, at random


def test_no_message_crosses_a_cut() -> None:
    halves = slice(0, None, 2), slice(1, None, 2)
    seen = list[float]()
    for cut in (Cut(0.0, 1.0), None):
        strolls = Strolls(SHORT.nodes)

        def look(share: float, strolls: Strolls = strolls) -> None:
            if share == 1.0:  # the cut ends with the training
                seen.extend(drift(strolls, half) for half in halves)

        World(replace(SHORT, cut=cut), strolls).run(look)
        assert drift(strolls) < 1e-6
    assert max(seen[:2]) < 1e-6
    assert min(seen[2:]) > 1e-3


def test_nodes_go_off_and_come_back() -> None:
    scenario = replace(SHORT, nodes=16, periods=40, churn=Churn(on_s=6, off_s=3), settle=False)
    world, strolls = run(scenario)
    share = strolls.steps.mean() / (scenario.periods * scenario.steps)
    assert share == pytest.approx(2 / 3, abs=0.08)
    assert all(resident.up for resident in world.residents)
    assert all(resident.exchanges for resident in world.residents)


def test_slow_and_fast_nodes_do_the_same_in_all() -> None:
    world, strolls = run(replace(SHORT, periods=20, spread=8.0))
    assert strolls.steps.mean() == pytest.approx(20 * 4, rel=0.02)
    assert strolls.steps.max() / strolls.steps.min() == pytest.approx(8, rel=0.1)
    assert drift(strolls) < 1e-6
    assert world.residents[0].exchanges


@pytest.mark.parametrize("churn", [None, Churn(4, 2)])
def test_silent_nodes_send_nothing_and_are_not_measured(churn: Churn | None) -> None:
    scenario = replace(SHORT, attack=Attack("silent", 0.25), churn=churn)
    strolls = Strolls(scenario.nodes)
    world = World(scenario, strolls)
    result = world.run()
    silent = [r for r in world.residents if r not in world.honest()]
    assert len(silent) == 2
    for resident in silent:
        assert (resident.sent, resident.exchanges, strolls.steps[resident.number]) == (0, 0, 0)
    honest = strolls.vectors[[resident.number for resident in world.honest()]]
    assert result.final.loss == pytest.approx(strolls.score(honest).loss.mean())
    assert result.final.sent == np.mean([resident.sent for resident in world.honest()])


def test_a_lone_node_trains_alone() -> None:
    world, strolls = run(replace(SHORT, nodes=1))
    assert world.residents[0].sent == 0
    np.testing.assert_allclose(strolls.vectors[0], strolls.walked[0], atol=1e-5)


def test_in_a_large_flock_a_node_knows_some() -> None:
    scenario = replace(SHORT, nodes=66, periods=4, settle=False)
    world, strolls = run(scenario)
    assert drift(strolls) < 1e-6
    for resident in world.residents:
        known = world.partners(resident)
        assert 8 <= len(set(known)) == len(known) <= 40
        assert resident.core.me not in known


def test_points_are_where_they_should_be() -> None:
    shares = list[float]()
    result = World(SHORT, Strolls(SHORT.nodes)).run(shares.append)
    times = [point.time_s for point in result.points]
    assert times[:3] == pytest.approx([4.0, 8.0, 12.0])
    assert times[3] > 12.0
    assert [point.steps for point in result.points] == [8, 16, 24, 24]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_flock_learns_what_none_could_alone() -> None:
    scenario = Scenario(nodes=6, periods=20, measures=2)
    split = Split("dirichlet", 0.1)
    together = World(scenario, Learning(load("digits"), 6, split, 0)).run().final
    alone = Learning(load("digits"), 6, split, 0)
    for _ in range(scenario.periods * scenario.steps):
        alone.step(np.arange(6))
    accuracy = alone.score(alone.vectors).accuracy
    assert together.least > accuracy.mean() + 0.3
    assert together.least > accuracy.max()
    assert together.averaged == pytest.approx(together.mean, abs=0.01)
