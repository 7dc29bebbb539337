"""Memberships in virtual time: a small world of them, and one among a crowd."""

import heapq
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from random import Random

from covey.gossip.membership import TRANSITIONS, Change, Config, Kind, Life, Membership
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


def both(a: Node, b: Node) -> set[tuple[PeerId, PeerId]]:
    return {(a.peer, b.peer), (b.peer, a.peer)}


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
        self._not_before: dict[PeerId, float] = {}  # whoever was probed calls that much later
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
                early = self.now < (again := self._not_before.get(caller, 0.0))
                if not early:
                    again = self.now + self.interval_s * self.rng.uniform(0.9, 1.1)
                heapq.heapreplace(self._calls, (again, caller))
                if not early and caller not in self.silent:
                    self._say(self.membership.heard(caller, standing(), self.now))
            self._say(self.membership.tick(self.now))
            for peer in self.membership.to_probe(self.now):
                self.probed.append((self.now, peer))
                if peer in self.refusing:
                    self._say(self.membership.missed(peer, self.now))
                else:
                    self._say(self.membership.heard(peer, standing(), self.now, 0.001))
                    pause_s = self.interval_s * self.rng.uniform(0.765, 0.935)
                    self._not_before[peer] = self.now + pause_s

    def lives(self, peer: PeerId) -> list[tuple[float, Life]]:
        return [(at, change.after) for at, change in self.log if change.peer == peer]

    def check_load(self) -> None:
        times = [at for at, _ in self.probed]
        assert all(b - a > 1.0 - 1e-9 for a, b in zip(times, times[4:], strict=False))
