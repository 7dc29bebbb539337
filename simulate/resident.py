"""One node of the flock: its core, its live model, and the order in which the two are moved.

This is what node/learning.py does in the daemon, with calls at virtual times instead of tasks.
"""

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import numpy as np

from covey.gossip.core import Core, Outgoing
from covey.gossip.quantiser import Floats
from covey.gossip.verdict import Verdict
from covey.protocols.errors import RemoteError
from covey.protocols.identity import PeerId
from covey.protocols.messages import ALGORITHM_OF, Busy, Lineage, Propose
from covey.simulate.agenda import Agenda

_BUSY_WAIT_S = 0.02  # before asking the next peer after one was busy, at least
_SETTLE_GAP_S = 0.02
_REST_S = 4.0  # until a peer is asked again that let us wait


class Surroundings(Protocol):
    """What a resident needs of the world."""

    agenda: Agenda

    def partners(self, resident: "Resident") -> Sequence[PeerId]:
        """Whom it believes it may exchange with."""

    def send(self, sender: "Resident", out: Outgoing) -> None:
        """Carry a proposal; the core's ``failed`` or ``answered`` tells how that went."""


class Resident:
    """A node and its learner, whose model is ``vector``."""

    def __init__(
        self, number: int, core: Core, vector: Floats, world: Surroundings, rng: Random
    ) -> None:
        self.number = number
        self.core = core
        self.vector = vector
        self.up = True
        self.settled = True
        self.sent = 0  # bytes
        self.exchanges = 0  # that moved the vector, proposed or answered
        self.reasons: dict[str, int] = {}  # of those that did not
        self._world = world
        self._rng = rng
        self._in_period = False
        self._moved = False
        self._left = self._enough = 0  # attempts at settling, and exchanges in all that are enough
        self._waiting: deque[Callable[[], None]] = deque()  # for an exchange to end
        self._apart: dict[PeerId, float] = {}
        self._unready: dict[PeerId, float] = {}  # until when a peer is not asked
        self.verdict = Verdict()

    @property
    def at_rest(self) -> bool:
        """Whether no period and no exchange is under way."""
        return not (self._in_period or self._waiting or self.core.busy)

    # --- the learner's side ----------------------------------------------------------------------

    def boundary(self) -> None:
        """Between two local steps: take in what came."""
        if not self._moved or self._in_period:
            return
        self._moved = False
        replica = self.core.replica
        difference = np.empty_like(self.vector)
        if replica.increment(difference):
            self.vector += difference
            replica.applied()

    def begin_period(self) -> None:
        """A snapshot: x takes in its progress and the period's exchanges follow."""
        if self.up and not self._in_period:
            self._in_period = True
            self.when_idle(self._progress)

    def finish(self) -> None:
        """Set the model to what the node has: training is over."""
        np.copyto(self.vector, self.core.replica.x)
        self.core.replica.learner_has(self.vector)

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call as soon as no exchange is open."""
        if self.core.busy:
            self._waiting.append(call)
        else:
            call()

    def adopt(self, vector: Floats, lineage: Lineage) -> None:
        """Go on with a peer's model: the learner trains on, or the node settles once more."""
        self.core.begin(vector, lineage)
        self.verdict.clear()
        self._moved = True
        if self.core.settling:
            self.settle()

    def _progress(self) -> None:
        self.core.progress(self.vector, applied=True)
        self._met = len(self._partners())
        self.core.open_period()
        self._ask(self._close)

    def _close(self) -> None:
        self.core.close_period(self._met)
        self._in_period, self._moved = False, True

    # --- exchanges -------------------------------------------------------------------------------

    def settle(self) -> None:
        """Exchange without training, some times (again) or until it agrees with everyone."""
        rounds = self.core.config.settle_exchanges
        self.core.settling = True
        self._apart.clear()
        self._left = rounds
        self._enough = self.exchanges + rounds  # whoever proposes them
        if self.settled:
            self.settled = False
            self.when_idle(self._settle_from)

    def _settle_from(self) -> None:
        self.core.look_back()
        self._settle_on()

    def _settle_on(self) -> None:
        partners = self._partners()
        over = not self._left or self.exchanges >= self._enough
        if over or not partners or self._agrees(partners):
            self.settled = True
            return
        self.core.open_period(1)
        self._ask(self._rested)

    def _rested(self) -> None:
        self.core.replica.rest()
        self._left -= 1
        gap = _SETTLE_GAP_S * (1 + self._rng.random())
        self._later(gap, lambda: self.when_idle(self._settle_on))

    def _partners(self) -> Sequence[PeerId]:
        """Whom to ask: not those who have just let us wait."""
        found = self._world.partners(self)
        if not self._unready:
            return found
        return [peer for peer in found if self._unready.get(peer, 0.0) <= self._now]

    def _agrees(self, partners: Sequence[PeerId]) -> bool:
        below = self.core.config.settled_below
        return all(self._apart.get(peer, np.inf) < below for peer in partners)

    def disguise(self) -> None:
        """Called before each exchange begins: an attacker puts on another vector here."""

    def receive(self, sender: PeerId, out: Outgoing) -> Outgoing:
        """Answer a peer's message.  Raises RemoteError."""
        if self._waiting and isinstance(out.message, Propose):
            return Outgoing(sender, Busy(out.message.exchange))  # our own work must not starve
        if type(out.message) in ALGORITHM_OF and not self.core.busy:
            self.disguise()
        try:
            answer = self.core.receive(sender, out.message, bytes(out.payload), self._now)
        finally:
            self._mixed()
        deadline = self.core.deadline()
        if deadline < np.inf:
            self._world.agenda.at(max(deadline, self._now), self._tick)
        assert answer is not None, f"{type(out.message).__name__} asks for no answer"
        return answer

    def answered(self, answer: Outgoing, then: Callable[[Outgoing | None], None]) -> None:
        """The peer's answer to our message has come; ``then`` takes what is to be said next."""
        reply = None
        try:
            sender = answer.peer
            reply = self.core.receive(sender, answer.message, bytes(answer.payload), self._now)
        except RemoteError as error:
            self.failed(answer.peer, error.reason)
        then(reply)
        self._mixed()

    def failed(self, peer: PeerId, reason: str) -> None:
        """The conversation broke."""
        self.core.failed(peer, reason)
        self._mixed()

    def _ask(self, then: Callable[[], None]) -> None:
        """Propose what is due, one after the other; then go on."""
        if self.core.busy:
            self._waiting.append(lambda: self._ask(then))
            return
        self.disguise()
        out = None
        if self.core.due:
            partners = self._partners() if self.up else ()
            out = self.core.propose(partners, self._now)
        if out is None:
            then()
            return
        self._waiting.append(lambda: self._asked(then))
        self._world.send(self, out)

    def _asked(self, then: Callable[[], None]) -> None:
        wait_s = _BUSY_WAIT_S * (1 + self.core.chance()) if self._was_busy else 0.0
        self._later(wait_s, lambda: self._ask(then))

    def _mixed(self) -> None:
        """Count how exchanges ended; whoever waited for that goes on."""
        for outcome in self.core.outcomes():
            self._was_busy = outcome.reason == "busy"
            self.verdict.note(outcome, self.core.settling)
            if outcome.reason == "timeout":
                self._unready[outcome.peer] = self._now + _REST_S
            if outcome.reason:
                self.reasons[outcome.reason] = self.reasons.get(outcome.reason, 0) + 1
            else:
                self.exchanges += 1
                self._apart[outcome.peer] = self.core.relative(outcome.distance)
            self._moved = self._moved or outcome.reason != "busy"
        if self._waiting and not self.core.busy:
            self._later(0.0, self._wake)

    def _wake(self) -> None:
        if self._waiting and not self.core.busy:
            self._waiting.popleft()()
            if self._waiting and not self.core.busy:  # what was done keeps nobody else waiting
                self._later(0.0, self._wake)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._world.agenda.at(self._now + seconds, call)

    def _tick(self) -> None:
        self.core.tick(self._now)
        self._mixed()

    @property
    def _now(self) -> float:
        return self._world.agenda.now
