"""The peers around this node: finding them, probing them, and who may be learned with.

Addresses are hints from four sources; identity is proven by the connection; liveness is our own
probes' business (gossip.membership).  This is the only loop that joins those three.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from covey.gossip import lineage as lineages
from covey.gossip.membership import Change, Kind, Life, Member, Membership
from covey.node.addresses import AddressBook, Source, format_address
from covey.node.events import EventLog
from covey.node.letters import Letters
from covey.node.metrics import Metrics
from covey.node.tasks import OnBug, Tasks
from covey.node.transport import Transport
from covey.node.unreachable import Kind as Obstacle
from covey.node.unreachable import Unreachable
from covey.protocols import limits
from covey.protocols.errors import RemoteError
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import Introduction, Lineage, Phase, Standing, StateOffer

log = logging.getLogger(__name__)

_TURN_S = 0.25  # the longest sleep of the loop: how late a new address is dialled
_LOOK_AROUND_S = 3.0  # an announcement takes 1.7 s, an answer to a browse 0.1 s
_LOOK_AROUND_MOST_S = 12.0  # as a dial to an address that swallows everything takes 8 s
_DIALS_MAX = 8  # at once


class Neighbours:
    """Keeps the membership current.  ``standing`` says what this node is just now."""

    def __init__(
        self,
        membership: Membership,
        book: AddressBook,
        transport: Transport,
        standing: Callable[[], Standing],
        events: EventLog,
        metrics: Metrics,
        on_bug: OnBug,
    ) -> None:
        self.membership = membership
        self.book = book
        self.lag_s = 0.0  # of the event loop, at its last turn
        self.rejections: dict[str, int] = {}  # reason -> how often a peer was at fault
        self.notes: dict[PeerId, str] = {}  # why a peer does not take part
        self._compared: dict[PeerId, tuple[bytes, bytes]] = {}  # our layout and its, when noted
        self.on_silence: Callable[[PeerId], None] = lambda peer: None
        self._transport = transport
        self._standing = standing
        self._events = events
        self._metrics = metrics
        self._tasks = Tasks(on_bug)
        self._dialling: set[str] = set()
        self._began = time.monotonic()
        self._own_layout: Callable[[], Layout | None] = lambda: None

    def compare_with(self, layout: Callable[[], Layout | None]) -> None:
        """Whose layout differs is told from this one."""
        self._own_layout = layout

    # --- what learning asks ----------------------------------------------------------------------

    def partners(self, layout: bytes, lineage: Lineage) -> Sequence[PeerId]:
        """Alive peers that this node may average with."""
        return [
            member.peer
            for member in self._with(layout)
            if member.standing.phase in (Phase.TRAINING, Phase.SETTLING, Phase.PAUSED)
            and lineages.mixable(lineage, member.standing.lineage)
        ]

    def elders(self, layout: bytes, lineage: Lineage) -> Sequence[PeerId]:
        """Alive peers with this layout whose lineage stands over ours, the eldest first."""
        found = [m for m in self._with(layout) if lineages.should_copy(lineage, m.standing.lineage)]
        found.sort(key=lambda member: -member.standing.lineage.age)
        return [member.peer for member in found]

    def waiting(self, layout: bytes) -> Sequence[PeerId]:
        """Alive peers whose learner waits for weights, and that have none themselves."""
        return [
            member.peer
            for member in self._with(layout)
            if member.standing.phase == Phase.JOINING and not member.standing.lineage.founder
        ]

    def anybody_training(self, layout: bytes) -> bool:
        return any(m.standing.phase == Phase.TRAINING for m in self._with(layout))

    def looked_around(self) -> bool:
        """Whether whoever is there would have been found by now."""
        waited_s = time.monotonic() - self._began
        # Whoever announces one false address after the other must not keep us looking.
        return waited_s >= (_LOOK_AROUND_MOST_S if self._dialling else _LOOK_AROUND_S)

    def tell(self) -> None:
        """Let the peers know this node's standing now, not at the next probe."""
        for member in self.membership.alive():
            self._tasks.spawn(self._probe(member.peer))

    async def consult(self) -> None:
        """Tell the peers this node's standing and hear theirs; as long as a probe may take."""
        await asyncio.gather(*(self._probe(member.peer) for member in self.membership.alive()))

    def call(self, peer: PeerId) -> AbstractAsyncContextManager[Letters]:
        return self._transport.call(peer, self._address(peer))

    async def state_offer(self, peer: PeerId) -> StateOffer:
        return await self._transport.state_offer(peer, self._address(peer))

    async def fetch_state(self, peer: PeerId, offer: StateOffer, into: memoryview) -> None:
        address = self._address(peer)
        await self._transport.fetch_state(peer, address, offer, into, lambda done: None)

    def rejected(self, peer: PeerId | None, error: RemoteError) -> None:
        """Count what a peer did wrong."""
        self.rejections[error.reason] = self.rejections.get(error.reason, 0) + 1
        who = peer.short if peer is not None else "unknown"
        self._events.emit("peer.rejected", peer=who, reason=error.reason, detail=str(error))

    # --- what peers say --------------------------------------------------------------------------

    def probed(self, peer: PeerId, standing: Standing, host: str) -> None:
        """``peer`` probed us from ``host``: it is alive, and may be called back there."""
        if standing.port:
            address = format_address(host, standing.port)
            self.book.learn(address, Source.EXCHANGE, time.monotonic(), peer)
        self._heard(peer, standing, None)

    def introductions(self, to: PeerId) -> tuple[Introduction, ...]:
        """Peers to tell ``to`` about, with the addresses that worked."""
        members = self.membership.introductions(to, limits.PEERS_PER_PROBE_MAX)
        known = ((member.peer, self.book.working(member.peer)) for member in members)
        most = limits.ADDRESSES_PER_PEER_MAX
        return tuple(Introduction(peer.key, tuple(found[:most])) for peer, found in known if found)

    # --- the loop --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Dial, probe and let membership age, for as long as the daemon runs."""
        self._began = time.monotonic()
        expected = self._began
        while True:
            now = time.monotonic()
            self.lag_s = max(0.0, now - expected)
            self._news(self.membership.tick(now, self.lag_s))
            self._metrics.lagged(self.lag_s)
            self._metrics.health(self.membership.stretch - 1)
            for address in self.book.due(now)[: _DIALS_MAX - len(self._dialling)]:
                if address not in self._dialling:
                    self._dialling.add(address)
                    self._tasks.spawn(self._dial(address))
            for peer in self.membership.to_probe(now):
                self._tasks.spawn(self._probe(peer))
            pause = min(_TURN_S, max(0.01, self.membership.deadline() - time.monotonic()))
            expected = time.monotonic() + pause
            await asyncio.sleep(pause)

    async def leave(self, goodbye: Standing) -> None:
        """Tell everyone alive that this node leaves; does not wait for the slow."""

        async def say(member: Member) -> None:
            try:
                address = self._address(member.peer)
                await self._transport.probe(member.peer, address, goodbye, 1.0)
            except (Unreachable, RemoteError) as error:
                log.debug("no goodbye to %s: %s", member.peer.short, error)

        await asyncio.gather(*(say(member) for member in self.membership.alive()))

    async def close(self) -> None:
        await self._tasks.close()
        await self._transport.close()

    # --- inside ----------------------------------------------------------------------------------

    def _with(self, layout: bytes) -> list[Member]:
        return [member for member in self.membership.alive() if member.standing.layout == layout]

    def _address(self, peer: PeerId) -> str:
        """The best address of ``peer``.  Raises Unreachable if none is known."""
        addresses = self.book.of(peer)
        if not addresses:
            raise Unreachable(Obstacle.NO_ROUTE, f"no address of {peer.short} is known")
        return addresses[0]

    async def _dial(self, address: str) -> None:
        """Find out who is at ``address``."""
        try:
            peer, standing = await self._transport.hello(address)
        except Unreachable as error:
            if self.book.failed(address, str(error), time.monotonic()):
                self._events.emit("peer.unreachable", address=address, why=str(error))
        except RemoteError as error:
            self.rejected(None, error)
            self.book.failed(address, str(error), time.monotonic())
        else:
            self.book.reached(address, peer, time.monotonic())
            self._heard(peer, standing, None)
            await self._probe(peer)  # so that it knows us too
        finally:
            self._dialling.discard(address)

    async def _probe(self, peer: PeerId) -> None:
        try:
            address = self._address(peer)
            timeout_s = self.membership.timeout_s(peer)
            standing, rtt_s = await self._transport.probe(
                peer, address, self._standing_for(peer), timeout_s
            )
        except Unreachable as error:
            self._probe_failed(peer, str(error))
        except RemoteError as error:
            self.rejected(peer, error)
            self._probe_failed(peer, str(error))
        else:
            self.book.reached(address, peer, time.monotonic())
            self._metrics.probed(rtt_s)
            self._heard(peer, standing, rtt_s)

    def _probe_failed(self, peer: PeerId, why: str) -> None:
        now = time.monotonic()
        for address in self.book.of(peer)[:1]:
            self.book.failed(address, why, now)  # the next probe tries its next address
        self._news(self.membership.missed(peer, now))

    def _standing_for(self, peer: PeerId) -> Standing:
        return self._standing()

    def _heard(self, peer: PeerId, standing: Standing, rtt_s: float | None) -> None:
        now = time.monotonic()
        self._news(self.membership.heard(peer, standing, now, rtt_s))
        for address in standing.addresses:
            self.book.learn(address, Source.EXCHANGE, now, peer)
        for introduction in standing.introductions:
            for address in introduction.addresses:
                self.book.learn(address, Source.EXCHANGE, now, PeerId(introduction.peer))
        self._compare(peer, standing)

    def _compare(self, peer: PeerId, standing: Standing) -> None:
        """Say which tensor differs, once per pair of layouts."""
        own = self._own_layout()
        if own is None or not standing.layout or standing.layout == own.digest:
            self.notes.pop(peer, None)
            self._compared.pop(peer, None)
        elif self._compared.get(peer) != (own.digest, standing.layout):
            self._compared[peer] = own.digest, standing.layout
            self.notes[peer] = "trains another model"
            self._tasks.spawn(self._explain(peer, standing, own))

    async def _explain(self, peer: PeerId, standing: Standing, own: Layout) -> None:
        try:
            theirs = await self._transport.layout(peer, self._address(peer))
        except (Unreachable, RemoteError) as error:
            log.debug("no layout from %s: %s", peer.short, error)
            self._compared.pop(peer, None)  # the next standing asks again
            return
        difference = own.difference(theirs)
        if difference is not None:
            self.notes[peer] = f"trains another model: {difference}"
            self._events.emit("peer.other_model", peer=peer.short, difference=difference)
            log.warning("%s (%s) trains another model: %s", standing.name, peer.short, difference)

    def _news(self, changes: list[Change]) -> None:
        for change in changes:
            if change.kind in (Kind.CONFLICT, Kind.CONFLICT_OVER):
                self._events.emit(f"identity.{change.kind}", peer=change.peer.short, why=change.why)
                log.warning("%s: %s", change.peer.short, change.why)
                continue
            member = self.membership.get(change.peer)
            name = member.standing.name if member is not None else ""
            about = {"peer": change.peer.short, "name": name, "why": change.why}
            self._events.emit(f"peer.{change.after}", **about)
            if change.after is not Life.ALIVE:
                self.on_silence(change.peer)
            if change.after in (Life.DEAD, Life.LEFT):
                self.notes.pop(change.peer, None)
                self._compared.pop(change.peer, None)
                self._tasks.spawn(self._transport.drop(change.peer))
