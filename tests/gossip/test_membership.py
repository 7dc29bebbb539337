"""Membership: the transition table, and seeded scenarios in virtual time."""

import math
from dataclasses import replace
from itertools import combinations, pairwise

import pytest

from covey.gossip.membership import TRANSITIONS, Change, Event, Kind, Life
from covey.protocols import limits
from covey.protocols.messages import Phase
from tests.gossip.worlds import LAN, World, both, check_log, lone, peer_id, standing


@pytest.fixture(params=range(3))
def three(request: pytest.FixtureRequest) -> World:
    world = World(3, seed=request.param)
    world.introduce()
    world.run(30.0)
    return world


# --- the table ------------------------------------------------------------------------------------


def test_table_names_every_life_and_event() -> None:
    assert set(TRANSITIONS) == {None, *Life}
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)
    assert TRANSITIONS[Life.DEAD].get(Event.EXPIRED) is None
    assert Event.HEARD not in TRANSITIONS[Life.LEFT]


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe_s": 0.0},
        {"suspect_s": 0.5},
        {"dead_s": 40.0},
        {"timeout_min_s": 3.0},
        {"stretch_max": 0.5},
        {"lag_s": 0.0},
        {"boot_overlap_s": 60.0},
    ],
)
def test_config_refuses_what_contradicts(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"above 0|order|at least 1|outlasts"):
        replace(LAN, **wrong)  # type: ignore[arg-type]


# --- scenarios ----------------------------------------------------------------------------------


def test_three_nodes_meet_and_stay(three: World) -> None:
    three.run(3600.0)
    for node in three.nodes.values():
        others = [other for other in three.nodes.values() if other is not node]
        assert [node.lives(other) for other in others] == [[Life.ALIVE], [Life.ALIVE]]
        for other in others:
            member = node.membership.get(other.peer)
            assert member is not None
            assert member.rtt_s is not None
            assert 0.001 <= member.rtt_s <= 0.01
            assert three.now - member.heard_at < 1.2
            probed = [at for at, peer in node.probed if peer == other.peer]
            assert max(b - a for a, b in pairwise(probed)) < 2.2


def test_of_a_pair_one_side_at_a_time_probes(three: World) -> None:
    """Both learn as much from one probe, so each is heard from as often, for fewer probes."""
    three.run(600.0)
    for a, b in combinations(three.nodes.values(), 2):
        probes = sorted(
            (at, by.peer)
            for by, of in ((a, b), (b, a))
            for at, peer in by.probed
            if peer == of.peer and at > 10.0
        )
        assert max(late - early for (early, _), (late, _) in pairwise(probes)) < 1.2
        assert len(probes) < 1.25 * 620.0, "2 * 620 if both sides probed once a second"
        in_turn = sum(one != other for (_, one), (_, other) in pairwise(probes))
        assert in_turn > 0.95 * len(probes)


def test_one_side_that_never_probes_is_probed_by_the_other() -> None:
    """As a peer of another version, or one that is too busy: it is found dead as soon as any."""
    membership = lone()
    membership.heard(peer_id(1), standing(), 0.0, 0.001)
    now, probed = 0.0, []
    while now < 60.0:
        now = max(now + 0.001, membership.deadline())
        assert membership.tick(now) == []
        for peer in membership.to_probe(now):
            probed.append(now)
            membership.heard(peer, standing(), now, 0.001)
    assert max(b - a for a, b in pairwise(probed)) < 1.2


def test_who_always_calls_is_still_asked() -> None:
    """Its probes come through, which says nothing of its answers to ours."""
    membership = lone()
    now, probed = 0.0, []
    while now < 60.0:
        membership.heard(peer_id(1), standing(), now)
        if membership.to_probe(now):
            probed.append(now)
            membership.missed(peer_id(1), now + 0.01)
        now += 0.1
    assert max(b - a for a, b in pairwise(probed)) < 2.2


def test_lossy_network_kills_nobody() -> None:
    world = World(3, seed=5)
    world.introduce()
    world.loss = 0.1
    world.run(3600.0)
    for node in world.nodes.values():
        check_log(node)
        assert Life.DEAD not in [change.after for _, change in node.log]


@pytest.mark.parametrize("how", ["crashes", "hangs", "is unplugged"])
def test_lost_node_is_suspected_then_dead(three: World, how: str) -> None:
    lost, since = three[3], three.now
    if how == "crashes":
        three.kill(lost)
    elif how == "hangs":
        lost.stalled_until = math.inf
    else:
        three.cut = {pair for n in (1, 2) for pair in both(three[n], lost)}
    three.run(20.0)
    for node in (three[1], three[2]):
        assert 2.0 <= node.first(lost, Life.SUSPECT, since) <= 4.5
        assert 7.0 <= node.first(lost, Life.DEAD, since) <= 11.0
        assert node.life(three[1] if node is three[2] else three[2]) is Life.ALIVE
        check_log(node)


