"""Where a model lives in the daemon: attaching learners, keeping state, what peers ask of it."""

import asyncio
import logging
import time
from dataclasses import dataclass
from random import SystemRandom

from covey.gossip import algorithms, mixing
from covey.gossip.config import Config, OuterStep
from covey.node.checkpoints import Checkpoints
from covey.node.conversation import Conversation
from covey.node.events import EventLog
from covey.node.faults import OperatorError
from covey.node.handout import Handout
from covey.node.learner_link import Attachment
from covey.node.learning import Learning
from covey.node.letters import Letters
from covey.node.metrics import Metrics
from covey.node.runner import CoreRunner, Takes, apart
from covey.node.settings import Settings
from covey.node.tasks import OnBug, Tasks
from covey.node.throttle import Limits
from covey.node.welcome import Neighbours, Welcome
from covey.protocols.envelope import Scope, Sealer
from covey.protocols.errors import Stale
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import ExchangeMessage, Lineage, Phase, StateOffer

log = logging.getLogger(__name__)

_TICK_S = 0.25  # how late an exchange whose proposer went silent is given up


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
    on_bug: OnBug
    bandwidth: Limits


class Host:
    """Implements the learner link's handler, and what peers ask of the model."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.learning: Learning | None = None
        self.saved_s: float | None = None  # of the last checkpoint, epoch
        self.fault: OperatorError | None = None  # the last checkpoint's, until one succeeds
        self._welcome: Welcome | None = None
        self._admission: asyncio.Task[None] | None = None
        self._tasks = Tasks(parts.on_bug)  # of this model
        self._saving = asyncio.Lock()
        self._saved_moves = 0

    # --- the learner link ------------------------------------------------------------------------

    async def attached(self, attachment: Attachment) -> None:
        with self._tasks.watching():
            learning = await self._house(attachment.layout)
            learning.phase = Phase.JOINING
            self._parts.events.emit("train.attached", name=attachment.name, pid=attachment.pid)
            self._parts.neighbours.tell()
            if not await learning.runner.run(lambda: mixing.finite(attachment.snapshot)):
                await attachment.refuse("the model holds values that are not finite")
                return
            assert self._welcome is not None
            self._admission = self._tasks.spawn(self._welcome.admit(attachment))

    async def snapshot(self, attachment: Attachment, applied: int) -> None:
        if self.learning is not None:
            with self._tasks.watching():
                self.learning.snapshot(attachment, applied)

    async def applied(self, attachment: Attachment, sequence: int) -> None:
        if self.learning is not None:
            with self._tasks.watching():
                await self.learning.applied(attachment)

    async def logged(self, attachment: Attachment, values: dict[str, float]) -> None:
        if self.learning is not None:
            self.learning.tally.note_values(values)

    async def settle(self, attachment: Attachment) -> None:
        if self.learning is not None:
            with self._tasks.watching():
                self.learning.settle(attachment)

    async def detached(self, attachment: Attachment, clean: bool) -> None:
        with self._tasks.watching():
            if self._admission is not None:
                self._admission.cancel()
                await asyncio.wait([self._admission])
                self._admission = None
            if self.learning is not None:
                self.learning.gone(clean)
                self._tasks.spawn(self.save())  # whoever leaves need not wait for the disk
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

    async def answer(self, peer: PeerId, letters: Letters, message: ExchangeMessage) -> None:
        """Take a message of an exchange and post the answer.  Raises RemoteError."""
        if self.learning is None:
            raise Stale("no model is trained here")
        await self.learning.conversation.answer(letters, peer, message)

    def hung_up(self, peer: PeerId) -> None:
        """The line on which ``peer`` spoke of an exchange last is gone: its next will not come."""
        if self.learning is not None and self.learning.runner.core.awaited == peer:
            self.peer_silent(peer)

    async def state(self) -> StateOffer | None:
        """A copy of the model for a joiner; None while there is none to give."""
        learning, handout = self.learning, self._parts.handout
        if learning is None or learning.runner.closed or not learning.lineage.founder:
            return None
        core = learning.runner.core

        def offer() -> StateOffer:
            fresh = handout.fresh(core.lineage)
            return fresh or handout.write(core.replica.x, core.lineage, learning.step)

        try:
            return await learning.runner.run(offer, Takes.LONG)
        except OperatorError as error:
            self._note_fault(error)
            return None

    def peer_silent(self, peer: PeerId) -> None:
        """Let go of an exchange with a peer that has gone silent: others may want one."""
        if self.learning is not None:
            core = self.learning.runner.core
            self.learning.runner.post(lambda: core.failed(peer, "silent", "the peer is silent"))

    # --- keeping state ---------------------------------------------------------------------------

    async def save(self) -> None:
        """Write a checkpoint if the model moved.  A fault is kept for status, and logged once."""
        async with self._saving:
            learning = self.learning
            if learning is None or not learning.lineage.founder:
                return
            moves = learning.moves
            if moves == self._saved_moves:
                return
            core, checkpoints = learning.runner.core, self._parts.checkpoints
            try:
                self.saved_s = await learning.runner.run(
                    lambda: checkpoints.save(
                        core.replica.saved, learning.layout, core.lineage, learning.step
                    ),
                    Takes.LONG,
                )
            except OperatorError as error:
                self._note_fault(error)
            else:
                self._saved_moves, self.fault = moves, None
                self._parts.metrics.checkpointed(self.saved_s)

    async def close(self) -> None:
        """Save once more and stop."""
        await self._put_away()
        await asyncio.to_thread(self._parts.handout.clear)

    # --- inside ----------------------------------------------------------------------------------

    async def _house(self, layout: Layout) -> Learning:
        """Have a Learning for ``layout``, from memory or from a checkpoint."""
        if self.learning is not None and self.learning.layout.digest == layout.digest:
            return self.learning
        await self._put_away()
        parts = self._parts
        await asyncio.to_thread(parts.handout.clear)
        core = algorithms.create(parts.me, parts.config, layout, SystemRandom())
        runner = CoreRunner(
            core, lambda outcomes: learning.mixed(outcomes), parts.on_bug, apart(core)
        )
        scope = Scope(parts.swarm, layout.digest)
        conversation = Conversation(runner, parts.sealer, scope, parts.neighbours, parts.bandwidth)
        learning = Learning(
            layout, conversation, parts.neighbours, parts.events, parts.metrics, parts.on_bug
        )
        checkpoint = await runner.run(lambda: parts.checkpoints.newest(layout), Takes.LONG)
        if checkpoint is not None:
            await runner.run(lambda: core.restore(checkpoint.saved, checkpoint.lineage))
            learning.step, self.saved_s = checkpoint.step, checkpoint.time_s
            parts.events.emit("train.restored", step=checkpoint.step, age=checkpoint.lineage.age)
        self.learning, self._saved_moves = learning, learning.moves
        self._welcome = Welcome(parts.me, learning, parts.neighbours, parts.events)
        self._tasks = Tasks(parts.on_bug)
        for chore in (self._welcome.mind(), self._give_up_exchanges(learning), self._save_often()):
            self._tasks.spawn(chore)
        return learning

    async def _put_away(self) -> None:
        """Save the model that was here and stop its tasks and its thread."""
        async with self._saving:  # what is being written need not be written twice
            await self._tasks.close()
        if self.learning is not None:
            await self.learning.close()
            await self.save()
            learning, self.learning = self.learning, None
            await learning.runner.close()

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(self._parts.checkpoint_every_s)
            await self.save()

    async def _give_up_exchanges(self, learning: Learning) -> None:
        core = learning.runner.core
        while True:
            await asyncio.sleep(_TICK_S)
            if core.deadline() <= time.monotonic():
                await learning.runner.run(lambda: core.tick(time.monotonic()))

    def _note_fault(self, error: OperatorError) -> None:
        if self.fault is None:
            log.error("%s", error)
        self.fault = error


def learning_config(settings: Settings) -> Config:
    """The algorithm's part of the settings.  Raises OperatorError for one that would diverge."""
    try:
        outer = OuterStep(settings.outer_momentum, settings.outer_rate)
        return Config(
            algorithm=settings.algorithm,
            codec=settings.codec,
            exchanges=settings.exchanges,
            pulls=settings.pulls,
            hostile_share=settings.hostile_share,
            outer=outer,
        )
    except ValueError as error:
        raise OperatorError(str(error), "correct outer_momentum or outer_rate") from error
