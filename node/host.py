"""Where a model lives in the daemon: attaching learners, finding their weights, keeping state.

A learner that attaches gets, in this order: its own weights back if it was attached before and the
node restarted; a peer's, if the peer's lineage stands (late joiner, fresh node, long absence); the
node's own, from memory or a checkpoint; and if nobody else is there, it is the founder.
"""

import asyncio
import contextlib
import functools
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import Protocol

import numpy as np

from covey.gossip import lineage as lineages
from covey.gossip import mixing
from covey.gossip.config import Config
from covey.gossip.core import Core
from covey.gossip.quantiser import Floats
from covey.node.checkpoints import Checkpoints
from covey.node.conversation import Conversation
from covey.node.events import EventLog
from covey.node.faults import OperatorError
from covey.node.handout import Handout
from covey.node.learner_link import Attachment
from covey.node.learning import Flock, Learning
from covey.node.metrics import Metrics
from covey.node.runner import CoreRunner
from covey.node.streams import Buffer
from covey.node.transport import Unreachable
from covey.protocols.envelope import Opened, Scope, Sealer
from covey.protocols.errors import Malformed, RemoteError, Stale
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import Lineage, Phase, StateOffer

log = logging.getLogger(__name__)

_NEWS_S = 0.25
_LINEAGE_CHECK_S = 1.0


class Neighbours(Flock, Protocol):
    """What the host needs of the neighbourhood beyond what learning needs."""

    def elders(self, layout: bytes, lineage: Lineage) -> Sequence[PeerId]:
        """Alive peers with this layout whose lineage stands over ours, the eldest first."""

    def waiting(self, layout: bytes) -> Sequence[PeerId]:
        """Alive peers whose learner waits for weights, and that have none themselves."""

    def looked_around(self) -> bool:
        """Whether whoever is there would have been found by now."""

    async def state_offer(self, peer: PeerId) -> StateOffer: ...

    async def fetch_state(self, peer: PeerId, offer: StateOffer, into: memoryview) -> None: ...


@dataclass(frozen=True)
class Parts:
    """What the host is built from."""

    me: PeerId
    swarm: bytes  # id
    sealer: Sealer
    config: Config
    neighbours: Neighbours
    events: EventLog
    metrics: Metrics
    checkpoints: Checkpoints
    handout: Handout
    checkpoint_every_s: float


