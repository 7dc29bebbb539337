"""Membership among a hundred: bounded load, bounded reach, deaths found in a bounded time."""

from itertools import pairwise

import pytest

from covey.gossip.membership import Life
from tests.gossip.worlds import LAN, Crowd, peer_id


@pytest.mark.parametrize("seed", range(3))
def test_hundred_members_load_and_reach(seed: int) -> None:
    crowd = Crowd(99, seed)
    crowd.run(600.0)
    crowd.check_load()
    in_turn = 0.5 / 0.85  # of one probe for each per interval
    assert len(crowd.probed) / (600.0 * LAN.probes_per_s) == pytest.approx(in_turn, rel=0.1)
    for peer in crowd.others:
        probed = [0.0, *(at for at, probed in crowd.probed if probed == peer), 600.0]
        assert max(b - a for a, b in pairwise(probed)) <= 1.1 * 24.75 + 24.75
        assert crowd.lives(peer) == [(0.0, Life.ALIVE)]


def test_hundred_members_find_a_death_in_a_bounded_time() -> None:
    waits = []
    for seed in range(8):
        crowd = Crowd(99, seed)
        crowd.run(60.0)
        gone = peer_id(50)
        crowd.refusing = crowd.silent = {gone}
        crowd.run(150.0)
        _, suspected, dead = crowd.lives(gone)
        assert (suspected[1], dead[1]) == (Life.SUSPECT, Life.DEAD)
        assert dead[0] - suspected[0] <= 1.5 * 24.75 + 1.0
        waits.append(suspected[0] - 60.0)
        assert {change.peer for at, change in crowd.log if at > 0.0} == {gone}
    assert max(waits) <= 1.1 * 24.75 + 24.75 + 4.0
    assert sum(waits) / len(waits) < 24.75


def test_half_of_a_hundred_vanish() -> None:
    """Many suspects share the rate: the load stays bounded, and the living stay alive."""
    crowd = Crowd(99, seed=13)
    crowd.run(60.0)
    gone = set(crowd.others[50:])
    crowd.refusing = crowd.silent = gone
    crowd.run(300.0)
    crowd.check_load()
    for peer in crowd.others:
        lives = [life for _, life in crowd.lives(peer)]
        last = [Life.SUSPECT, Life.DEAD] if peer in gone else []
        assert lives == [Life.ALIVE, *last]
    healing = [at for at, peer in crowd.probed if peer in gone and at > 260.0]
    assert 80 <= len(healing) <= 115  # one a second, for all who are gone together


@pytest.mark.parametrize("size", [1, 3, 8, 20, 99])
def test_peer_that_can_only_call_stays_alive(size: int) -> None:
    """Behind its firewall no probe reaches it, but its own come through."""
    crowd = Crowd(size, seed=size)
    crowd.refusing = {peer_id(1)}
    crowd.run(1800.0)
    lives = [life for _, life in crowd.lives(peer_id(1))]
    assert Life.DEAD not in lives
    if size <= 8:
        assert lives == [Life.ALIVE]
