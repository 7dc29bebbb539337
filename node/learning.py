"""The learner's side of the daemon: snapshots in, periods of exchanges, increments out.

One learner at a time.  Its snapshots drive the periods; between them the node answers its peers'
proposals at any time, also while the learner is slow or gone.  What moves vectors is called
through the core's runner; here is only the order of things.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from covey.gossip.core import Outcome
from covey.gossip.verdict import Verdict
from covey.node.conversation import Conversation, Courier
from covey.node.events import EventLog
from covey.node.learner_link import Attachment
from covey.node.metrics import Metrics
from covey.node.runner import Takes
from covey.node.tally import Tally
from covey.node.tasks import OnBug, Tasks
from covey.node.unreachable import Kind
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.link import SettledReport
from covey.protocols.messages import Lineage, Phase

_PACE_PER_EXCHANGE = 10.0  # automatic cadence: exchanges take at most a tenth of the time
_PACE_LEAST_S = 0.5
_PACE_MOST_S = 30.0
_BUSY_WAIT_S = 0.02  # before asking a peer again that was busy, at least
_BUSY_SHARES = (1 / 16, 1 / 4, 1)  # of an exchange's time, after so many asked in vain
_NEWS = 0.25  # of the smoothed time of an exchange, that is the latest one's
_SETTLE_S = 10.0
_SETTLE_GAP_S = 0.15  # between settling exchanges while peers still train
# Until a peer is asked again that was not ready (its standing comes sooner), that let us wait (x is
# held meanwhile, and by then its probes have told whether it is there), or that learns another way.
_REST_S = {"not_ready": 1.0, str(Kind.TIMEOUT): 4.0, "algorithm": 30.0}
_APPLY_S = 3.0  # how long settling waits for the learner to apply an increment


def pace_s(spent_s: float) -> float:
    """The period that suits exchanges which take ``spent_s`` of it; both in seconds."""
    return min(max(spent_s * _PACE_PER_EXCHANGE, _PACE_LEAST_S), _PACE_MOST_S)


class Flock(Courier, Protocol):
    """What learning needs of the neighbourhood (neighbours.py)."""

    def partners(self, layout: bytes, lineage: Lineage) -> Sequence[PeerId]:
        """Alive peers that this node may average with."""

    def anybody_training(self, layout: bytes) -> bool:
        """Whether a peer with this layout still trains."""

    def tell(self) -> None:
        """This node's standing has changed: let the peers know now, not at the next probe."""


