"""Relay: one model visits the nodes in turn; whoever has it trains it and hands it over.

Serial collaborative learning, also called cyclic weight transfer (Chang et al. 2018): the holder's
learner adds its progress for one period, then the next node by id takes the model over, exactly, as
float32.  The others' learners train too, but their progress does not count: they are set back to
their copy of the model, and to the model itself as soon as it comes.  A round costs the whole swarm
what one float32 exchange costs each node, and there is no average that skewed data could spoil; but
only one node's work counts at a time, and what was learned first may be forgotten.  Choose it for
few nodes, slow links, and data that is alike.  Nothing defends it against a liar.

    holder  ── Handover(turn, x) ──► next              Taken, or Refuse: the holder asks another
    holder  ── Onward(turn) ───────► who had it before: it need not watch any more

The holder may die, so who handed the model over keeps its copy and watches: if the next one is gone
before it has handed on, or takes too long, it issues the model anew from its copy.  So does a node
that has heard of no model for long, when both are dead.  That may be a mistake, so a model that is
issued anew has a higher generation, and wherever it meets a lower one that is discarded.  No work
is lost by it but that of one visit: a node whose own copy has been trained for longer (the age of a
lineage counts that here) goes on with that one, under the higher generation.  A hand-over without
an answer is repeated under a higher generation too: there are never two models of the same one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from random import Random

from covey.gossip import lineage as lineages
from covey.gossip import mixing
from covey.gossip.codecs import Buffer, floats
from covey.gossip.config import Config
from covey.gossip.core import Core, Outgoing, refusal
from covey.gossip.quantiser import Floats
from covey.protocols import limits
from covey.protocols.errors import RemoteError, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import (
    ExchangeMessage,
    Handover,
    Noted,
    Onward,
    Refuse,
    Taken,
    Turn,
)

_START_S = 15.0  # per rank by id: until a node that has never seen the model issues one
_ABSENT_S = 5.0  # until a peer that cannot be asked counts as gone; one that timed out rests for 4
_WATCH_S = 30.0  # for the next node's visit, before any has been timed
_WAIT_S = 120.0  # for the model to come round, before it did
_STAGGER_S = 5.0  # per rank on top of that, so that not all issue it at once
_TIMES = 4  # what a visit or a round took, before it counts as lost
_FADING = 0.8
_LEAST_S, _MOST_S = 5.0, 600.0
_AWAKE_S = 60.0  # a node that begins no period for so long has no learner and takes no model
_TRIES = 2  # of one peer in one period


class Role(Enum):
    WAITING = auto()  # the model is elsewhere, and others watch it
    HOLDING = auto()
    HANDING = auto()  # its next holder has not answered yet
    WATCHING = auto()  # the next one has it and has not handed it on yet


_NEXT = {
    Role.WAITING: {Role.HOLDING},  # it came, or was issued
    Role.HOLDING: {Role.HOLDING, Role.HANDING},  # one with a higher generation came; offered
    # Refused or failed; taken; the peer knows of a higher generation.
    Role.HANDING: {Role.HOLDING, Role.WATCHING, Role.WAITING},
    Role.WATCHING: {Role.HOLDING, Role.WAITING},  # came or issued; handed on
}


@dataclass(slots=True)
class _Pace:
    """How long something may take, from what it took."""

    seconds: float

    def took(self, seconds: float) -> None:
        self.seconds = min(max(_TIMES * seconds, _FADING * self.seconds, _LEAST_S), _MOST_S)

    def late(self, seconds: float, rank: int = 0) -> bool:
        """Whether it is; then it may take twice as long the next time."""
        if seconds < self.seconds + _STAGGER_S * rank:
            return False
        self.seconds = min(2 * self.seconds, _MOST_S)
        return True


class Relay(Core):
    """A node that has the model, or waits for it."""

    algorithm = "relay"

    def __init__(self, me: PeerId, config: Config, layout: Layout, rng: Random) -> None:
        super().__init__(me, config, layout, rng)
        self.role = Role.WAITING
        self.turn = Turn()  # the last one that this node had
        self._watch, self._wait, self._awake = _Pace(_WATCH_S), _Pace(_WAIT_S), _Pace(_AWAKE_S)
        self._exchange = b""  # of the request whose answer is awaited
        self._asking: PeerId | None = None  # whom
        self._next: PeerId | None = None  # who has the model after us
        self._before: PeerId | None = None  # who had it before us and watches us
        self._tries: dict[PeerId, int] = {}
        self._trained = self._progressed = self._over = False
        self._heard_at: float | None = None  # of the model; or when we began to wait for it
        self._present_at = 0.0  # when the one that we watch was last seen
        self._awake_at = float("-inf")

    @property
    def busy(self) -> bool:
        return self._asking is not None

    def progress(self, snapshot: Floats, applied: bool, lent: bool = False) -> bool:
        """Only the holder's counts, from where its learner has been given the model."""
        assert not self.busy, "x is held while an exchange is open"
        counts = self.role is Role.HOLDING and self.replica.trains_on(applied)
        self._progressed = self.replica.progress(snapshot, applied, counts, lent)
        if counts and self._progressed:
            self._trained = True
            self.lineage = lineages.older(self.lineage)
        return self._progressed

    def open_period(self, exchanges: int | None = None) -> None:
        """Without progress since the last one, as at the end, the model passes on untrained."""
        self._over = self._trained or not self._progressed
        self._progressed = False
        self._due = 1
        self._tries.clear()

    def close_period(self, partners: int, out: Floats | None = None) -> bool:
        """There is no average to step towards, and only training makes the model older."""
        assert not self.busy, "x is held while an exchange is open"
        self._due = 0
        self.replica.rest()
        self._measure()
        return False

    def propose(self, candidates: Sequence[PeerId], now: float) -> Outgoing | None:
        if self.busy or not self._due:
            return None
        if self._awake_at > float("-inf"):
            self._awake.took(now - self._awake_at)
        self._awake_at = now
        self._look(candidates, now)
        out = self._on(candidates) or self._hand(candidates)
        if out is None:
            self._due = 0
        else:
            self._asking, self._exchange = out.peer, out.message.exchange
        return out

    def failed(
        self, peer: PeerId, reason: str, detail: str = "", exchange: bytes | None = None
    ) -> None:
        if self._asking == peer and exchange in (None, self._exchange):
            self._asking = None
            if self.role is Role.HANDING:
                self._issue()  # it may have the model or not
            self._tell(peer, reason, detail, proposed=True)

    def tick(self, now: float) -> None:
        """Nothing: only a node that trains issues the model anew, when its next period comes."""

    def deadline(self) -> float:
        return float("inf")

    # --- the model's way -------------------------------------------------------------------------

    def _look(self, candidates: Sequence[PeerId], now: float) -> None:
        """Issue the model anew if it is lost."""
        rank = sum(peer < self.me for peer in candidates)
        if self._heard_at is None:
            self._heard_at = now
        waited_s = now - self._heard_at
        if self.role is Role.WATCHING:
            if self._next in candidates:
                self._present_at = now
            late, gone = self._watch.late(waited_s), now - self._present_at >= _ABSENT_S
            lost = late or gone
        elif self.role is Role.WAITING:
            never = self.turn == Turn()
            lost = waited_s >= _START_S * rank if never else self._wait.late(waited_s, rank)
        else:
            return
        if lost:
            self._issue()
            self._heard_at, self._before, self._trained, self._over = now, None, False, False

    def _issue(self) -> None:
        """Hold the model under a higher generation than any that we know."""
        number = min(self.turn.number + 1, limits.AGE_MAX)
        self.turn = Turn(number, self._rng.randbytes(16))  # even if we forget that we issued it
        self._become(Role.HOLDING)

    def _hand(self, candidates: Sequence[PeerId]) -> Outgoing | None:
        """The model, to the next by id that can be asked, if its visit here is over."""
        if self.role is not Role.HOLDING or not self._over:
            return None
        if sum(self._tries.values()) >= self.config.attempts:
            return None
        able = [peer for peer in candidates if self._tries.get(peer, 0) < _TRIES]
        peer = min(able, key=lambda peer: (peer <= self.me, peer), default=None)
        if peer is None:
            return None
        self._tries[peer] = self._tries.get(peer, 0) + 1
        self._next = peer
        self._become(Role.HANDING)
        turn = replace(self.turn, hop=self.turn.hop + 1)
        message = Handover(self._rng.randbytes(16), turn, self.lineage)
        return Outgoing(peer, message, self.replica.x.astype("<f4").tobytes())

    def _on(self, candidates: Sequence[PeerId]) -> Outgoing | None:
        """Tell who watched us that we have handed the model on; once."""
        before = self._before
        if self.role is not Role.WATCHING or before is None:
            return None
        self._before = None
        if before not in candidates or before == self._next:
            return None
        turn = replace(self.turn, hop=self.turn.hop + 1)
        return Outgoing(before, Onward(self._rng.randbytes(16), turn))

    # --- messages --------------------------------------------------------------------------------

    def _receive(
        self, sender: PeerId, message: ExchangeMessage, payload: Buffer, now: float
    ) -> Outgoing | None:
        if isinstance(message, Handover):
            return Outgoing(sender, self._offered(sender, message, payload, now))
        if isinstance(message, Onward):
            self._handed_on(sender, message.turn, now)
            return Outgoing(sender, Noted(message.exchange))
        if (self._asking, self._exchange) != (sender, message.exchange):
            return None
        self._asking = None
        try:
            self._answered(sender, message, now)
        except RemoteError as error:
            if self.role is Role.HANDING:
                self._issue()
            self._tell(sender, error.reason, str(error), proposed=True)
            raise
        return None

    def _answered(self, sender: PeerId, message: ExchangeMessage, now: float) -> None:
        handing = self.role is Role.HANDING  # else one with a higher generation came meanwhile
        if isinstance(message, Taken):
            if handing:
                self._become(Role.WATCHING)
                self._heard_at = self._present_at = now
            self._tell(sender, distance=message.distance, proposed=True)
        elif isinstance(message, Refuse):
            if handing:
                outdated = message.reason == "outdated"
                self._become(Role.WAITING if outdated else Role.HOLDING)
                self._tries[sender] = _TRIES
                self._heard_at = now
            self._tell(sender, refusal(message), message.detail, proposed=True)
        elif not isinstance(message, Noted):
            raise Unsupported(f"{type(message).__name__} in answer to a hand-over")

    def _offered(
        self, sender: PeerId, offer: Handover, payload: Buffer, now: float
    ) -> Taken | Refuse:
        turn = offer.turn
        if turn.generation < self.turn.generation:
            return Refuse(offer.exchange, "outdated", "the model was issued anew")
        if turn.generation == self.turn.generation and turn.hop <= self.turn.hop:
            return Taken(offer.exchange, 0.0)  # we had it
        same = offer.lineage.founder == self.lineage.founder  # however far behind we are
        if unwilling := self._unwilling(offer.exchange, self.lineage if same else offer.lineage):
            return unwilling
        if now - self._awake_at > self._awake.seconds:
            return Refuse(offer.exchange, "not_ready", "nobody trains here")
        theirs = floats(payload, len(self.replica.x))
        split = self.replica.parameters
        distance = mixing.norm(theirs[:split], self.replica.x[:split])
        age = offer.lineage.age
        # One that is the same must not take the learner back.
        if age > self.lineage.age or (age == self.lineage.age and distance):
            self.replica.replace(theirs)
            self.lineage = offer.lineage
        if self.turn != Turn() and self._heard_at is not None:
            pace = self._watch if self.role is Role.WATCHING else self._wait
            pace.took(now - self._heard_at)
        self.turn, self._heard_at, self._before = turn, now, sender
        self._trained = self._over = False
        self._become(Role.HOLDING)
        self._tell(sender, distance=distance)
        return Taken(offer.exchange, distance)

    def _handed_on(self, sender: PeerId, turn: Turn, now: float) -> None:
        """The one that we watched has been relieved: another watches the next one."""
        ours = self.role is Role.WATCHING and sender == self._next
        if ours and turn.generation >= self.turn.generation and self._heard_at is not None:
            self._watch.took(now - self._heard_at)
            self._heard_at = now
            self._become(Role.WAITING)

    def _become(self, role: Role) -> None:
        assert role in _NEXT[self.role], f"{role.name} after {self.role.name}"
        self.role = role

    def _release(self) -> None:
        self.role, self.turn = Role.WAITING, Turn()
        self._asking = self._heard_at = self._before = None
        self._trained = self._over = False