class Host:
    """Implements the learner link's handler, and what peers ask of the model."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.learning: Learning | None = None
        self.saved_s: float | None = None  # of the last checkpoint, epoch
        self.fault: OperatorError | None = None  # the last checkpoint's, until one succeeds
        self._welcome: asyncio.Task[None] | None = None
        self._waiting: Attachment | None = None
        self._saved_age = -1

    # --- the learner link ------------------------------------------------------------------------

    async def attached(self, attachment: Attachment) -> None:
        await self._house(attachment.layout)
        assert self.learning is not None
        self.learning.phase = Phase.JOINING
        self._waiting = attachment
        self._parts.events.emit("train.attached", name=attachment.name, pid=attachment.pid)
        self._welcome = asyncio.create_task(self._admit(attachment, self.learning))
        self._welcome.add_done_callback(_report_bug)

    async def snapshot(self, attachment: Attachment, applied: int) -> None:
        if self.learning is not None:
            self.learning.snapshot(attachment, applied)

    async def applied(self, attachment: Attachment, sequence: int) -> None:
        if self.learning is not None:
            await self.learning.applied(attachment)

    async def logged(self, attachment: Attachment, values: dict[str, float]) -> None:
        if self.learning is not None:
            self.learning.tally.values.update(values)

    async def settle(self, attachment: Attachment) -> None:
        if self.learning is not None:
            self.learning.settle(attachment)

    async def detached(self, attachment: Attachment, clean: bool) -> None:
        self._waiting = None
        if self._welcome is not None:
            self._welcome.cancel()
        if self.learning is not None:
            self.learning.gone(clean)
            await self.save()
        self._parts.events.emit("train.detached", name=attachment.name, clean=clean)

    # --- what peers ask --------------------------------------------------------------------------

    @property
    def layout(self) -> Layout | None:
        return self.learning.layout if self.learning is not None else None

    @property
    def lineage(self) -> Lineage:
        return self.learning.lineage if self.learning is not None else Lineage()

    @property
    def payload_limit(self) -> int:
        return self.learning.conversation.limit if self.learning is not None else 0

    async def answer(self, opened: Opened, payload: bytearray) -> tuple[bytes, Buffer]:
        """Raises RemoteError."""
        if self.learning is None:
            raise Stale("no model is trained here")
        return await self.learning.conversation.answer(opened, payload)

    async def state(self) -> StateOffer | None:
        """A copy of the model for a joiner; None while there is none."""
        learning, handout = self.learning, self._parts.handout
        if learning is None or not learning.lineage.founder:
            return None
        if (offer := handout.fresh(learning.lineage)) is not None:
            return offer
        core = learning.runner.core
        return await learning.runner.run(
            lambda: handout.write(core.replica.x, core.lineage, learning.step)
        )

    # --- keeping state ---------------------------------------------------------------------------

    async def keep(self) -> None:
        """Checkpoints and lineage, for as long as the daemon runs."""
        saved = time.monotonic()
        while True:
            await asyncio.sleep(_LINEAGE_CHECK_S)
            await self._give_up_exchange()
            await self._mind_lineage()
            if time.monotonic() - saved >= self._parts.checkpoint_every_s:
                saved = time.monotonic()
                await self.save()

    async def save(self) -> None:
        """Write a checkpoint if the model moved.  A fault is kept for status, and logged once."""
        learning = self.learning
        if learning is None or not learning.lineage.founder:
            return
        core, checkpoints = learning.runner.core, self._parts.checkpoints
        if core.lineage.age == self._saved_age:
            return
        age = core.lineage.age
        try:
            self.saved_s = await learning.runner.run(
                lambda: checkpoints.save(
                    core.replica.saved, learning.layout, core.lineage, learning.step
                )
            )
        except OperatorError as error:
            if self.fault is None:
                log.error("%s", error)
            self.fault = error
        else:
            self._saved_age, self.fault = age, None
            self._parts.metrics.checkpointed(self.saved_s)

    async def close(self) -> None:
        """Save once more and stop."""
        if self._welcome is not None:
            self._welcome.cancel()
            await asyncio.gather(self._welcome, return_exceptions=True)
        if self.learning is not None:
            await self.learning.close()
            await self.save()
            self.learning.runner.close()
        self._parts.handout.clear()

    # --- inside ----------------------------------------------------------------------------------

    async def _house(self, layout: Layout) -> None:
        """Have a Learning for ``layout``, from memory or from a checkpoint."""
        old = self.learning
        if old is not None and old.layout.digest == layout.digest:
            return
        parts = self._parts
        core = Core(parts.me, parts.config, layout, SystemRandom())
        if old is not None:
            await old.close()
            await self.save()
            old.runner.close()
        self._saved_age = -1
        parts.handout.clear()
        runner = CoreRunner(core, lambda outcomes: learning.mixed(outcomes))
        scope = Scope(parts.swarm, layout.digest)
        conversation = Conversation(runner, parts.sealer, scope, parts.neighbours)
        learning = Learning(
            layout, conversation, parts.neighbours, parts.events, parts.metrics
        )
        checkpoint = await runner.run(lambda: parts.checkpoints.newest(layout))
        if checkpoint is not None:
            await runner.run(lambda: core.restore(checkpoint.saved, checkpoint.lineage))
            learning.step, self.saved_s = checkpoint.step, checkpoint.time_s
            parts.events.emit("train.restored", step=checkpoint.step, age=checkpoint.lineage.age)
        self.learning = learning

    async def _admit(self, attachment: Attachment, learning: Learning) -> None:
        """Find the weights the learner starts from, and let it train."""
        core, run = learning.runner.core, learning.runner.run_idle
        resumed, mine = attachment.resumed, core.lineage
        if resumed is not None and resumed.founder and mine.founder in (b"", resumed.founder):
            # The node restarted under a learner that trained on: its vector is the newer one.
            lineage = resumed if resumed.age >= mine.age else mine
            await run(lambda: core.begin(attachment.snapshot, lineage))
        while not core.lineage.founder or self._elders(learning):
            if await self._copy(learning):
                break
            if not core.lineage.founder and self._may_found(learning):
                founded = Lineage(_founder(self._parts.me, attachment.snapshot))
                await run(functools.partial(core.begin, attachment.snapshot, founded))
                self._parts.events.emit("train.founded", founder=founded.founder.hex()[:16])
                break
            await asyncio.sleep(_NEWS_S)
        self._waiting = None
        attachment.lineage = core.lineage

        def hand_over() -> bool:
            core.replica.learner_has(core.replica.x)
            same = np.array_equal(core.replica.x, attachment.snapshot)
            if not same:
                np.copyto(attachment.increment, core.replica.x)
            return not same

        replace = await run(hand_over)
        await attachment.start(replace)
        learning.train(attachment)
        self._parts.neighbours.tell()
        self._parts.events.emit("train.started", age=core.lineage.age)

    def _may_found(self, learning: Learning) -> bool:
        """Whether nobody else has weights, or will: of those who wait, the least id founds."""
        neighbours = self._parts.neighbours
        rivals = neighbours.waiting(learning.layout.digest)
        return neighbours.looked_around() and all(self._parts.me < rival for rival in rivals)

    def _elders(self, learning: Learning) -> Sequence[PeerId]:
        return self._parts.neighbours.elders(learning.layout.digest, learning.lineage)

    async def _copy(self, learning: Learning) -> bool:
        """Take over the model of the first elder that can give it; whether one could."""
        for peer in self._elders(learning):
            try:
                vector, offer = await self._fetch(peer, learning)
            except (RemoteError, Unreachable) as error:
                if isinstance(error, RemoteError):
                    self._parts.neighbours.rejected(peer, error)
                self._parts.events.emit("train.copy_failed", peer=peer.short, why=str(error))
                continue
            if not lineages.should_copy(learning.lineage, offer.lineage):
                continue
            begin = functools.partial(learning.runner.core.begin, vector, offer.lineage)
            await learning.runner.run_idle(begin)
            learning.step = max(learning.step, offer.step)
            self._parts.events.emit("train.copied", peer=peer.short, age=offer.lineage.age)
            return True
        return False

    async def _fetch(self, peer: PeerId, learning: Learning) -> tuple[Floats, StateOffer]:
        """Raises Unreachable or RemoteError."""
        offer = await self._parts.neighbours.state_offer(peer)
        if offer.length != 4 * learning.layout.size:
            raise Malformed(f"a state of {offer.length} bytes, not {4 * learning.layout.size}")
        buffer = bytearray(offer.length)
        await self._parts.neighbours.fetch_state(peer, offer, memoryview(buffer))
        vector = np.frombuffer(buffer, "<f4")
        if not await learning.runner.run(lambda: mixing.finite(vector)):
            raise Malformed("the state holds a value that is not finite")
        return vector, offer

    async def _mind_lineage(self) -> None:
        """Two flocks that trained apart have met, or this node was long away: copy, if we yield."""
        learning = self.learning
        if learning is None or self._waiting is not None or not learning.lineage.founder:
            return
        if learning.phase in (Phase.TRAINING, Phase.PAUSED) and await self._copy(learning):
            learning.adopted()

    async def _give_up_exchange(self) -> None:
        learning = self.learning
        if learning is not None and learning.runner.core.deadline() <= time.monotonic():
            core = learning.runner.core
            await learning.runner.run(lambda: core.tick(time.monotonic()))

    def peer_died(self, peer: PeerId) -> None:
        """Let go of an exchange with a peer that is dead."""
        if self.learning is not None:
            core = self.learning.runner.core
            self.learning.runner.post(lambda: core.failed(peer, "dead", "the peer is dead"))


def _founder(me: PeerId, vector: Floats) -> bytes:
    """Names a lineage by who founded it and with what."""
    return hashlib.sha256(me.key + hashlib.sha256(vector.data).digest()).digest()


def _report_bug(task: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        if task.exception() is not None:
            log.critical("a learner could not be admitted", exc_info=task.exception())
