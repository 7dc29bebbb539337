"""One node's learning, deciding and computing: what the daemon and the simulator drive.

``Core`` holds what every algorithm shares, the model above all, and is their one interface; the
algorithms are modules of their own (algorithms.py lists them).  Message in, at most one answer out:
``receive`` returns what goes back to the sender; ``intake`` is the same for a payload that comes in
pieces, and may answer before it has come.  While ``busy`` the learner's progress waits.  The caller
brings the time and the randomness, and calls from one thread at a time:

    core.progress(...)                       the learner's snapshot
    core.open_period(); while core.due:      the exchanges that follow it at once
        out = core.propose(candidates, now)  None while busy, or when nobody is left to ask
        ... send out, feed each answer to core.receive(), or core.failed() ...
    core.close_period(...)                   outer step
    core.replica.increment(...)              hand the difference to the learner
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from random import Random
from typing import ClassVar, NamedTuple, Protocol

from covey.gossip import lineage as lineages
from covey.gossip import mixing
from covey.gossip.codecs import Buffer, Side
from covey.gossip.config import Config, OuterStep
from covey.gossip.quantiser import Floats, Workspace, own_scales
from covey.gossip.replica import Replica, Saved
from covey.gossip.screening import Bounds, Pair, Screen
from covey.gossip.stability import Contraction, affordable_momentum, steady_momentum
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import ALGORITHM_OF, ExchangeMessage, Lineage, Refuse

# The reasons that Refuse may give; a peer does not name our counters.
_REFUSALS = ("algorithm", "not_ready", "lineage", "codec", "abandoned", "implausible", "outdated")


class Outgoing(NamedTuple):
    """A message for ``peer`` and its payload, of which ``pieces``, of so many bytes together, are
    made as they are taken."""

    peer: PeerId
    message: ExchangeMessage
    payload: Buffer = b""
    pieces: Iterable[Buffer] = ()
    pieces_bytes: int = 0

    def whole(self) -> "Outgoing":
        """With all of its payload in one buffer."""
        if self.pieces == ():
            return self
        return Outgoing(self.peer, self.message, b"".join((self.payload, *self.pieces)))


class Intake(Protocol):
    """A message on its way in.

    ``early`` is an answer that may be begun before the end, once there is one; what ``end`` returns
    then has the same message and what its payload ends with.
    """

    @property
    def early(self) -> Outgoing | None: ...

    def take(self, piece: Buffer) -> None:
        """What came of the payload, in order; it is not kept.  Raises RemoteError."""

    def end(self, now: float) -> Outgoing | None:
        """The message is authenticated and its payload is as signed; the answer, if any."""


class Outcome(NamedTuple):
    """How an exchange ended.  ``reason`` is empty if it moved the vector."""

    peer: PeerId
    reason: str = ""
    detail: str = ""
    distance: float = 0.0  # Euclidean, parameters only
    factor: float = 0.0
    proposed: bool = False  # by this node


class Core(ABC):
    """One node's replica and its exchanges."""

    algorithm: ClassVar[str]  # its name in the configuration
    checks_later: ClassVar[bool] = False  # whether x is finite is found out as it is coded

    def __init__(self, me: PeerId, config: Config, layout: Layout, rng: Random) -> None:
        self.me = me
        self.config = config
        self.replica = Replica(layout)
        self.lineage = Lineage()
        self.accepting = False  # whether peers that open an exchange are answered at all
        self.haul_s = 0.0  # what an exchange may take longer for bandwidth limits that were set
        self.settling = False  # no training: distances shrink, and are no yard-stick for others
        self._rng = rng
        self._screens = Screen(config.screening), Screen(config.screening)
        self._contraction = Contraction(config.exchanges)
        self._stepped = OuterStep(momentum=0.0)  # the last outer step
        self._due = 0
        self._outcomes: list[Outcome] = []

    # --- the model -------------------------------------------------------------------------------

    def begin(self, vector: Floats, lineage: Lineage) -> None:
        """Take ``vector`` as the model: founded here, or copied from a peer."""
        self.restore(Saved.fresh(vector, self.replica.parameters), lineage)

    def restore(self, saved: Saved, lineage: Lineage) -> None:
        """Go on from a checkpoint, or with a peer's model."""
        self._release()
        self.replica.restore(saved)
        if lineage.founder != self.lineage.founder:
            self._forget()
        for screen in self._screens:
            screen.begin()
        self.lineage = lineage
        self._measure()

    def progress(self, snapshot: Floats, applied: bool, lent: bool = False) -> bool:
        """Add the learner's progress; False if it was not finite and nothing changed, which may
        also turn out later: see ``replica.spoiled``.

        Memory that is ``lent`` is x's while ``replica.lent``: until the period is closed.
        """
        assert not self.busy, "x is held while an exchange is open"
        if not self._settled:
            for screen, moved in zip(self._screens, self.replica.moved(snapshot), strict=True):
                screen.moved += moved
        return self.replica.progress(snapshot, applied, lent=lent, later=self.checks_later)

    @property
    def at_hand(self) -> bool:
        """Whether the next snapshot will most likely be taken over without a pass through it."""
        return self.replica.at_hand and self._settled

    @property
    def _settled(self) -> bool:
        """Whether distances are known by others' and need no measure of how far a learner moves."""
        parameters, buffers = self._screens
        without = self.replica.parameters == self.replica.size  # any buffers: theirs never settles
        return parameters.settled and (without or buffers.settled)

    def close_period(self, partners: int, out: Floats | None = None) -> bool:
        """The outer step; ``partners`` is how many there were to learn with, busy or not.

        Into ``out``, if there is one, goes at once what the learner lacks now: whether that is an
        increment for it.  False: ``replica.increment`` is yet to be asked.
        """
        assert not self.busy, "x is held while an exchange is open"
        self._due, made = 0, False
        if partners:
            self._contraction.close()
            self._stepped = self.outer(partners)
            made = self.replica.outer_step(self._stepped, out)
        else:
            self.replica.rest()
        self.lineage = lineages.older(self.lineage)
        self._measure()
        return made

    def look_back(self) -> None:
        """Training is over: undo what the last outer step looked ahead, for which momentum is
        given up.  Where the next movement would begin is not the best model that there is."""
        assert not self.busy, "x is held while an exchange is open"
        replica, step = self.replica, self._stepped
        if step.momentum and replica.momentum.any():
            mixing.look_back(replica.moving()[: replica.parameters], replica.momentum, step)
            replica.rest()

    def outer(self, partners: int) -> OuterStep:
        """The outer step that suits so many partners and the exchanges of late."""
        return _suiting(self.config.outer, partners, self._contraction.percent)

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
    @abstractmethod
    def busy(self) -> bool:
        """Whether an exchange is under way that progress and the period's end must wait for."""

    @property
    def in_pieces(self) -> bool:
        """Whether an exchange mostly works on pieces of the vector, and is ended in a moment."""
        return False

    @property
    def toils(self) -> bool:
        """Whether the open exchange is not: far more must be told than usual."""
        return False

    @property
    def awaited(self) -> PeerId | None:
        """The peer that opened an exchange here and whose next message x is held for, if any."""
        return None

    def askable(self, candidates: Collection[PeerId]) -> Collection[PeerId]:
        """Who of them is yet to be asked in this period, and not known to be in an exchange."""
        return candidates

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

    @abstractmethod
    def open_period(self, exchanges: int | None = None) -> None:
        """Plan this period's exchanges (default: as configured)."""

    @abstractmethod
    def propose(self, candidates: Sequence[PeerId], now: float) -> Outgoing | None:
        """Ask the next peer.  None while busy; None and ``due`` 0 when there is nobody to ask."""

    def receive(
        self, sender: PeerId, message: ExchangeMessage, payload: Buffer, now: float
    ) -> Outgoing | None:
        """Take an authenticated message whose payload matched its hash; the answer, if any.

        Raises RemoteError if the message is at fault; its exchange is then over.
        """
        intake = self.intake(sender, message)
        intake.take(payload)
        out = whole(intake.end(now), intake)
        self.finish()
        return None if out is None else out.whole()

    def finish(self) -> None:
        """Do what need not be done before the last answer leaves."""
        return

    def get_ready(self) -> None:
        """Do what the next exchange would have to wait for."""
        self.replica.history.typical()

    def intake(self, sender: PeerId, message: ExchangeMessage) -> Intake:
        """Take a message whose payload comes in pieces.  Raises RemoteError."""
        return _Whole(self, sender, message)

    def taken(
        self, sender: PeerId, message: ExchangeMessage, payload: Buffer, now: float
    ) -> Outgoing | None:
        """A message has come, and all of its payload."""
        theirs = ALGORITHM_OF.get(type(message), self.algorithm)
        if theirs != self.algorithm:
            detail = f"this node learns by {self.algorithm!r}, not by {theirs!r}"
            return Outgoing(sender, Refuse(message.exchange, "algorithm", detail))
        return self._receive(sender, message, payload, now)

    @abstractmethod
    def failed(
        self, peer: PeerId, reason: str, detail: str = "", exchange: bytes | None = None
    ) -> None:
        """The conversation with ``peer`` broke: no answer in ``exchange``, or (None) it is dead."""

    @abstractmethod
    def tick(self, now: float) -> None:
        """Do what ``deadline`` was set for."""

    @abstractmethod
    def deadline(self) -> float:
        """When ``tick`` is due; infinite when nothing is waited for."""

    # --- for the algorithms ----------------------------------------------------------------------

    @abstractmethod
    def _receive(
        self, sender: PeerId, message: ExchangeMessage, payload: Buffer, now: float
    ) -> Outgoing | None:
        """``taken``, of this algorithm's messages."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of all that is under way: the model becomes another."""

    def _unwilling(self, exchange: bytes, theirs: Lineage) -> Refuse | None:
        """The refusal due to a peer of lineage ``theirs`` that opens an exchange, if any."""
        if not self.accepting:
            return Refuse(exchange, "not_ready", "no model is trained here")
        if not lineages.mixable(self.lineage, theirs):
            return Refuse(exchange, "lineage", "other initial weights, or far behind")
        return None

    def _note(self, peer: PeerId, distances: Pair) -> None:
        """Remember how far away a peer was, by which others are judged."""
        if self.settling:
            return
        for screen, distance in zip(self._screens, distances, strict=True):
            screen.note(peer, distance)

    def _tell(
        self,
        peer: PeerId,
        reason: str = "",
        detail: str = "",
        distance: float = 0.0,
        proposed: bool = False,
    ) -> None:
        """Report an exchange that was taken whole or, with a ``reason``, not at all."""
        factor = 0.0 if reason else 1.0
        self._outcomes.append(Outcome(peer, reason, detail, distance, factor, proposed))

    def _forget(self) -> None:
        """What was learned about distances was of another model."""
        self._screens = Screen(self.config.screening), Screen(self.config.screening)

    def _bounds(self) -> Bounds:
        return Bounds(self._screens[0].bound(), self._screens[1].bound())

    def _measure(self) -> None:
        """Learn the vector's own length, in whose units distances are judged."""
        for screen, length in zip(self._screens, self.replica.lengths(), strict=True):
            screen.scale = length

    def _side(self, workspace: Workspace | None = None) -> Side:
        replica = self.replica
        scales = own_scales(replica.sizes(), replica.movement(), replica.history.typical())
        return Side(replica.unchecked, replica.parameters, scales, workspace)