def test_restart_is_one_change_and_no_death(three: World) -> None:
    three.kill(three[3])
    three.run(1.5)
    three[3].boot()
    for node in (three[1], three[2]):
        three[3].say(three[3].membership.heard(node.peer, node.standing, three.now))
    three.run(10.0)
    for node in (three[1], three[2]):
        (change,) = [change for at, change in node.log if at > 30.0]
        assert (change.kind, change.before, change.after) == (Kind.RESTART, Life.ALIVE, Life.ALIVE)
        member = node.membership.get(three[3].peer)
        assert member is not None
        assert member.instance == three[3].standing.instance
        check_log(node)


def test_dead_node_is_found_again_without_its_help(three: World) -> None:
    three.kill(three[3])
    three.run(60.0)
    assert three[1].life(three[3]) is Life.DEAD
    three[3].boot()  # knows nobody
    three.run(40.0)
    assert three[1].life(three[3]) is Life.ALIVE
    assert three[1].log[-1][1].kind is Kind.RESTART


def test_leaving_is_no_death(three: World) -> None:
    late = three[3].standing
    three.leave(three[3])
    for node in (three[1], three[2]):
        assert node.log[-1][1] == Change(three[3].peer, Life.ALIVE, Life.LEFT, "said goodbye")
        node.say(node.membership.heard(three[3].peer, late, three.now, 0.001))
    three.run(300.0)
    assert three[1].life(three[3]) is Life.LEFT
    assert Life.DEAD not in three[1].lives(three[3])
    probed = [at for at, peer in three[1].probed if peer == three[3].peer and at > 31.0]
    assert 8 <= len(probed) <= 12  # every half minute


def test_dead_and_left_are_forgotten() -> None:
    membership = lone()
    membership.heard(peer_id(1), standing(), 0.0)
    membership.heard(peer_id(1), standing(phase=Phase.LEFT), 1.0)
    assert membership.tick(LAN.forget_s) == []
    assert membership.get(peer_id(1)) is not None
    assert membership.tick(LAN.forget_s + 1.0) == []
    assert membership.members() == []
    assert membership.deadline() == math.inf


def test_probes_follow_the_life() -> None:
    """The dead are asked when dead as long again, then twice a minute; who returns, at once."""
    membership = lone()
    membership.heard(peer_id(1), standing(), 0.0)
    assert membership.tick(3.0)
    membership.missed(peer_id(1), 3.5)
    (change,) = membership.tick(8.0)
    assert change.after is Life.DEAD
    asked, now = [], 8.0
    while now < 200.0:
        now = max(now + 0.01, membership.deadline())
        membership.tick(now)
        for peer in membership.to_probe(now):
            asked.append(now - 8.0)
            membership.missed(peer, now)
    ratios = [later / earlier for earlier, later in pairwise(asked) if later < 30.0]
    assert len(ratios) >= 3
    assert all(1.5 < ratio < 2.5 for ratio in ratios), asked
    gaps = [later - earlier for earlier, later in pairwise(asked) if earlier > 35.0]
    assert gaps
    assert all(20.0 < gap < 40.0 for gap in gaps), asked
    assert membership.heard(peer_id(1), standing(), 200.0)
    assert membership.to_probe(201.2) == [peer_id(1)]


def test_limits_follow_the_size_of_the_swarm() -> None:
    """Among forty a silence of seconds says nothing; once the others left, it does."""
    membership = lone()
    for number in range(1, 41):
        membership.heard(peer_id(number), standing(), 0.0)
    assert membership.tick(5.0) == []
    for number in range(2, 41):
        membership.heard(peer_id(number), standing(phase=Phase.LEFT), 5.0)
    now = 5.0
    while not membership.tick(now):
        assert now <= 6.0
        now = max(now + 0.01, membership.deadline())


@pytest.mark.parametrize(("cut_s", "healed_s"), [(20.0, 12.0), (600.0, 35.0)])
def test_partition_heals(three: World, cut_s: float, healed_s: float) -> None:
    """Within about its own length, and half a minute at most."""
    three.cut = {pair for n in (1, 2) for pair in both(three[n], three[3])}
    three.run(cut_s)
    assert three[3].life(three[1]) is three[1].life(three[3]) is Life.DEAD
    three.cut = set()
    three.run(healed_s)
    for node in three.nodes.values():
        assert [m.life for m in node.membership.members()] == [Life.ALIVE, Life.ALIVE]
        check_log(node)


