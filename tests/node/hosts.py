"""Nodes without TLS and discovery for tests: real hosts, links, cores and files, one loop.

Hosts call each other directly through ``Wire``, which can lose and hold messages.  ``Learner`` is
one as raw frames: a test decides when it takes, adds and hands over.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from covey.channel import open_map
from covey.gossip import lineage as lineages
from covey.gossip.config import Config, OuterStep, Screening
from covey.node.checkpoints import Checkpoints
from covey.node.events import EventLog
from covey.node.handout import Handout
from covey.node.host import Host, Parts
from covey.node.learner_link import LearnerLink
from covey.node.learning import Learning
from covey.node.letters import Letters
from covey.node.metrics import Metrics
from covey.node.throttle import Limits
from covey.node.unreachable import Kind, Unreachable
from covey.protocols import link
from covey.protocols.envelope import Sealer
from covey.protocols.errors import RemoteError
from covey.protocols.identity import Identity, PeerId
from covey.protocols.layout import Kind as TensorKind
from covey.protocols.layout import Layout, Tensor
from covey.protocols.messages import Lineage, Phase, StateOffer
from tests.node.pipes import called, deafen
from tests.node.waiting import until

SWARM = b"w" * 32
LAYOUT = Layout.of([Tensor("w", (40, 5)), Tensor("mean", (9,), kind=TensorKind.BUFFER)])
OTHER_LAYOUT = Layout.of([Tensor("w", (40, 6))])
# Exact averaging and nothing else: no code, no clip, and an outer step that changes nothing.
PLAIN = Config(
    codec="f32",
    outer=OuterStep(momentum=0.0, rate=1.0),
    screening=Screening(10_000, unscreened=10_000, first_reach=math.inf, undone_share=10_000),
)
Vector = NDArray[np.float32]
Fate = Callable[[str], Awaitable[str]]  # of a message's kind: "ok", "lost" or "answer lost"


async def _always_ok(kind: str) -> str:
    return "ok"


class Wire:
    """What connects the nodes of a test."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.fate: Fate = _always_ok
        self.silent: set[PeerId] = set()  # dead to all others
        self.looked_around = True

    def others(self, node: "Node") -> "list[Node]":
        return [o for o in self.nodes if o is not node and o.me not in self.silent]


@dataclass
class View:
    """The neighbourhood of one node: implements welcome.Neighbours."""

    wire: Wire
    node: "Node"
    told: int = 0
    consulted: int = 0
    looks: int = 0  # for elders
    rejections: list[RemoteError] = field(default_factory=list)

    def partners(self, layout: bytes, lineage: Lineage) -> Sequence[PeerId]:
        trained = (Phase.TRAINING, Phase.SETTLING, Phase.PAUSED)
        return [
            other.me
            for other, learning in self._with(layout)
            if learning.phase in trained and lineages.mixable(lineage, learning.lineage)
        ]

    def anybody_training(self, layout: bytes) -> bool:
        return any(learning.phase is Phase.TRAINING for _, learning in self._with(layout))

    def elders(self, layout: bytes, lineage: Lineage) -> Sequence[PeerId]:
        self.looks += 1
        found = self._with(layout)
        return [o.me for o, learning in found if lineages.should_copy(lineage, learning.lineage)]

    def waiting(self, layout: bytes) -> Sequence[PeerId]:
        return [
            other.me
            for other, learning in self._with(layout)
            if learning.phase is Phase.JOINING and not learning.lineage.founder
        ]

    def tell(self) -> None:
        self.told += 1

    def looked_around(self) -> bool:
        return self.wire.looked_around

    async def consult(self) -> None:
        self.consulted += 1

    def rejected(self, peer: PeerId | None, error: RemoteError) -> None:
        self.rejections.append(error)

    @contextlib.asynccontextmanager
    async def call(self, peer: PeerId) -> AsyncIterator[Letters]:
        other = self._reach(peer)

        async def serve(letters: Letters) -> None:
            fate = "ok"
            while fate == "ok":
                message = await letters.announcement()
                if (fate := await self.wire.fate(type(message).__name__)) != "ok":
                    deafen(letters)
                if fate != "lost":
                    await other.host.answer(self.node.me, letters, message)

        async with called(serve, lambda error: other.view.rejected(self.node.me, error)) as letters:
            yield letters

    async def state_offer(self, peer: PeerId) -> StateOffer:
        offer = await self._reach(peer).host.state()
        if offer is None:
            raise Unreachable(Kind.NOTHING, "it has no model")
        return offer

    async def fetch_state(self, peer: PeerId, offer: StateOffer, into: memoryview) -> None:
        node = self._reach(peer)
        if await self.wire.fate("state") != "ok":
            raise Unreachable(Kind.CUT, "the state was lost")
        path = node.handout.file(offer.digest)
        assert path is not None
        into[:] = await asyncio.to_thread(path.read_bytes)

    def _with(self, layout: bytes) -> "list[tuple[Node, Learning]]":
        found = [(o, o.host.learning) for o in self.wire.others(self.node)]
        return [(o, held) for o, held in found if held is not None and held.layout.digest == layout]

    def _reach(self, peer: PeerId) -> "Node":
        for other in self.wire.others(self.node):
            if other.me == peer:
                return other
        raise Unreachable(Kind.TIMEOUT, "nobody answers")


