"""Nodes find out by their own probes who is there: late, but without an oracle."""

from random import Random

from covey.protocols.identity import PeerId
from covey.simulate.probes import Probes
from covey.simulate.resident import Resident
from covey.simulate.scenario import Churn, Cut, Scenario
from covey.simulate.world import World
from tests.simulate.strolls import Strolls


class Street:
    """Residents whose probes pass unless a pair is cut."""

    def __init__(self, nodes: int) -> None:
        world = World(Scenario(nodes=nodes), Strolls(nodes, size=4))
        self.agenda, self.residents = world.agenda, world.residents
        self.cut: set[frozenset[int]] = set()
        self.probes = Probes(self.residents, self.passes, Random(0), self.agenda, 0.002)

    def passes(self, one: Resident, other: Resident) -> bool:
        return other.up and frozenset((one.number, other.number)) not in self.cut

    def known(self, number: int) -> set[int]:
        partners = self.probes.partners(self.residents[number])
        numbers = {resident.core.me: resident.number for resident in self.residents}
        return {numbers[peer] for peer in partners}

    def run(self, seconds: float) -> None:
        self.agenda.run(self.agenda.now + seconds)


def test_all_know_all_and_go_on_to() -> None:
    street = Street(6)
    for _ in range(3):
        assert all(street.known(k) == set(range(6)) - {k} for k in range(6))
        street.run(60.0)


def test_who_is_off_is_suspected_after_some_seconds_and_heard_when_back() -> None:
    street = Street(5)
    street.run(10.0)
    street.residents[2].up = False
    street.run(1.0)
    assert 2 in street.known(0), "it may only be slow"
    street.run(9.0)
    assert all(2 not in street.known(k) for k in (0, 1, 3, 4))
    street.run(60.0)
    assert street.known(2) == {0, 1, 3, 4}, "asleep it lets nobody die"
    street.residents[2].up = True
    street.run(5.0)
    assert all(2 in street.known(k) for k in (0, 1, 3, 4))


def test_a_cut_parts_the_flock_and_heals() -> None:
    street = Street(4)
    street.cut = {frozenset(pair) for pair in ((0, 2), (0, 3), (1, 2), (1, 3))}
    street.run(20.0)
    assert [street.known(k) for k in range(4)] == [{1}, {0}, {3}, {2}]
    street.cut.clear()
    street.run(40.0)
    assert all(street.known(k) == set(range(4)) - {k} for k in range(4))


def test_whoever_goes_silent_frees_those_who_wait_for_it() -> None:
    street = Street(3)
    freed: list[PeerId] = []
    waiting = street.residents[0]
    waiting.failed = lambda peer, reason: freed.append(peer)  # type: ignore[method-assign]
    street.residents[1].up = False
    street.run(10.0)
    assert freed == 2 * [street.residents[1].core.me], "suspect, then dead"


def test_a_world_in_trouble_probes_and_repeats_to_the_bit() -> None:
    for trouble in ({"churn": Churn(8.0, 8.0)}, {"cut": Cut(0.2, 0.6)}):
        scenario = Scenario(nodes=6, periods=15, steps=2, seed=4, **trouble)
        ends = []
        for _ in range(2):
            workload = Strolls(6, seed=1)
            result = World(scenario, workload).run()
            assert result.reasons.keys() & {"timeout", "silent"}, "an absent one was asked"
            ends.append(workload.vectors.tobytes())
        assert ends[0] == ends[1]
