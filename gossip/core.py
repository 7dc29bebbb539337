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

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random

from covey.gossip import lineage as lineages
from covey.gossip.codecs import Buffer, Side
from covey.gossip.config import Config
from covey.gossip.exchange import Accepter, Exchange, Proposer, State
from covey.gossip.mixing import norm
from covey.gossip.patience import Patience
from covey.gossip.quantiser import Floats, own_scales
from covey.gossip.replica import Replica, Saved
from covey.gossip.sampling import Cycle
from covey.gossip.screening import Bounds, Screen
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

_REMEMBERED = 256  # exchanges whose late or repeated proposals are known for what they are
_REFUSALS = ("not_ready", "lineage", "codec", "abandoned")  # the reasons that Refuse may give


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
        self._rng = rng
        self._screens = Screen(config.screening), Screen(config.screening)
        self._cycle = Cycle(rng)
        self._open: Exchange | None = None
        self._deadline = float("inf")
        self._opened_at = 0.0
        self._patience = Patience()
        self._answered: deque[tuple[PeerId, bytes]] = deque(maxlen=_REMEMBERED)
        self._due = self._attempts = 0
        self._asked: set[PeerId] = set()
        self._outcomes: list[Outcome] = []

    # --- the model -------------------------------------------------------------------------------

    def begin(self, vector: Floats, lineage: Lineage) -> None:
        """Take ``vector`` as the model: founded here, or copied from a peer."""
        self.restore(Saved.fresh(vector, self.replica.parameters), lineage)

    def restore(self, saved: Saved, lineage: Lineage) -> None:
        """Go on from a checkpoint."""
        self._release()
        self.replica.restore(saved)
        self.lineage = lineage
        self._screens = Screen(self.config.screening), Screen(self.config.screening)
        self._measure()

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
        self.lineage = lineages.older(self.lineage)
        self._measure()

    def heard(self, theirs: Lineage) -> None:
        """A peer told its lineage: nodes of one flock count its age alike."""
        if lineages.mixable(self.lineage, theirs):
            self.lineage = lineages.eldest(self.lineage, theirs)

    def relative(self, distance: float) -> float:
        """A distance in units of the parameters' own length."""
        length = self._screens[0].scale
        return distance / length if length else 0.0

    # --- exchanges -------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return self._open is not None

    @property
    def due(self) -> int:
        """Exchanges still to propose in this period."""
        return self._due

    def chance(self) -> float:
        """A random number in [0, 1), for waits that keep two nodes from colliding again."""
        return self._rng.random()

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
        for screen in self._screens:
            screen.keep(candidates)
        peer = self._cycle.next(candidates, self._asked) if self._attempts else None
        if peer is None:
            self._due = 0
            return None
        self._attempts -= 1
        exchange = self._rng.randbytes(16)
        opened = Proposer(peer, exchange, self._side(), self._bounds(), self.config.codec)
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
            if isinstance(message, Accept):  # of a proposal we dropped: free the sender at once
                return Outgoing(sender, Refuse(message.exchange, "abandoned"))
            return None
        try:
            return self._advance(opened, message, payload, now)
        except RemoteError as error:
            self._end(opened, error.reason, str(error))
            raise

    def failed(
        self, peer: PeerId, reason: str, detail: str = "", exchange: bytes | None = None
    ) -> None:
        """The conversation with ``peer`` broke: no answer in ``exchange``, or (None) it is dead."""
        opened = self._open
        if opened is not None and opened.peer == peer and exchange in (None, opened.exchange):
            self._end(opened, reason, detail)

    def tick(self, now: float) -> None:
        """Give up an exchange whose proposer went silent."""
        if self._open is not None and now >= self._deadline:
            peer, waited_s = self._open.peer, now - self._opened_at
            self._end(self._open, "silent", f"its codes did not come within {waited_s:.1f} s")
            self._patience.silent(peer, now)

    def deadline(self) -> float:
        """When ``tick`` is due; infinite when nothing is waited for."""
        return self._deadline

    # --- inside ----------------------------------------------------------------------------------

    def _proposed(self, sender: PeerId, propose: Propose, payload: Buffer, now: float) -> Outgoing:
        self.tick(now)
        if (sender, propose.exchange) in self._answered:
            raise Stale("the exchange was proposed before")
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
            self._renew()
        until = now + self._patience.seconds
        if isinstance(self._open, Accepter) and self._open.peer == sender:
            until = min(until, self._deadline)  # else it could hold us for ever
            self._end(self._open, "abandoned", "the peer began another exchange")
        if self.busy or self._patience.refuses(sender, now):
            return Outgoing(sender, Busy(propose.exchange))
        self._answered.append((sender, propose.exchange))
        opened = Accepter(sender, propose.exchange, self._side(), self._bounds())
        try:
            message, answer = opened.accept(propose, payload, self._rng.randbytes(16))
        except Unsupported as error:
            return Outgoing(sender, Refuse(propose.exchange, "codec", str(error)))
        self._hold(opened, now, until)
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
        if not opened.expects(message):
            raise Unsupported(f"{type(message).__name__} while {opened.state.name}")
        if isinstance(message, Busy):
            self._end(opened, "busy")
            return None
        if isinstance(message, Refuse):
            reason = message.reason if message.reason in _REFUSALS else "refused"
            self._end(opened, reason, message.detail)
            return None
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
        self._patience.heard(opened.peer, now - self._opened_at)
        if opened.state is State.DONE:
            self._mixed(opened)
        else:
            self._hold(opened, now, now + self._patience.seconds)
        return Outgoing(opened.peer, answer, codes)

    def _mixed(self, opened: Proposer | Accepter) -> None:
        """Keep what the exchange taught us and let go of it."""
        undecoded, reason, detail = opened.coder.undecoded, "", ""
        if undecoded > self.config.screening.undecoded_share:
            reason, detail = "undecoded", f"{undecoded:.0%} of the blocks are too far apart"
        else:  # then the distance is that of nearly the whole vector
            for screen, distance in zip(self._screens, opened.distances, strict=True):
                screen.note(opened.peer, distance)
            if not opened.factors[0]:
                reason = "implausible"
                detail = f"{opened.distances[0]:.3g} away, far beyond recent peers"
        if reason != "implausible":  # a liar's scales would only make ours coarser
            assert opened.largest is not None
            self.replica.remember(opened.largest)
        if isinstance(opened, Proposer) and not reason:
            self._due -= 1
            self._renew()
        self._end(opened, reason, detail)

    def _end(self, opened: Exchange, reason: str = "", detail: str = "") -> None:
        proposed = isinstance(opened, Proposer)
        if proposed and reason not in ("", "busy"):  # who is busy now may be free at the next try
            self._asked.add(opened.peer)
        distance, factor = opened.distances[0], opened.factors[0]
        self._outcomes.append(Outcome(opened.peer, reason, detail, distance, factor, proposed))
        self._release()

    def _bounds(self) -> Bounds:
        return Bounds(self._screens[0].bound(), self._screens[1].bound())

    def _measure(self) -> None:
        """Learn the vector's own length, in whose units distances are judged."""
        split = self.replica.parameters
        self._screens[0].scale = norm(self.replica.x[:split])
        self._screens[1].scale = norm(self.replica.x[split:])

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