class Node:
    """A host with its link and its files.  ``bugs`` must be empty in the end."""

    def __init__(
        self, number: int, folder: Path, wire: Wire, config: Config, checkpoint_every_s: float
    ) -> None:
        self.identity = Identity(bytes([number]) * 32)
        self.me = self.identity.peer
        self.bugs: list[BaseException] = []
        self.events = EventLog()
        self.view = View(wire, self)
        self.handout = Handout(folder / "handout")
        self.host = Host(
            Parts(
                me=self.me,
                swarm=SWARM,
                sealer=Sealer(self.identity, Random(number).randbytes(16)),
                config=config,
                neighbours=self.view,
                events=self.events,
                metrics=Metrics(),
                checkpoints=Checkpoints(folder / "checkpoints", keep=2),
                handout=self.handout,
                checkpoint_every_s=checkpoint_every_s,
                on_bug=self.bugs.append,
                bandwidth=Limits(),
            )
        )
        self._folder = folder
        self.link = LearnerLink(folder / "s", folder / "maps", self.host, self.me.short)

    @property
    def learning(self) -> Learning:
        assert self.host.learning is not None
        return self.host.learning

    async def x(self) -> Vector:
        """A copy of the node's vector."""
        replica = self.learning.runner.core.replica
        return await self.learning.runner.run(replica.x.copy)

    async def nudge(self, by: Vector) -> None:
        """Move x as an exchange would."""
        replica = self.learning.runner.core.replica

        def move() -> None:
            replica.moving()[:] += by

        await self.learning.runner.run_idle(move)
        self.learning.adopted()

    def happened(self, type: str) -> int:
        return len(self.events.since(0, [type]))

    async def learner(
        self,
        vector: Vector,
        layout: Layout = LAYOUT,
        pid: int = 1,
        resumed: Lineage | None = None,
    ) -> "Learner":
        """A learner that waits for its weights."""
        reader, writer = await asyncio.open_unix_connection(self._folder / "s")
        learner = Learner(vector, reader, writer)
        await learner.attach(layout, pid, resumed)
        return learner

    async def trainee(self, vector: Vector, layout: Layout = LAYOUT, pid: int = 1) -> "Learner":
        """A learner that has its weights."""
        learner = await self.learner(vector, layout, pid)
        await learner.started()
        return learner


@contextlib.asynccontextmanager
async def nodes(
    folder: Path, count: int = 1, config: Config = PLAIN, checkpoint_every_s: float = 3600.0
) -> AsyncIterator[list[Node]]:
    """Running nodes in folders of their own.  Afterwards no task and no bug may be left."""
    wire, before = Wire(), asyncio.all_tasks()
    for number in range(1, count + 1):
        home = folder / str(number)
        home.mkdir(exist_ok=True)
        wire.nodes.append(Node(number, home, wire, config, checkpoint_every_s))
    for node in wire.nodes:
        await node.link.start()
    try:
        yield wire.nodes
    finally:
        for node in wire.nodes:
            await node.link.close()
        for node in wire.nodes:
            await node.host.close()
    for node in wire.nodes:
        assert not node.bugs
    await until(lambda: asyncio.all_tasks() == before)