class Learning:
    """The model of one layout and the learner that is attached to it."""

    def __init__(
        self,
        layout: Layout,
        conversation: Conversation,
        flock: Flock,
        events: EventLog,
        metrics: Metrics,
        on_bug: OnBug,
    ) -> None:
        self.layout = layout
        self.tally = Tally()
        self.phase = Phase.IDLE
        self.step = 0
        self.reason = ""
        self.conversation = conversation
        self.runner = conversation.runner
        self._core = conversation.runner.core
        self._flock = flock
        self._events = events
        self._metrics = metrics
        self._attachment: Attachment | None = None
        self._waiting: int | None = None  # a snapshot waits, with so many increments applied
        self._arrived = asyncio.Event()  # set while one waits and its period has not begun
        self._between = asyncio.Event()  # set while no period is under way
        self._applied = asyncio.Event()  # set while the learner has applied all increments
        self._applied_later = False
        self._met = asyncio.Event()  # set when an exchange has moved x
        self._handing = asyncio.Lock()  # from the difference until it is published
        self._lent = False  # the snapshot is in use until its period is closed
        self._prepared = 0  # increments made for this learner; counted by the core's calls
        self._moved = False  # x has moved since the last increment
        self._opened = 0, 0  # exchanges made when the last two periods were opened
        self.moves = 0  # of x, ever: whether there is something to save
        self._verdict = Verdict()
        self._exchange_s = 0.0  # that one takes, smoothed
        self._unready: dict[PeerId, float] = {}  # until when a peer is not asked
        self._tasks = Tasks(on_bug)
        self._timed = (time.monotonic(), 0)

    # --- the learner -----------------------------------------------------------------------------

    @property
    def attachment(self) -> Attachment | None:
        return self._attachment

    @property
    def lineage(self) -> Lineage:
        return self._core.lineage

    async def train(self, attachment: Attachment, replace: bool) -> None:
        """Start the learner, which has x or (``replace``) is given it: its snapshots drive us then.

        x may have moved since the learner was given it, but only the replica knows by how much.
        """
        self._attachment = attachment
        self._prepared = 0
        self._opened = self.tally.exchanges, self.tally.exchanges
        self._note_move()
        if replace:
            self._applied.clear()
        else:
            self._applied.set()
        self.phase, self.reason = Phase.TRAINING, ""
        self._core.accepting, self._core.settling = True, False
        attachment.lineage = self._core.lineage
        await attachment.start(replace)
        self._tasks.spawn(self._periods(attachment))

    def snapshot(self, attachment: Attachment, applied: int) -> None:
        """A snapshot waits; it is taken when no exchange is open."""
        self.step = attachment.step
        self._time_steps()
        self._waiting = applied
        self._between.clear()
        self._arrived.set()

    async def applied(self, attachment: Attachment) -> None:
        """The learner has added the increment that was outstanding."""
        if self._waiting is not None:
            self._applied_later = True  # the waiting snapshot was taken before
            return
        await self.runner.run(self._core.replica.applied)
        self._applied.set()
        self._tasks.spawn(self._hand_over(attachment))  # which may wait for an exchange's end

    def settle(self, attachment: Attachment) -> None:
        """Training is over: exchange until the flock agrees, then tell the learner."""
        self.phase = Phase.SETTLING
        self._core.settling = True
        self._flock.tell()
        self._tasks.spawn(self._settle(attachment))

    def gone(self, clean: bool) -> None:
        """The learner has left, or (not ``clean``) crashed: then the node keeps its place."""
        self._tasks.cancel()
        self._attachment = None
        self._waiting = None
        self._arrived.clear()
        self._between.clear()
        self._applied_later = False
        holds = not clean and bool(self._core.lineage.founder)
        self.phase = Phase.PAUSED if holds else Phase.IDLE
        self.reason = "the learner stopped without a goodbye" if holds else ""
        self._core.accepting, self._core.settling = holds, False
        self._flock.tell()

    def mixed(self, outcomes: list[Outcome]) -> None:
        """Exchanges have ended: count them, and pass on what they moved."""
        for outcome in outcomes:
            self.tally.count(outcome, self._core.relative(outcome.distance), self._events)
            if not outcome.reason:
                self._met.set()
            self._verdict.note(outcome, self._core.settling)
            if outcome.reason in _REST_S:
                self._unready[outcome.peer] = time.monotonic() + _REST_S[outcome.reason]
            if outcome.reason != "busy":  # refused parameters may come with accepted buffers
                self._note_move()
        if self._between.is_set():  # else the period's end hands over
            self._pass_on()

    def left_behind_by(self) -> Sequence[PeerId]:
        """Partners that keep refusing us, when they are so many that we must copy from one."""
        partners = self._flock.partners(self.layout.digest, self._core.lineage)
        return self._verdict.against(partners)

    def adopted(self) -> None:
        """The model was replaced by a peer's, perhaps while the learner trains on."""
        self._verdict.clear()
        self._note_move()
        self._pass_on()

    async def close(self) -> None:
        await self._tasks.close()

    # --- periods ---------------------------------------------------------------------------------

    async def _periods(self, attachment: Attachment) -> None:
        """One period per snapshot, for as long as this learner is attached."""
        while self._attachment is attachment:
            if self._waiting is None:
                self._between.set()
                self._pass_on()
            await self._arrived.wait()
            self._arrived.clear()
            await self._take(attachment)
            started = time.monotonic()
            partners = len(self._flock.partners(self.layout.digest, self._core.lineage))
            self._opened = self._opened[1], self.tally.exchanges
            await self._exchange()
            await self._close(attachment, partners)
            self.tally.outer_steps += bool(partners)
            self.tally.missed += bool(partners) and self.tally.exchanges == self._opened[0]
            await attachment.pace(pace_s(time.monotonic() - started))

    async def _take(self, attachment: Attachment) -> None:
        """x takes the snapshot's progress in, and mostly the snapshot itself, until ``_close``."""
        applied = self._waiting
        assert applied is not None

        def take() -> bool:
            self._core.progress(attachment.snapshot, applied >= self._prepared, lent=True)
            self._core.open_period()
            return self._core.replica.lent

        takes = Takes.MOMENT if self._core.at_hand else Takes.PASS
        self._lent = await self.runner.run_idle(take, takes)
        self._waiting = None
        if self._applied_later:
            self._applied_later = False
            await self.applied(attachment)
        if not self._lent:
            await attachment.consumed()
        self.moves += 1

    async def _close(self, attachment: Attachment, partners: int) -> None:
        """The outer step; what it moved goes to the learner at once, if it can take it."""
        async with self._handing:
            free = self._applied.is_set() and not attachment.closed
            out = attachment.increment if free else None

            def close() -> bool:
                made = self._core.close_period(partners, out)
                self._prepared += made
                return made

            self._moved = False  # an exchange may move x again before we hear that it is closed
            made = await self.runner.run_idle(close, Takes.MOMENT)
            self.moves += 1
            self._judge(attachment)
            if made:
                await self._publish(attachment)
                self.runner.post(self._core.get_ready)
            else:
                self._moved = True
            if self._lent:  # after the increment, so that the next snapshot has it
                await attachment.consumed()
        await self._hand_over(attachment)

    def _judge(self, attachment: Attachment) -> None:
        """Tell if the snapshot was of no use, which is known by the end of its period."""
        if self._core.replica.spoiled:
            self._events.emit("train.error", step=attachment.step, why="the model is not finite")
            self.reason = "the learner's parameters are not finite; its progress is not shared"
        else:
            self.reason = ""

    async def _exchange(self) -> None:
        """Propose the exchanges that are due, one after the other."""
        core, in_vain = self._core, 0  # peers in a row that were busy
        while core.due:
            busy, completed = self.tally.busy, self.tally.exchanges
            partners = self._partners()
            took_s = await self.conversation.propose(partners)
            if took_s is None:
                return
            if self.tally.exchanges > completed:
                self._metrics.exchanged(took_s)
                self._exchange_s += _NEWS * (took_s - self._exchange_s)
            in_vain = in_vain + 1 if self.tally.busy > busy else 0
            if in_vain and core.due:
                free = core.askable(partners)
                if in_vain >= core.config.attempts - 1 or not free:
                    await self._stand_back(self._span_s(in_vain))
                elif len(free) > 1 or core.me > min(free):  # else, if both ask, ours is answered
                    await self._stand_back(took_s / 2)

    def _span_s(self, in_vain: int) -> float:
        """For how long to ask nobody, as all are busy, or before the last attempt."""
        share = _BUSY_SHARES[min(in_vain, len(_BUSY_SHARES)) - 1]
        return max(_BUSY_WAIT_S, share * self._exchange_s)

    async def _stand_back(self, span_s: float) -> None:
        """Wait before the next peer is asked, as the last one was busy; or until we are called.

        Uniform in one to two times a span, so that two that collided do not again: for who has yet
        to be asked no longer than the question took, as others may wait as well.
        """
        self._met.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(span_s * (1 + self._core.chance())):
                await self._met.wait()

    def _partners(self) -> Sequence[PeerId]:
        """Whom to ask: not those who have just been found not ready, or silent."""
        found = self._flock.partners(self.layout.digest, self._core.lineage)
        now = time.monotonic()
        return [peer for peer in found if self._unready.get(peer, 0.0) < now]

    def _note_move(self) -> None:
        self._moved = True
        self.moves += 1

    def _pass_on(self) -> None:
        if self._moved and self._attachment is not None:
            self._tasks.spawn(self._hand_over(self._attachment))

    async def _hand_over(self, attachment: Attachment) -> None:
        """Give the learner x minus what it has, if anything moved and it can take it."""

        def difference() -> bool:
            if not self._core.replica.increment(attachment.increment):
                return False
            self._prepared += 1
            return True

        async with self._handing:
            if not self._moved or not self._applied.is_set() or attachment.closed:
                return  # its Applied brings us here again
            self._moved = False
            if await self.runner.run(difference):
                await self._publish(attachment)

    async def _publish(self, attachment: Attachment) -> None:
        """The increment is made."""
        attachment.lineage = self._core.lineage
        self._applied.clear()
        await attachment.publish()

    # --- settling --------------------------------------------------------------------------------

    async def _settle(self, attachment: Attachment) -> None:
        """A few exchanges without training, so that the learner ends with the flock's average."""
        until = time.monotonic() + _SETTLE_S
        await self._between.wait()  # the last snapshot's period
        with suppress(TimeoutError):  # a peer that lets us wait may end it later than we do
            async with asyncio.timeout(_APPLY_S):
                await self.runner.run_idle(self._core.look_back)
                self._note_move()
        before = self.tally.exchanges
        while time.monotonic() < until:
            training = self._flock.anybody_training(self.layout.digest)
            if not self.left_behind_by():  # else a copy is on its way
                partners = self._partners()
                done = self.tally.exchanges - before  # whoever proposed them
                enough = done >= self._core.config.settle_exchanges
                if not partners or (enough if training else self._agrees_with(partners)):
                    break
            await self.runner.run(lambda: self._core.open_period(1))
            await self._exchange()
            # No progress any more: the scales must follow the distance alone, and shrink with it.
            await self.runner.run_idle(self._core.replica.rest)
            await asyncio.sleep(_SETTLE_GAP_S if training else _BUSY_WAIT_S)
        await self._last_increment(attachment)
        tally = self.tally
        apart = max(tally.apart.values(), default=None)
        await attachment.settled(SettledReport(apart, tally.exchanges, len(tally.per_peer)))
        self._events.emit("train.settled", distance=apart, exchanges=tally.exchanges)

    def _agrees_with(self, partners: Sequence[PeerId]) -> bool:
        """Whether each of them was close enough when it was last met."""
        below = self._core.config.settled_below
        return all(self.tally.apart.get(peer, math.inf) < below for peer in partners)

    async def _last_increment(self, attachment: Attachment) -> None:
        """Publish whatever is left; all earlier increments must have been applied first."""
        self._core.accepting = False
        with suppress(TimeoutError):
            async with asyncio.timeout(_APPLY_S):
                await self.runner.run_idle(lambda: None)  # from here on x stands still
        deadline = asyncio.get_running_loop().time() + _APPLY_S
        with suppress(TimeoutError):
            while not attachment.closed and (self._moved or self._handing.locked()):
                async with asyncio.timeout_at(deadline):
                    await self._applied.wait()
                await self._hand_over(attachment)

    # --- counting --------------------------------------------------------------------------------

    def _time_steps(self) -> None:
        now, (then, before) = time.monotonic(), self._timed
        if now > then and self.step > before:
            self.tally.steps_per_s = (self.step - before) / (now - then)
        self._timed = (now, self.step)
