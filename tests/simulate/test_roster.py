"""Whom a node knows: everyone within reach, or in a large flock some, drawn anew each period."""

from random import Random

import pytest

from covey.protocols.messages import Lineage
from covey.simulate.resident import Resident
from covey.simulate.roster import Oracle
from covey.simulate.scenario import Scenario
from covey.simulate.world import World
from tests.simulate.strolls import Strolls


def residents_of(nodes: int) -> list[Resident]:
    return World(Scenario(nodes=nodes), Strolls(nodes, size=4)).residents


def test_a_small_flock_knows_all_that_it_reaches() -> None:
    residents = residents_of(10)
    roster = Oracle(residents, lambda a, b: (a.number + b.number) % 2 == 0, Random(0))
    known = roster.partners(residents[3])
    assert known == [residents[k].core.me for k in (1, 5, 7, 9)]


@pytest.mark.parametrize("nodes", [65, 200])
def test_a_large_flock_knows_others_each_period(nodes: int) -> None:
    residents = residents_of(nodes)
    roster = Oracle(residents, lambda a, b: True, Random(0))
    me = residents[7]
    views = []
    for _ in range(3):
        roster.renew(me)
        known = list(roster.partners(me))
        assert known == list(roster.partners(me))
        assert len(set(known)) == len(known) < nodes
        assert me.core.me not in known
        views.append(known)
    assert views[0] != views[1] != views[2]


def test_who_is_up_counts_at_once_unless_it_is_calm() -> None:
    residents = residents_of(4)
    for calm, left in ((False, 2), (True, 3)):
        roster = Oracle(residents, lambda a, b: b.up, Random(0), calm)
        assert len(roster.partners(residents[0])) == 3
        residents[3].up = False
        assert len(roster.partners(residents[0])) == left
        residents[3].up = True


def test_elders_are_those_within_reach_that_came_much_further() -> None:
    residents = residents_of(5)
    roster = Oracle(residents, lambda a, b: b.number != 4, Random(0))
    for resident, age in zip(residents, (0, 10, 30, 60, 90), strict=True):
        resident.core.lineage = Lineage(resident.core.lineage.founder, age)
    found = [list(roster.elders(resident)) for resident in residents]
    ids = [resident.core.me for resident in residents]
    assert found == [[ids[3], ids[2]], [ids[3], ids[2]], [], [], []]
