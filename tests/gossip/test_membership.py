"""Membership: the transition table, and seeded scenarios in virtual time."""

import heapq
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip.membership import (
    TRANSITIONS,
    Change,
    Config,
    Event,
    Kind,
    Life,
    Membership,
)
from covey.protocols import limits
from covey.protocols.identity import PeerId
from covey.protocols.messages import Phase, Standing

LAN = Config()


def peer_id(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def standing(instance: int = 1, phase: str = Phase.TRAINING) -> Standing:
    return Standing(
        instance=instance.to_bytes(16, "big"),
        name="node",
        version="0",
        protocol=1,
        port=4711,
        addresses=(),
        phase=phase,
    )


def lone(config: Config = LAN, seed: int = 0) -> Membership:
    return Membership(peer_id(0), standing(99).instance, config, Random(seed))


class Node:
    """A membership with a loop that may stall, and the log of what it said."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.peer = peer_id(number)
        self.up = False
        self.boot()

    def boot(self) -> None:
        self.standing = standing(self.world.rng.getrandbits(120))
        rng = Random(self.world.rng.random())
        self.membership = Membership(self.peer, self.standing.instance, self.world.config, rng)
        self.stalled_until = 0.0
        self.reports_lag = True
        self.log: list[tuple[float, Change]] = []
        self.probed: list[tuple[float, PeerId]] = []
        self.up, self.standing_at = True, self.world.now
        self.wake(self.world.now, self.standing.instance)

    def say(self, changes: list[Change]) -> None:
        self.log += [(self.world.now, change) for change in changes]

    def wake(self, planned: float, boot: bytes) -> None:
        """One turn of the loop."""
        if not self.up or self.standing.instance != boot:
            return
        now = self.world.now
        self.say(self.membership.tick(now, now - planned if self.reports_lag else 0.0))
        for peer in self.membership.to_probe(now):
            self.probed.append((now, peer))
            self.world.probe(self, self.world.nodes[peer])
        # Hearing a newcomer may bring the deadline forward, so a loop looks up now and then.
        again = min(self.membership.deadline(), now + 1.0)
        assert again > now, "a loop that never waits"
        self.world.at(again, self, lambda: self.wake(again, boot))

    def life(self, other: "Node") -> Life | None:
        member = self.membership.get(other.peer)
        return None if member is None else member.life

    def lives(self, other: "Node") -> list[Life]:
        return [change.after for _, change in self.log if change.peer == other.peer]

    def first(self, other: "Node", life: Life, since: float) -> float:
        """Seconds from ``since`` until ``other`` was ``life``."""
        return next(
            at - since
            for at, change in self.log
            if at >= since and change.peer == other.peer and change.after is life
        )


class World:
    """Nodes that probe each other in virtual time: delays, losses, cuts, stalls, crashes."""

    def __init__(self, nodes: int, seed: int, config: Config = LAN) -> None:
        self.rng = Random(seed)
        self.config = config
        self.now = 0.0
        self.loss = 0.0
        self.delay_s: Callable[[Node, Node], float] = lambda _a, _b: self.rng.uniform(5e-4, 5e-3)
        self.cut: set[tuple[PeerId, PeerId]] = set()
        self._queue: list[tuple[float, int, Node, Callable[[], None]]] = []
        self._order = count()
        self.nodes = {node.peer: node for node in (Node(self, n) for n in range(1, nodes + 1))}

    def __getitem__(self, number: int) -> Node:
        return self.nodes[peer_id(number)]

    def at(self, when: float, node: Node, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), node, call))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._queue and self._queue[0][0] <= until:
            when, order, node, call = heapq.heappop(self._queue)
            if when < node.stalled_until:
                heapq.heappush(self._queue, (node.stalled_until, order, node, call))
                continue
            self.now = when
            call()
        self.now = until

    def introduce(self) -> None:
        """Everyone says hello to everyone, as after discovery."""
        for source in self.nodes.values():
            for target in self.nodes.values():
                if source is not target and source.up and target.up:
                    target.say(target.membership.heard(source.peer, source.standing, self.now))

    def probe(self, source: Node, target: Node) -> None:
        boot, began, done = source.standing.instance, self.now, [False]
        timeout_s = source.membership.timeout_s(target.peer)

        def finish(answer: Standing | None) -> None:
            if done[0] or not source.up or source.standing.instance != boot:
                return
            done[0] = True
            if answer is None:
                source.say(source.membership.missed(target.peer, self.now))
            else:
                rtt_s = self.now - began
                source.say(source.membership.heard(target.peer, answer, self.now, rtt_s))

        def arrive() -> None:
            if not target.up:
                finish(None)  # refused
                return
            target.say(target.membership.heard(source.peer, said, self.now))
            if self._passes(target, source):
                answer = target.standing
                delay_s = self.delay_s(target, source)
                self.at(self.now + delay_s, source, lambda: finish(answer))

        said = source.standing
        self.at(began + timeout_s, source, lambda: finish(None))
        if self._passes(source, target):
            self.at(began + self.delay_s(source, target), target, arrive)

    def _passes(self, source: Node, target: Node) -> bool:
        return (source.peer, target.peer) not in self.cut and self.rng.random() >= self.loss

    def kill(self, node: Node) -> None:
        node.up = False

    def leave(self, node: Node) -> None:
        """Say goodbye to everyone, then stop."""
        node.standing = replace(node.standing, phase=Phase.LEFT)
        for other in self.nodes.values():
            if other is not node and other.up:
                other.say(other.membership.heard(node.peer, node.standing, self.now))
        node.up = False


def check_log(node: Node) -> None:
    """Every change of life is in the table and begins where the last one ended."""
    lives: dict[PeerId, Life | None] = {}
    for _, change in node.log:
        if change.kind in (Kind.LIFE, Kind.RESTART):
            assert change.after in TRANSITIONS[change.before].values()
            assert lives.get(change.peer) is change.before
            lives[change.peer] = change.after


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
            assert max(b - a for a, b in pairwise(probed)) < 1.2


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
        three.cut = {pair for n in (1, 2) for pair in _both(three[n], lost)}
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


def test_partition_heals(three: World) -> None:
    three.cut = {pair for n in (1, 2) for pair in _both(three[n], three[3])}
    three.run(600.0)
    assert three[3].life(three[1]) is three[1].life(three[3]) is Life.DEAD
    three.cut = set()
    three.run(40.0)
    for node in three.nodes.values():
        assert [m.life for m in node.membership.members()] == [Life.ALIVE, Life.ALIVE]
        check_log(node)


def test_flapping_link_is_suspected_but_not_dead(three: World) -> None:
    cut = {pair for n in (1, 2) for pair in _both(three[n], three[3])}
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


# --- a crowd, seen by one ------------------------------------------------------------------------


class Crowd:
    """One membership among ``size`` others, which answer it and probe it as it probes them."""

    def __init__(self, size: int, seed: int) -> None:
        self.rng = Random(seed)
        self.membership = lone(seed=seed)
        self.now = 0.0
        self.refusing: set[PeerId] = set()  # probes of these fail
        self.silent: set[PeerId] = set()  # these do not probe
        self.log: list[tuple[float, Change]] = []
        self.probed: list[tuple[float, PeerId]] = []
        self._calls: list[tuple[float, PeerId]] = []
        self.others = [peer_id(number) for number in range(1, size + 1)]
        for peer in self.others:
            self._say(self.membership.heard(peer, standing(), 0.0))
            heapq.heappush(self._calls, (self.rng.random() * self.interval_s, peer))

    @property
    def interval_s(self) -> float:
        return max(1.0, len(self.others) / LAN.probes_per_s)

    def _say(self, changes: list[Change]) -> None:
        self.log += [(self.now, change) for change in changes]

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            called_at, caller = self._calls[0]
            self.now = max(self.now, min(called_at, self.membership.deadline(), until))
            if self.now == called_at:
                again = self.now + self.interval_s * self.rng.uniform(0.9, 1.1)
                heapq.heapreplace(self._calls, (again, caller))
                if caller not in self.silent:
                    self._say(self.membership.heard(caller, standing(), self.now))
            self._say(self.membership.tick(self.now))
            for peer in self.membership.to_probe(self.now):
                self.probed.append((self.now, peer))
                if peer in self.refusing:
                    self._say(self.membership.missed(peer, self.now))
                else:
                    self._say(self.membership.heard(peer, standing(), self.now, 0.001))

    def lives(self, peer: PeerId) -> list[tuple[float, Life]]:
        return [(at, change.after) for at, change in self.log if change.peer == peer]

    def check_load(self) -> None:
        times = [at for at, _ in self.probed]
        assert all(b - a > 1.0 - 1e-9 for a, b in zip(times, times[4:], strict=False))


@pytest.mark.parametrize("seed", range(3))
def test_hundred_members_load_and_reach(seed: int) -> None:
    crowd = Crowd(99, seed)
    crowd.run(600.0)
    crowd.check_load()
    assert len(crowd.probed) >= 0.85 * 600.0 * LAN.probes_per_s
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


# --- one identity, two machines -------------------------------------------------------------------


def test_copied_identity_is_reported_once_and_the_elder_stands() -> None:
    membership, twin = lone(), peer_id(1)
    elder, newer = standing(1), standing(2)
    changes: list[tuple[float, Change]] = []
    for second in range(120):
        for offset, said in ((0.0, elder), (0.5, newer)):
            now = second + offset
            if said is newer and second < 10:
                continue
            changes += [(now, change) for change in membership.heard(twin, said, now, 0.001)]
            changes += [(now, change) for change in membership.tick(now)]
    kinds = [change.kind for _, change in changes]
    assert kinds == [Kind.LIFE, Kind.RESTART, Kind.CONFLICT]
    assert changes[2][0] - changes[1][0] <= LAN.boot_overlap_s + 1.0
    member = membership.get(twin)
    assert member is not None
    assert (member.instance, member.conflicted) == (elder.instance, True)
    # The elder stops; the newer one may stand after the elder's death, and the conflict ends.
    for second in range(120, 240):
        now = float(second)
        changes += [(now, change) for change in membership.tick(now)]
        changes += [(now, change) for change in membership.heard(twin, newer, now, 0.001)]
    assert [change.kind for _, change in changes[3:]] == [
        Kind.LIFE,  # suspect
        Kind.LIFE,  # dead
        Kind.RESTART,
        Kind.CONFLICT_OVER,
    ]
    member = membership.get(twin)
    assert member is not None
    assert (member.instance, member.conflicted) == (newer.instance, False)


def test_last_words_of_the_boot_before_are_no_conflict() -> None:
    membership = lone()
    membership.heard(peer_id(1), standing(1), 0.0)
    assert membership.heard(peer_id(1), standing(2), 1.0)[0].kind is Kind.RESTART
    assert membership.heard(peer_id(1), standing(1), 1.01, 0.5) == []
    assert membership.heard(peer_id(1), standing(1, Phase.LEFT), 1.02) == []
    member = membership.get(peer_id(1))
    assert member is not None
    assert (member.life, member.instance) == (Life.ALIVE, standing(2).instance)


def test_restart_loop_is_no_conflict_and_forgets_boots() -> None:
    membership = lone()
    for boot in range(1000):
        for change in membership.heard(peer_id(1), standing(boot + 1), float(boot)):
            assert change.kind in (Kind.LIFE, Kind.RESTART)


def test_return_to_the_old_machine_after_the_new_one_left_is_no_conflict() -> None:
    membership = lone()
    membership.heard(peer_id(1), standing(1), 0.0)
    membership.heard(peer_id(1), standing(2), 1.0)
    membership.heard(peer_id(1), standing(2, Phase.LEFT), 100.0)
    (change,) = membership.heard(peer_id(1), standing(1), 200.0)
    assert (change.kind, change.after) == (Kind.RESTART, Life.ALIVE)


def test_own_identity_elsewhere_is_reported() -> None:
    membership = lone()
    assert membership.heard(peer_id(0), standing(99), 0.0) == []  # our own address
    assert membership.heard(peer_id(0), standing(5, Phase.LEFT), 0.5) == []
    (change,) = membership.heard(peer_id(0), standing(5), 1.0)
    assert (change.peer, change.kind) == (peer_id(0), Kind.CONFLICT)
    assert membership.conflicted
    assert membership.heard(peer_id(0), standing(5), 2.0) == []
    assert 60.0 < membership.deadline() <= 62.0
    assert membership.tick(61.9) == []
    (change,) = membership.tick(62.0)
    assert change.kind is Kind.CONFLICT_OVER
    assert not membership.conflicted
    assert membership.members() == []


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


STEP = st.tuples(
    st.sampled_from(["heard", "answered", "left", "missed", "tick", "probe"]),
    st.integers(0, 4),  # peer; 0 is this node
    st.integers(1, 3),  # boot
    st.sampled_from([0.0, 0.01, 0.4, 1.0, 3.0, 6.0, 40.0, 90_000.0]),  # time to the step
    st.sampled_from([0.0, 0.05, 0.3, 2.0, 1e6]),  # reported lag
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=80), st.integers(0, 2**32))
def test_any_history_follows_the_table(
    steps: list[tuple[str, int, int, float, float]], seed: int
) -> None:
    membership, now = lone(seed=seed), 0.0
    lives: dict[PeerId, Life] = {}
    missed_at: dict[PeerId, float] = {}
    suspected_at: dict[PeerId, float] = {}
    for what, number, boot, wait_s, lag_s in steps:
        now += wait_s
        peer = peer_id(number)
        changes: list[Change] = []
        if what == "heard":
            changes = membership.heard(peer, standing(boot), now)
        elif what == "answered":
            changes = membership.heard(peer, standing(boot), now, 0.002)
        elif what == "left":
            changes = membership.heard(peer, standing(boot, Phase.LEFT), now)
        elif what == "missed":
            missed_at[peer] = now
            changes = membership.missed(peer, now)
        elif what == "tick":
            changes = membership.tick(now, lag_s)
        elif what == "probe":
            probed = membership.to_probe(now)
            assert len(probed) == len(set(probed)) <= LAN.probes_per_s
        known = {member.peer: member for member in membership.members()}
        lives = {peer: life for peer, life in lives.items() if peer in known or life not in _GONE}
        for change in changes:
            assert change.why
            if change.peer == peer_id(0) or change.kind in (Kind.CONFLICT, Kind.CONFLICT_OVER):
                continue
            before = lives.get(change.peer)
            assert change.before is before
            assert change.after in TRANSITIONS[before].values()
            lives[change.peer] = change.after
            if change.after is Life.SUSPECT:
                suspected_at[change.peer] = now
            if change.after is Life.DEAD:
                assert missed_at[change.peer] > suspected_at[change.peer]
                assert now - suspected_at[change.peer] >= LAN.dead_s
        assert {peer: member.life for peer, member in known.items()} == lives
        assert all(member.peer != peer_id(0) for member in known.values())
        assert 1.0 <= membership.stretch <= LAN.stretch_max
        assert LAN.timeout_min_s <= membership.timeout_s(peer) <= 16.0


_GONE = (Life.DEAD, Life.LEFT)


def _both(a: Node, b: Node) -> set[tuple[PeerId, PeerId]]:
    return {(a.peer, b.peer), (b.peer, a.peer)}
