"""One node's learning, deciding and computing: the object that the daemon and the simulator drive.

Message in, at most one answer out: ``receive`` returns what goes back to the sender.  A node is in
one exchange at a time; x is held still meanwhile, so progress waits until ``busy`` is False.  The
caller brings the time and the randomness, and calls from one thread at a time:

    core.progress(...)                       the learner's snapshot
    core.open_period(); while core.due:      the exchanges that follow it at once
        out = core.propose(candidates, now)  None while busy, or when nobody is left to ask
        ... send out, feed each answer to core.receive(), or core.failed() ...
    core.close_period(...)                   outer step
    core.increment(...)                      hand the difference to the learner
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random

from covey.gossip import lineage as lineages
from covey.gossip.codecs import Buffer
from covey.gossip.config import Config
from covey.gossip.exchange import Accepter, Exchange, Proposer, Side, State
from covey.gossip.mixing import norm
from covey.gossip.quantiser import Floats, own_scales
from covey.gossip.replica import Replica, Saved
from covey.gossip.sampling import Cycle
from covey.gossip.screening import Screen
from covey.protocols.errors import RemoteError, Stale, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import (
    Accept,
    Busy,
    Commit,
    ExchangeMessage,
    Lineage,
    More,
    Propose,
    Refuse,
    Settled,
)

_FIRST_PATIENCE_S = 10.0  # for the first Commit, before any has been timed
_LEAST_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for ``peer`` and its payload."""

    peer: PeerId
    message: ExchangeMessage
    payload: Buffer = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an exchange ended.  ``reason`` is empty if it moved the vector."""

    peer: PeerId
    reason: str = ""
    detail: str = ""
    distance: float = 0.0  # Euclidean, parameters only
    factor: float = 0.0
    proposed: bool = False  # by this node


class Core:
    """One node's replica and its exchanges."""

    def __init__(self, me: PeerId, config: Config, layout: Layout, rng: Random) -> None:
        self.me = me
        self.config = config
        self.replica = Replica(layout)
        self.lineage = Lineage()
        self.accepting = False  # whether proposals are answered at all
        self._layout = layout
        self._rng = rng
        self._screen = Screen(config.screening)
        self._cycle = Cycle(rng)
        self._open: Exchange | None = None
        self._deadline = float("inf")
        self._opened_at = 0.0
        self._patience_s = _FIRST_PATIENCE_S
        self._due = self._attempts = 0
        self._asked: set[PeerId] = set()
        self._outcomes: list[Outcome] = []
        self._norm = 0.0

    # --- the model -------------------------------------------------------------------------------

    def begin(self, vector: Floats, lineage: Lineage) -> None:
        """Take ``vector`` as the model: founded here, or copied from a peer."""
        self._release()
        self.replica.restart(vector)
        self.lineage = lineage
        self._screen = Screen(self.config.screening)

    def restore(self, saved: Saved, lineage: Lineage) -> None:
        """Go on from a checkpoint."""
        self._release()
        self.replica.restore(saved)
        self.lineage = lineage

    def progress(self, snapshot: Floats, applied: bool) -> bool:
        """Add the learner's progress; False if it was not finite and nothing changed."""
        assert not self.busy, "x is held while an exchange is open"
        return self.replica.progress(snapshot, applied)

    def close_period(self, alone: bool) -> None:
        """The outer step; ``alone`` if there was nobody to learn with, not if somebody failed."""
        assert not self.busy, "x is held while an exchange is open"
        self._due = 0
        if alone:
            self.replica.rest()
        else:
            self.replica.outer_step(self.config.outer)
        self.lineage = Lineage(self.lineage.founder, self.lineage.age + 1)
        self._norm = norm(self.replica.x[: self.replica.parameters])

    def heard(self, theirs: Lineage) -> None:
        """A peer told its lineage: nodes of one flock count its age alike."""
        if lineages.mixable(self.lineage, theirs):
            self.lineage = lineages.eldest(self.lineage, theirs)

    def relative(self, distance: float) -> float:
        """A distance in units of the parameters' own length."""
        return distance / self._norm if self._norm else 0.0

    # --- exchanges -------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return self._open is not None

    @property
    def due(self) -> int:
        """Exchanges still to propose in this period."""
        return self._due

    def outcomes(self) -> list[Outcome]:
        """How exchanges ended since the last call."""
        ended, self._outcomes = self._outcomes, []
        return ended

    def open_period(self, exchanges: int | None = None) -> None:
        """Plan this period's exchanges (default: as configured)."""
        self._due = self.config.exchanges if exchanges is None else exchanges
        self._renew()

    def propose(self, candidates: Sequence[PeerId], now: float) -> Outgoing | None:
        """Ask the next peer.  None while busy; None and ``due`` 0 when there is nobody to ask."""
        if self.busy or not self._due:
            return None
        peer = self._cycle.next(candidates, self._asked) if self._attempts else None
        if peer is None:
            self._due = 0
            return None
        self._attempts -= 1
        exchange = self._rng.randbytes(16)
        bounds = self._screen.bounds()
        opened = Proposer(peer, exchange, self._side(), bounds, self.config.codec)
        self._hold(opened, now, float("inf"))  # the caller's request has its own deadline
        message, payload = opened.propose(self.lineage)
        return Outgoing(peer, message, payload)

    def receive(
        self, sender: PeerId, message: ExchangeMessage, payload: Buffer, now: float
    ) -> Outgoing | None:
        """Take an authenticated message whose payload matched its hash; the answer, if any.

        Raises RemoteError if the message is at fault; its exchange is then over.
        """
        if isinstance(message, Propose):
            return self._proposed(sender, message, payload, now)
        opened = self._open
        if opened is None or (opened.peer, opened.exchange) != (sender, message.exchange):
            if isinstance(message, Commit):
                raise Stale("the exchange is over")
            return None  # an answer to an exchange we gave up
        try:
            return self._advance(opened, message, payload, now)
        except RemoteError as error:
            self._end(opened, Outcome(sender, error.reason, str(error)))
            raise

    def failed(self, peer: PeerId, reason: str, detail: str = "") -> None:
        """The conversation with ``peer`` broke: no answer, or it is dead."""
        if self._open is not None and self._open.peer == peer:
            self._end(self._open, Outcome(peer, reason, detail))

    def tick(self, now: float) -> None:
        """Give up an exchange whose proposer went silent."""
        if self._open is not None and now >= self._deadline:
            detail = f"no commit within {self._patience_s:.1f} s"
            self._end(self._open, Outcome(self._open.peer, "silent", detail))
            self._patience_s = min(2 * self._patience_s, 60.0)

    def deadline(self) -> float:
        """When ``tick`` is due; infinite when nothing is waited for."""
        return self._deadline

    # --- inside ----------------------------------------------------------------------------------

    def _proposed(self, sender: PeerId, propose: Propose, payload: Buffer, now: float) -> Outgoing:
        self.tick(now)
        if not self.accepting:
            return Outgoing(
                sender, Refuse(propose.exchange, "not_ready", "no model is trained here")
            )
        if not lineages.mixable(self.lineage, propose.lineage):
            refusal = Refuse(propose.exchange, "lineage", "other initial weights, or far behind")
            return Outgoing(sender, refusal)
        if self._crossing(sender):
            self._open = None  # the smaller id's proposal stands; ours to it is answered Busy
            self._due -= 1
        if self.busy:
            return Outgoing(sender, Busy(propose.exchange))
        opened = Accepter(sender, propose.exchange, self._side(), self._screen.bounds())
        try:
            message, answer = opened.accept(propose, payload, self._rng.randbytes(16))
        except Unsupported as error:
            return Outgoing(sender, Refuse(propose.exchange, "codec", str(error)))
        self._hold(opened, now, now + self._patience_s)
        self.heard(propose.lineage)
        return Outgoing(sender, message, answer)

    def _crossing(self, sender: PeerId) -> bool:
        """Whether we proposed to ``sender`` at the same time and its proposal stands."""
        opened = self._open
        proposed = isinstance(opened, Proposer) and opened.state is State.PROPOSED
        return proposed and opened is not None and opened.peer == sender and sender < self.me

    def _advance(
        self, opened: Exchange, message: ExchangeMessage, payload: Buffer, now: float
    ) -> Outgoing | None:
        most = self.config.screening.undecoded_share
        if isinstance(message, Busy | Refuse) and isinstance(opened, Proposer):
            reason = message.reason if isinstance(message, Refuse) else "busy"
            detail = message.detail if isinstance(message, Refuse) else ""
            self._end(opened, Outcome(opened.peer, reason, detail, proposed=True))
            return None
        if not opened.expects(message):
            raise Unsupported(f"{type(message).__name__} while {opened.state.name}")
        if isinstance(opened, Proposer):
            if isinstance(message, Accept):
                return Outgoing(opened.peer, *opened.accepted(message, payload))
            if isinstance(message, More):
                return Outgoing(opened.peer, *opened.more(payload))
            assert isinstance(message, Settled)
            opened.settled(message, payload, most, self.replica.x)
            self._mixed(opened)
            return None
        assert isinstance(opened, Accepter)
        answer, codes = opened.commit(payload, most, self.replica.x)
        self._patience_s = max(_LEAST_PATIENCE_S, 4 * (now - self._opened_at))
        if opened.state is State.DONE:
            self._mixed(opened)
        else:
            self._hold(opened, now, now + self._patience_s)
        return Outgoing(opened.peer, answer, codes)

    def _mixed(self, opened: Proposer | Accepter) -> None:
        """Keep what the exchange taught us and let go of it."""
        largest = opened.coder.largest()
        if largest is not None:
            self.replica.remember(largest)
        self._screen.note(opened.distance)
        proposed = isinstance(opened, Proposer)
        reason = "" if opened.factor else "implausible"
        detail = "" if opened.factor else f"{opened.distance:.3g} away, far beyond recent peers"
        outcome = Outcome(
            opened.peer, reason, detail, opened.distance, opened.factor, proposed=proposed
        )
        if proposed:
            self._due -= 1
            self._renew()
        self._end(opened, outcome)

    def _end(self, opened: Exchange, outcome: Outcome) -> None:
        if outcome.reason and isinstance(opened, Proposer):
            self._asked.add(opened.peer)
        self._outcomes.append(outcome)
        self._release()

    def _side(self) -> Side:
        replica = self.replica
        parameters = replica.x[: replica.parameters]
        scales = own_scales(parameters, replica.movement(), replica.typical())
        return Side(replica.x, replica.parameters, scales)

    def _hold(self, opened: Exchange, now: float, deadline: float) -> None:
        self._open, self._opened_at, self._deadline = opened, now, deadline

    def _release(self) -> None:
        self._open, self._deadline = None, float("inf")

    def _renew(self) -> None:
        self._asked.clear()
        self._attempts = self.config.attempts


def candidates_of(mine: Lineage, standings: Collection[tuple[PeerId, Lineage]]) -> list[PeerId]:
    """The peers this node may average with, smallest id first."""
    return sorted(peer for peer, theirs in standings if lineages.mixable(mine, theirs))