def test_flapping_link_is_suspected_but_not_dead(three: World) -> None:
    cut = {pair for n in (1, 2) for pair in both(three[n], three[3])}
    for _ in range(100):
        three.cut = cut
        three.run(4.5)
        three.cut = set()
        three.run(3.0)
    for node in three.nodes.values():
        check_log(node)
        assert Life.DEAD not in [change.after for _, change in node.log]
    assert three[1].life(three[3]) is Life.ALIVE
    assert len(three[1].lives(three[3])) <= 1 + 2 * 100
    assert set(three[1].lives(three[2])) == {Life.ALIVE}


def test_own_stalls_suspect_nobody(three: World) -> None:
    before = len(three[1].log)
    for _ in range(100):
        three[1].stalled_until = three.now + three.rng.uniform(0.5, 2.5)
        three.run(5.0)
    three[1].stalled_until = three.now + 60.0
    three.run(90.0)
    assert three[1].log[before:] == []
    assert three[1].membership.stretch < 3.0


def test_own_stalls_that_nobody_reports_kill_nobody(three: World) -> None:
    three[1].reports_lag = False
    for stall_s in (2.0, 8.0, 30.0, 300.0):
        three[1].stalled_until = three.now + stall_s
        three.run(stall_s + 20.0)
    check_log(three[1])
    assert Life.DEAD not in [change.after for _, change in three[1].log]
    assert {member.life for member in three[1].membership.members()} == {Life.ALIVE}


def test_stalled_node_still_finds_a_death(three: World) -> None:
    """A stretch delays, it does not blind."""
    three.kill(three[3])
    for _ in range(40):
        three[1].stalled_until = three.now + 0.5
        three.run(2.0)
    assert three[1].life(three[3]) is Life.DEAD
    assert three[1].life(three[2]) is Life.ALIVE


def test_slow_peer_is_learned(three: World) -> None:
    """Its answers take longer than the first timeout, which grows until one is seen."""
    slow = three[3]
    three.delay_s = lambda source, target: 0.7 if slow in (source, target) else 0.001
    three.run(120.0)
    settled = three.now
    three.run(600.0)
    for node in (three[1], three[2]):
        member = node.membership.get(slow.peer)
        assert member is not None
        assert member.rtt_s == pytest.approx(1.4, abs=0.1)
        assert 1.4 < node.membership.timeout_s(slow.peer) <= LAN.timeout_max_s
        assert [change for at, change in node.log if at > settled] == []


# --- bounds and small things ----------------------------------------------------------------------


def test_members_are_bounded_and_the_dead_make_room() -> None:
    membership = lone()
    for number in range(1, limits.PEERS_MAX + 11):
        membership.heard(peer_id(number), standing(), 0.0)
    assert len(membership.members()) == limits.PEERS_MAX
    assert membership.heard(peer_id(5000), standing(), 0.0) == []
    assert membership.heard(peer_id(7), standing(phase=Phase.LEFT), 1.0)
    assert membership.heard(peer_id(5000), standing(), 2.0)
    assert membership.get(peer_id(7)) is None
    assert len(membership.members()) == limits.PEERS_MAX


def test_stranger_who_says_goodbye_is_not_remembered() -> None:
    membership = lone()
    assert membership.heard(peer_id(1), standing(phase=Phase.LEFT), 0.0) == []
    assert membership.missed(peer_id(1), 0.0) == []
    assert membership.members() == []
    assert membership.deadline() == math.inf


def test_introductions_are_alive_and_not_oneself() -> None:
    membership = lone()
    for number in range(1, 51):
        membership.heard(peer_id(number), standing(), 0.0)
    membership.heard(peer_id(9), standing(phase=Phase.LEFT), 0.0)
    few = membership.introductions(peer_id(3), 5)
    assert len({member.peer for member in few}) == 5
    everyone = {member.peer for member in membership.introductions(peer_id(3), 100)}
    assert everyone == {peer_id(n) for n in range(1, 51)} - {peer_id(3), peer_id(9)}


def test_peer_whose_probe_never_reports_is_probed_again() -> None:
    """A caller that loses a result hides nobody for good."""
    membership = lone()
    membership.heard(peer_id(1), standing(), 0.0)
    assert membership.to_probe(2.0) == [peer_id(1)]
    now, probes = 2.0, 0
    while now < 200.0:
        now = max(now + 0.01, membership.deadline())
        membership.tick(now)
        membership.heard(peer_id(1), standing(), now)
        probes += len(membership.to_probe(now))
    assert 5 <= probes <= 7
