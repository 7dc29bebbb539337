"""Nodes that learn by relay in virtual time: periods, messages, deaths at any point of them."""

import heapq
from collections.abc import Callable, Iterator
from itertools import count
from random import Random

import numpy as np

from covey.gossip import lineage
from covey.gossip.config import Config
from covey.gossip.core import Outgoing
from covey.gossip.quantiser import Floats
from covey.gossip.relay import Relay, Role
from covey.protocols.errors import RemoteError
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout, Tensor
from covey.protocols.messages import ExchangeMessage, Lineage

TIMEOUT_S = 2.0
NOTICED_S = 3.0  # until the living know of a death
LATENCY_S = 0.05
CONFIG = Config(algorithm="relay")
# Points of a request's way, in order: about to leave, arrived, dealt with, answer arrived.
POINTS = ("sent", "arrived", "answered", "heard")
Fate = Callable[["Node", "Node", ExchangeMessage, str], None]


class Node:
    """A core and a learner that adds 1 to its own coordinate in every period."""

    def __init__(self, world: "World", number: int, period_s: float) -> None:
        self.world, self.number, self.period_s = world, number, period_s
        self.core = Relay(PeerId(bytes([number]) * 32), CONFIG, world.layout, Random(number))
        self.core.begin(np.zeros(world.layout.size, np.float32), Lineage(b"f" * 32))
        self.core.replica.learner_has(self.core.replica.x)
        self.core.accepting = True
        self.learner: Floats = np.zeros(world.layout.size, np.float32)
        self.alive, self.trains, self.settling = True, True, False
        self.died_at = 0.0
        world.after(world.rng.random() * period_s, self.period)

    def __repr__(self) -> str:
        return f"{self.number}:{self.core.role.name}"

    @property
    def x(self) -> Floats:
        return self.core.replica.x

    def period(self) -> None:
        """The learner has worked for a period; what is due follows at once."""
        if not self.alive:
            return
        self.world.after(self.period_s, self.period)
        self.keep_up()
        if self.core.busy or not self.trains:
            return
        if not self.settling:
            self.learner[self.number] += 1
            self.core.progress(self.learner.copy(), applied=True)
        self.core.open_period()
        self.ask()

    def keep_up(self) -> None:
        """Copy a model if we were away so long that we are asked to, as the daemon does."""
        for other in self.world.living():
            if lineage.should_copy(self.core.lineage, other.core.lineage):
                self.core.begin(other.x, other.core.lineage)

    def ask(self) -> None:
        if not self.alive or self.core.busy:
            return
        out = self.core.propose(self.world.candidates(self), self.world.now)
        if out is not None:
            self.world.request(self, out)
            return
        self.core.close_period(partners=20)
        difference = np.empty_like(self.learner)
        if self.core.replica.increment(difference):
            self.learner += difference
            self.core.replica.applied()

    def die(self) -> None:
        self.alive, self.died_at = False, self.world.now


class World:
    """All nodes, and what is checked after each event."""

    def __init__(self, size: int, seed: int = 0, spread: float = 1.0) -> None:
        self.rng = Random(seed)
        self.now = 0.0
        self.loss = 0.0
        self.parted: Callable[[Node, Node], bool] = lambda a, b: False
        self.fate: Fate = lambda caller, called, message, point: None
        self.layout = Layout.of([Tensor("w", (size + 1,))])
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        periods = [self.rng.uniform(1.0, spread) if spread > 1 else 1.0 for _ in range(size)]
        self.nodes = [Node(self, number + 1, period) for number, period in enumerate(periods)]
        self.held_at = 0.0
        self.longest_without = 0.0
        self.issued: set[tuple[int, bytes]] = set()

    # --- time ------------------------------------------------------------------------------------

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._order), call))

    def run(self, seconds: float) -> "World":
        until = self.now + seconds
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, call = heapq.heappop(self._agenda)
            call()
            self._check()
        self.now = until
        return self

    def _check(self) -> None:
        held = [node.core.turn.generation for node in self.living() if self.holds(node)]
        assert len(held) == len(set(held)), f"two models of one generation: {self.nodes}"
        if any(node.core.role in (Role.HOLDING, Role.HANDING) for node in self.living()):
            self.held_at = self.now
        self.longest_without = max(self.longest_without, self.now - self.held_at)
        for node in self.nodes:
            # What did not count has not come in, and what counted is there.
            assert node.x.sum() == node.core.lineage.age

    # --- what there is ---------------------------------------------------------------------------

    def living(self) -> Iterator[Node]:
        return (node for node in self.nodes if node.alive)

    @staticmethod
    def holds(node: Node) -> bool:
        return node.core.role is Role.HOLDING

    def holders(self) -> list[Node]:
        return [node for node in self.living() if self.holds(node)]

    def furthest(self) -> int:
        """The periods of the copy that has seen most."""
        return max(node.core.lineage.age for node in self.living())

    def candidates(self, asking: Node) -> list[PeerId]:
        """As the membership knows them."""
        known = [n for n in self.nodes if n.alive or self.now - n.died_at < NOTICED_S]
        return [n.core.me for n in known if n is not asking and not self.parted(n, asking)]

    # --- messages --------------------------------------------------------------------------------

    def lost(self, called: Node) -> bool:
        """Whether what is on its way to or from it never arrives."""
        return not called.alive or self.rng.random() < self.loss

    def request(self, caller: Node, out: Outgoing) -> None:
        called = next(node for node in self.nodes if node.core.me == out.peer)

        def fail() -> None:
            if caller.alive:
                caller.core.failed(out.peer, "timeout", exchange=out.message.exchange)
                caller.ask()

        def arrive() -> None:
            self.fate(caller, called, out.message, "arrived")
            if self.parted(caller, called) or self.lost(called):
                self.after(TIMEOUT_S, fail)
                return
            try:
                answer = called.core.receive(caller.core.me, out.message, out.payload, self.now)
            except RemoteError:
                self.after(LATENCY_S, fail)
                return
            assert answer is not None
            self.fate(caller, called, out.message, "answered")
            if self.lost(called):
                self.after(TIMEOUT_S, fail)
            else:
                self.after(LATENCY_S, lambda: hear(answer))

        def hear(answer: Outgoing) -> None:
            if caller.alive:
                reply = caller.core.receive(out.peer, answer.message, answer.payload, self.now)
                assert reply is None
                self.fate(caller, called, out.message, "heard")
                caller.ask()

        self.fate(caller, called, out.message, "sent")
        self.after(LATENCY_S, arrive)