class _Whole:
    """An Intake that needs all of the payload at once."""

    early = None

    def __init__(self, core: Core, sender: PeerId, message: ExchangeMessage) -> None:
        self._core, self._sender, self._message = core, sender, message
        self._payload = bytearray()

    def take(self, piece: Buffer) -> None:
        self._payload += piece

    def end(self, now: float) -> Outgoing | None:
        return self._core.taken(self._sender, self._message, self._payload, now)


def whole(out: Outgoing | None, intake: Intake) -> Outgoing | None:
    """What ``intake`` ended with, and before it the answer that it has not begun."""
    if out is None or intake.early is None:
        return out
    return Outgoing(out.peer, out.message, b"".join((*intake.early.pieces, out.payload)))


@lru_cache
def _suiting(outer: OuterStep, partners: int, percent: int) -> OuterStep:
    """At most ``outer``, for exchanges that contract by ``percent`` of 100."""
    most = min(outer.momentum, affordable_momentum(outer.rate, 1 + partners))
    return OuterStep(steady_momentum(most, outer.rate, percent), outer.rate)


def refusal(message: Refuse) -> str:
    """The reason under which a peer's refusal is counted."""
    return message.reason if message.reason in _REFUSALS else "refused"


def candidates_of(mine: Lineage, standings: Collection[tuple[PeerId, Lineage]]) -> list[PeerId]:
    """The peers this node may average with, smallest id first."""
    return sorted(peer for peer, theirs in standings if lineages.mixable(mine, theirs))