class Learner:
    """A learner as raw frames around ``vector``, which is its model."""

    def __init__(
        self, vector: Vector, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.vector = vector
        self.steps = 0
        self.lineage: Lineage | None = None
        self.rejected: str | None = None
        self.report: link.SettledReport | None = None
        self.heard: list[type] = []
        self.pace_s: float | None = None
        self.pending: int | None = None  # an increment that waits to be added
        self.increments = 0
        self.consumed = True
        self.replaced = self.ended = False
        self._reader, self._writer = reader, writer
        self._areas: link.Areas | None = None
        self._applied = self._sent = 0
        self._listening: asyncio.Task[None] | None = None

    @property
    def areas(self) -> link.Areas:
        assert self._areas is not None
        return self._areas

    async def attach(self, layout: Layout, pid: int, resumed: Lineage | None) -> None:
        name = f"script{pid}"
        self._send(link.Attach(link.LINK, layout.encoded, name, pid, "automatic", resumed))
        self._listening = asyncio.create_task(self._listen(layout))
        await until(lambda: self._areas is not None or self.ended)
        if self._areas is not None:
            self.areas.snapshot[:] = self.vector
            self._send(link.Snapshot(0, self.steps, 0))

    async def started(self) -> None:
        """Wait for the weights and take them."""
        await until(lambda: self.lineage is not None or self.ended)
        assert self.lineage is not None, self.rejected
        if self.pending == 0:
            self.vector[:] = self.areas.increment
            self.apply()

    def step(self, by: Vector | float) -> None:
        """One training step."""
        self.vector += by
        self.steps += 1

    def apply(self) -> bool:
        """Add the increment that waits, if one does."""
        if self.pending is None:
            return False
        if self.pending:
            self.vector += self.areas.increment
            self.increments += 1
        self._applied, self.pending = self.pending, None
        self._send(link.Applied(self._applied))
        return True

    def hand_over(self) -> bool:
        """Send a snapshot, if the last one has been consumed."""
        if not self.consumed or self.ended:
            return False
        self.areas.snapshot[:] = self.vector
        self.consumed = False
        self._sent += 1
        self._send(link.Snapshot(self._sent, self.steps, self._applied))
        return True

    def log(self, **values: float) -> None:
        self._send(link.Log(tuple(values), tuple(values.values())))

    def settle(self) -> None:
        self._send(link.Settle())

    async def settled(self) -> link.SettledReport:
        """Hand over, settle and take in what comes."""
        await until(lambda: self.consumed)
        self.apply()
        self.hand_over()
        self.settle()
        await until(lambda: self.apply() or self.report is not None)
        await until(lambda: not self.apply() and self.report is not None)
        assert self.report is not None
        return self.report

    async def leave(self) -> None:
        """Say goodbye and wait until the node has hung up."""
        self._send(link.Detach())
        await until(lambda: self.ended)
        await self.crash()

    async def crash(self) -> None:
        """Hang up without a word."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])

    def _send(self, frame: link.FromLearner) -> None:
        self._writer.write(link.encode(frame))

    async def _listen(self, layout: Layout) -> None:
        decoder = link.Decoder()
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(1 << 16):
                for frame in decoder.feed(data):
                    self._take(frame, layout)
        self.ended = True

    def _take(self, frame: link.Frame, layout: Layout) -> None:
        self.heard.append(type(frame))
        match frame:
            case link.Attached():
                self._areas = open_map(frame.path, layout.size)
            case link.Start():
                self.replaced = frame.replace
                self.pending = 0 if frame.replace else None
                self.lineage = frame.lineage
            case link.Consumed():
                assert not self.consumed
                self.consumed = True
            case link.Increment():
                assert self.pending is None, "only one increment at a time"
                self.pending, self.lineage = frame.sequence, frame.lineage
            case link.Pace():
                self.pace_s = frame.seconds
            case link.SettledReport():
                self.report = frame
            case link.Rejected():
                self.rejected = frame.reason


def noise(size: int = LAYOUT.size, seed: int = 1) -> Vector:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)
