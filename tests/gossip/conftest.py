"""What the tests of the gossip layer share: seeded examples, and cores that pass messages."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from covey.gossip import algorithms
from covey.gossip.config import Config, Screening
from covey.gossip.core import Core, Outcome, Outgoing
from covey.gossip.quantiser import Floats
from covey.protocols.errors import RemoteError
from covey.protocols.identity import PeerId
from covey.protocols.layout import Kind, Layout, Tensor
from covey.protocols.messages import Lineage

# The same examples in every run; COVEY_FUZZ asks for more of them where it says so.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")

OPEN = Screening(
    remembered=10**6, unscreened=10**6, first_reach=math.inf, undone_share=10**6
)  # never gated, never clipped


@dataclass(frozen=True)
class Flight:
    """A message on its way, a request or the answer to one."""

    sender: PeerId
    out: Outgoing
    request: bool


class Flock:
    """Cores that pass each other messages in a random order, some of which are lost.

    As in the node, every message of the proposer is a request that is answered or fails.
    """

    def __init__(
        self,
        size: int,
        parameters: int = 200,
        buffers: int = 0,
        config: Config | None = None,
        seed: int = 0,
        loss: float = 0.0,
    ) -> None:
        self.rng = Random(seed)
        self.noise = np.random.default_rng(seed)
        self.loss = loss
        self.now = 0.0
        self.flights: list[Flight] = []
        self.errors: list[RemoteError] = []
        self.outcomes: list[Outcome] = []
        self.wire = hashlib.sha256()  # of all that was ever sent
        self.tamper: Callable[[Flight], Flight | None] = lambda flight: flight
        tensors = [Tensor("weights", (parameters,))]
        if buffers:
            tensors.append(Tensor("running", (buffers,), kind=Kind.BUFFER))
        self.layout = Layout.of(tensors)
        peers = sorted(PeerId(self.rng.randbytes(32)) for _ in range(size))
        config = config or Config()
        self.cores = [
            algorithms.create(p, config, self.layout, Random(f"{seed} {p}")) for p in peers
        ]
        self.of = {core.me: core for core in self.cores}

    # --- the models ------------------------------------------------------------------------------

    def begin(self, vectors: Sequence[Floats]) -> "Flock":
        """All of one lineage, each with its own vector; learners hold the same."""
        for core, vector in zip(self.cores, vectors, strict=True):
            core.begin(vector.astype(np.float32), Lineage(self.cores[0].me.key))
            core.replica.learner_has(core.replica.x)
            core.accepting = True
        return self

    def scattered(self, apart: float = 0.01, rested: bool = False) -> "Flock":
        """Begin at one random vector, from which each learner moves its own way.

        ``rested``: that was long ago, so nobody knows what differences to expect.
        """
        base = self.noise.standard_normal(self.layout.size).astype(np.float32)
        self.begin([base] * len(self.cores))
        for core, away in zip(self.cores, self.moves(apart), strict=True):
            self.learn(core, away)
            if rested:
                core.close_period(partners=0)
        return self

    def moves(self, size: float) -> list[Floats]:
        """Random progress for everybody."""
        shape = (len(self.cores), self.layout.size)
        return list((self.noise.standard_normal(shape) * size).astype(np.float32))

    @property
    def x(self) -> NDArray[np.float64]:
        return np.stack([core.replica.x for core in self.cores]).astype(np.float64)

    def spread(self) -> float:
        """Sum of squared distances to the mean."""
        x = self.x
        return float(((x - x.mean(axis=0)) ** 2).sum())

    def learn(self, core: Core, progress: Floats) -> None:
        """The learner moves by ``progress`` and takes what the flock has for it."""
        replica = core.replica
        assert core.progress(replica.learner + progress, applied=True)

    def hand_over(self, core: Core) -> None:
        replica = core.replica
        if replica.increment(np.empty_like(replica.x)):
            replica.applied()

    # --- messages --------------------------------------------------------------------------------

    def propose(self, core: Core, candidates: Sequence[Core] | None = None) -> bool:
        """Whether ``core`` had somebody to ask."""
        others = [c.me for c in (candidates or self.cores) if c is not core]
        out = core.propose(others, self.now)
        if out is not None:
            self.send(core.me, out, request=True)
        return out is not None

    def send(self, sender: PeerId, out: Outgoing, request: bool) -> None:
        self.wire.update(repr((sender, out.peer, out.message)).encode() + bytes(out.payload))
        self.flights.append(Flight(sender, out, request))

    def deliver(self, flight: Flight) -> None:
        self.now += 0.001
        arrived = None if self.rng.random() < self.loss else self.tamper(flight)
        out = flight.out
        if arrived is None:
            waiting, other = (flight.sender, out.peer)[:: 1 if flight.request else -1]
            self.of[waiting].failed(other, "lost", exchange=out.message.exchange)
            return
        receiver = self.of[arrived.out.peer]
        try:
            answer = receiver.receive(
                flight.sender, arrived.out.message, arrived.out.payload, self.now
            )
        except RemoteError as error:
            self.errors.append(error)
            if flight.request:
                self.of[flight.sender].failed(out.peer, "lost", exchange=out.message.exchange)
            return
        if answer is not None:
            self.send(receiver.me, answer, request=not flight.request)

    def run(self) -> None:
        """Deliver whatever is on its way, in a random order, and what comes of it."""
        while self.flights:
            self.deliver(self.flights.pop(self.rng.randrange(len(self.flights))))
        for core in self.cores:
            self.outcomes += core.outcomes()

    def wait(self) -> None:
        """Time passes: whoever waits for a proposer in vain gives up."""
        self.now += 1000.0
        for core in self.cores:
            core.tick(self.now)
            assert not core.busy
        for core in self.cores:
            self.outcomes += core.outcomes()

    # --- whole rounds ----------------------------------------------------------------------------

    def exchange(self, a: int, b: int) -> None:
        """One exchange that ``a`` proposes to ``b``."""
        self.cores[a].open_period(1)
        assert self.propose(self.cores[a], [self.cores[b]])
        self.run()

    def match(self) -> None:
        """One random matching: everybody with one other."""
        order = list(range(len(self.cores)))
        self.rng.shuffle(order)
        for a, b in zip(order[::2], order[1::2], strict=False):
            self.exchange(a, b)

    def mingle(self) -> None:
        """All exchanges that are due, proposed at random times, several under way at once."""
        while self.flights or any(core.due for core in self.cores):
            self.now += 0.01
            for core in self.cores:
                core.tick(self.now)
            turn = self.rng.randrange(len(self.cores) + len(self.flights))
            if turn < len(self.cores):
                self.propose(self.cores[turn])
            else:
                self.deliver(self.flights.pop(turn - len(self.cores)))
        self.run()

    def period(self, progress: Sequence[Floats]) -> None:
        """Everybody learns, exchanges with whom it finds, all at once, and closes its period."""
        for core, moved in zip(self.cores, progress, strict=True):
            self.learn(core, moved)
            core.open_period()
        self.mingle()
        self.wait()
        for core in self.cores:
            core.close_period(partners=20)
            self.hand_over(core)


def open_config(config: Config | None = None) -> Config:
    """Without gate and clip."""
    return replace(config or Config(), screening=OPEN)


@pytest.fixture(scope="session")
def flocks() -> type[Flock]:
    return Flock


@pytest.fixture(scope="session")
def unscreened() -> Callable[..., Config]:
    return open_config
