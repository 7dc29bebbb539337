"""Whole nodes on loopback for tests: TLS, sockets, membership, hosts; no discovery, no API."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from covey.gossip.config import Config
from covey.gossip.membership import Config as Pace
from covey.gossip.membership import Life, Membership
from covey.node.addresses import AddressBook, Source
from covey.node.checkpoints import Checkpoints
from covey.node.desk import Desk
from covey.node.events import EventLog
from covey.node.handout import Handout
from covey.node.host import Host, Parts
from covey.node.learner_link import LearnerLink
from covey.node.ledger import Ledger
from covey.node.metrics import Metrics
from covey.node.neighbours import Neighbours
from covey.node.peer_server import PeerServer
from covey.node.throttle import Limits
from covey.node.tls import Credentials
from covey.node.transport import Transport
from covey.protocols import PROTOCOL
from covey.protocols.certificates import swarm_id
from covey.protocols.envelope import Sealer
from covey.protocols.identity import Identity, PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import Lineage, Phase, Standing
from tests.node.hosts import LAYOUT, PLAIN, Learner, Vector
from tests.node.members import SECRET
from tests.node.waiting import until

# Twenty times as fast as real nodes; slow machines stretch what they measure to be slow.
FAST = Pace(probe_s=0.05, probes_per_s=80, suspect_s=0.3, dead_s=0.4, revive_s=1.0)
FOUNDED = Lineage(b"f" * 32, 100)
SLOW = Pace(probe_s=60.0, suspect_s=120.0, dead_s=180.0, revive_s=300.0)


@dataclass
class Setting:
    """What the nodes of a test have in common."""

    folder: Path
    pace: Pace = FAST
    config: Config = PLAIN


class Resident:
    """One node.  ``bugs`` must be empty in the end."""

    def __init__(
        self, number: int, setting: Setting, secret: bytes = SECRET, boot: int | None = None
    ) -> None:
        self.identity = Identity(bytes([number]) * 32)
        self.me = self.identity.peer
        self.folder = setting.folder / str(number)
        self.folder.mkdir(exist_ok=True)
        instance = Random(number if boot is None else boot).randbytes(16)
        self.bugs: list[BaseException] = []
        self.events, metrics = EventLog(), Metrics()
        self.ledger = Ledger()
        credentials = Credentials(self.identity, secret, self.ledger)
        self.book = AddressBook(self.me, Random(number))
        self.membership = Membership(self.me, instance, setting.pace, Random(number))
        self.limits = Limits()
        self.transport = Transport(credentials, self.limits)
        self.neighbours = Neighbours(
            self.membership,
            self.book,
            self.transport,
            lambda: self.desk.standing(),
            self.events,
            metrics,
            self.bugs.append,
        )
        self.handout = Handout(self.folder / "handout")
        parts = Parts(
            me=self.me,
            swarm=swarm_id(secret),
            sealer=Sealer(self.identity, instance),
            config=setting.config,
            neighbours=self.neighbours,
            events=self.events,
            metrics=metrics,
            checkpoints=Checkpoints(self.folder / "checkpoints", keep=2),
            handout=self.handout,
            checkpoint_every_s=3600.0,
            on_bug=self.bugs.append,
            bandwidth=self.limits,
        )
        self.host = Host(parts)
        self.neighbours.compare_with(lambda: self.host.layout)
        self.neighbours.on_silence = self.host.peer_silent
        name = f"node-{number}"
        card = Standing(instance, name, "0.1.0", PROTOCOL, 0, (), Phase.IDLE)
        self.desk = Desk(card, self.host, self.neighbours, self.handout)
        self.server = PeerServer(credentials, self.desk, self.bugs.append, self.limits)
        self.link = LearnerLink(self.folder / "s", self.folder / "maps", self.host, self.me.short)
        self._running: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.desk.card.port}"

    async def start(self, port: int = 0) -> None:
        port = await self.server.start("127.0.0.1", port)
        self.desk.card = replace(self.desk.card, port=port)
        await self.link.start()
        self._running = asyncio.create_task(self.neighbours.run())

    def knows(self, *others: "Resident") -> None:
        """Give it static peers."""
        for other in others:
            self.book.learn(other.address, Source.STATIC, asyncio.get_running_loop().time())

    def sees(self, other: "Resident") -> Life | None:
        member = self.membership.get(other.me)
        return None if member is None else member.life

    def happened(self, type: str) -> int:
        return len(self.events.since(0, [type]))

    async def trainee(self, vector: Vector, layout: Layout = LAYOUT) -> Learner:
        """A learner that has its weights."""
        reader, writer = await asyncio.open_unix_connection(self.folder / "s")
        learner = Learner(vector, reader, writer)
        await learner.attach(layout, 1, None)
        await learner.started()
        return learner

    async def vanish(self) -> None:
        """Be gone without a word."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
            self._running = None
        await self.link.close()
        await self.server.close()
        await self.host.close()
        await self.neighbours.close()


async def connections_end() -> None:
    """aiohttp and asyncio end their connections in callbacks of the next turns."""
    for _ in range(5):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def residents(setting: Setting, *numbers: int) -> AsyncIterator[list[Resident]]:
    """Running nodes that do not know each other.  Afterwards no task and no bug may be left."""
    before = asyncio.all_tasks()
    made = [Resident(number, setting) for number in numbers]
    try:
        for resident in made:
            await resident.start()
        yield made
    finally:
        for resident in made:
            await resident.vanish()
        await connections_end()
    for resident in made:
        assert not resident.bugs
    await until(lambda: asyncio.all_tasks() == before)


def standing(
    instance: bytes = b"i" * 16,
    phase: Phase = Phase.TRAINING,
    layout: bytes = LAYOUT.digest,
    lineage: Lineage = FOUNDED,
) -> Standing:
    """What a made-up peer says of itself."""
    return Standing(instance, "made-up", "0.1.0", PROTOCOL, 4001, (), phase, layout, lineage)


def made_up(number: int) -> PeerId:
    return Identity(bytes([number]) * 32).peer
