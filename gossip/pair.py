"""Pair exchanges, the default: two nodes at a time move half-way towards each other.

Random pairs that average (Boyd et al. 2006), with local training in between (SwarmSGD, Nadiradze et
al. 2021) and NoLoCo's outer step (Kolehmainen et al. 2025).  Both sides move by exactly opposite
amounts, so the swarm's mean is untouched by losses, clipping and coding; the 4-bit code makes it
the cheapest algorithm here by far.  A node is in one exchange at a time and x is held still
meanwhile.  The messages of one exchange are exchange.py's.
"""

from collections.abc import Collection, Iterator, Sequence
from random import Random

from covey.gossip.codecs import Buffer, Mod4
from covey.gossip.config import Config
from covey.gossip.core import Core, Intake, Outcome, Outgoing, refusal
from covey.gossip.exchange import Accepter, Exchange, Judges, Proposer, State
from covey.gossip.outliers import Outliers
from covey.gossip.patience import Patience
from covey.gossip.progress import Progress
from covey.gossip.quantiser import Floats, Workspace, blocks_in
from covey.gossip.sampling import Cycle
from covey.protocols.errors import RemoteError, Stale, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import (
    Accept,
    Busy,
    Commit,
    ExchangeMessage,
    More,
    Propose,
    Refuse,
    Settled,
)

_MANY = 0.1  # blocks whose scale was too fine, of all
_TOIL = 1024  # of them take some milliseconds
_REMEMBERED = 256  # exchanges whose late or repeated proposals are known for what they are


class Pair(Core):
    """A node that exchanges with one peer at a time."""

    algorithm = "pair"
    checks_later = True

    def __init__(self, me: PeerId, config: Config, layout: Layout, rng: Random) -> None:
        super().__init__(me, config, layout, rng)
        self._cycle = Cycle(rng)
        self._open: Exchange | None = None
        self._deadline = float("inf")
        self._opened_at = 0.0
        self._patience = Patience(layout.size)  # about a byte per element, both ways
        self._progress = Progress(config.screening, layout.parameters, rng)
        self._outliers = Outliers(config.screening)
        self._answered: dict[tuple[PeerId, bytes], None] = {}  # oldest first
        self._attempts = 0
        self._asked: set[PeerId] = set()
        self._called: set[PeerId] = set()  # by whom, since the last period was planned
        self._engaged: set[PeerId] = set()  # who is or was said to be busy: not asked again so soon
        self._workspace: Workspace | None = None  # of the last exchange, for the next

    @property
    def busy(self) -> bool:
        return self._open is not None

    @property
    def in_pieces(self) -> bool:
        return self.config.codec == Mod4.name

    @property
    def toils(self) -> bool:
        opened = self._open
        blocks = blocks_in(self.replica.parameters)
        return opened is not None and opened.coder.repeated * blocks > _TOIL

    def askable(self, candidates: Collection[PeerId]) -> Collection[PeerId]:
        return set(candidates) - self._asked - self._engaged

    @property
    def awaited(self) -> PeerId | None:
        opened = self._open  # read once: the caller may be on another thread
        return opened.peer if isinstance(opened, Accepter) else None

    def close_period(self, partners: int, out: Floats | None = None) -> bool:
        self._progress.close_period()
        return super().close_period(partners, out)

    def open_period(self, exchanges: int | None = None) -> None:
        if exchanges is None:  # to have been called is as good as to have called
            exchanges = max(0, self.config.exchanges - len(self._called))
            self._called.clear()
        self._due = exchanges
        self._renew()

    def propose(self, candidates: Sequence[PeerId], now: float) -> Outgoing | None:
        if self.busy or not self._due:
            return None
        present = set(candidates)
        for screen in self._screens:
            screen.keep(present)
        peer = self._next(candidates) if self._attempts else None
        if peer is None:
            self._due = 0
            return None
        self._attempts -= 1
        exchange = self._rng.randbytes(16)
        side = self._side(self._workspace)
        opened = Proposer(peer, exchange, side, self._judges(), self.config.codec)
        self._hold(opened, now, float("inf"))  # the caller's request has its own deadline
        message, payload = opened.propose(self.lineage)
        return Outgoing(peer, message, payload)

    def _receive(
        self, sender: PeerId, message: ExchangeMessage, payload: Buffer, now: float
    ) -> Outgoing | None:
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
            self.broken(opened, error)
            raise

    def intake(self, sender: PeerId, message: ExchangeMessage) -> Intake:
        self.finish()
        opened = self._open
        if not isinstance(message, Accept | Commit) or opened is None:
            return super().intake(sender, message)
        if (opened.peer, opened.exchange) != (sender, message.exchange):
            return super().intake(sender, message)
        try:
            self._listen(opened, message)
        except RemoteError as error:
            self.broken(opened, error)
            raise
        return _Layers(self, opened, message)

    def of(self, opened: Exchange, layer: Iterator[memoryview]) -> Iterator[memoryview]:
        """The pieces of ``layer`` while ``opened`` is.  Raises Stale when it is given up."""
        while self._open is opened:
            piece = next(layer, None)
            if piece is None:
                return
            yield piece
        raise Stale("the exchange is over")

    def broken(self, opened: Exchange, error: RemoteError) -> None:
        """The peer was at fault, which ends the exchange."""
        self._end(opened, error.reason, str(error))

    def holds(self, opened: Exchange) -> bool:
        return self._open is opened

    def finish(self) -> None:
        """Apply our half of an exchange that is settled, or get ready for its factors."""
        opened = self._open
        if opened is None:
            return
        if opened.state is State.SETTLED:
            self.replica.mix(opened.coder, opened.half())
            self._mixed(opened)
        elif opened.state is State.COMMITTED and not opened.coder.pending:
            opened.reckon()

    def failed(
        self, peer: PeerId, reason: str, detail: str = "", exchange: bytes | None = None
    ) -> None:
        self.finish()
        opened = self._open
        if opened is not None and opened.peer == peer and exchange in (None, opened.exchange):
            self._end(opened, reason, detail)

    def tick(self, now: float) -> None:
        """Give up an exchange whose proposer went silent."""
        self.finish()
        if self._open is not None and now >= self._deadline:
            peer, waited_s = self._open.peer, now - self._opened_at
            self._end(self._open, "silent", f"its codes did not come within {waited_s:.1f} s")
            self._patience.silent(peer, now)

    def deadline(self) -> float:
        return self._deadline

    # --- inside ----------------------------------------------------------------------------------

    def _forget(self) -> None:
        super()._forget()
        self._progress.begin(self.replica.x[: self.replica.parameters])
        self._outliers = Outliers(self.config.screening)

    def _proposed(self, sender: PeerId, propose: Propose, payload: Buffer, now: float) -> Outgoing:
        self.tick(now)
        if (sender, propose.exchange) in self._answered:
            raise Stale("the exchange was proposed before")
        if unwilling := self._unwilling(propose.exchange, propose.lineage):
            return Outgoing(sender, unwilling)
        if self._crossing(sender):
            self._open = None  # the smaller id's proposal stands; ours to it is answered Busy
        until = now + self._patience.seconds + self.haul_s
        if isinstance(self._open, Accepter) and self._open.peer == sender:
            until = min(until, self._deadline)  # else it could hold us for ever
            self._end(self._open, "abandoned", "the peer began another exchange")
        if self.busy or self._patience.refuses(sender, now):
            return Outgoing(sender, self._busy(propose.exchange))
        self._answered[sender, propose.exchange] = None
        if len(self._answered) > _REMEMBERED:
            del self._answered[next(iter(self._answered))]
        side = self._side(self._workspace)
        opened = Accepter(sender, propose.exchange, side, self._judges())
        try:
            accept, scales, layer = opened.accept(propose, payload, self._rng.randbytes(16))
        except Unsupported as error:
            return Outgoing(sender, Refuse(propose.exchange, "codec", str(error)))
        self._hold(opened, now, until)
        self.heard(propose.lineage)
        size = opened.coder.layer_size()
        return Outgoing(sender, accept, scales, self.of(opened, layer), size)

    def _judges(self) -> Judges:
        return Judges(self._bounds(), self._progress, self._outliers)

    def _next(self, candidates: Sequence[PeerId]) -> PeerId | None:
        """Whom to ask: of those known to be busy only if nobody else is left."""
        peer = self._cycle.next(candidates, self._asked | self._engaged)
        if peer is None:
            self._engaged.clear()
            peer = self._cycle.next(candidates, self._asked)
        return peer

    def _busy(self, exchange: bytes) -> Busy:
        """The answer to who proposes meanwhile: whom we are with need not be asked either."""
        opened = self._open
        agreed = opened is not None and (opened.listening or opened.state is not State.PROPOSED)
        return Busy(exchange, opened.peer.key if opened is not None and agreed else b"")

    def _crossing(self, sender: PeerId) -> bool:
        """Whether we proposed to ``sender`` at the same time and its proposal stands."""
        opened = self._open
        proposed = isinstance(opened, Proposer) and opened.state is State.PROPOSED
        return proposed and opened is not None and opened.peer == sender and sender < self.me

    def _listen(self, opened: Exchange, message: Accept | Commit) -> None:
        """The payload of ``message`` is about to come."""
        if opened.listening or not opened.expects(message):
            raise Unsupported(f"{type(message).__name__} while {opened.state.name}")
        opened.listening = True
        if isinstance(message, Accept):
            assert isinstance(opened, Proposer), "only a proposer expects it"
            opened.answered(message)

    def _advance(
        self, opened: Exchange, message: ExchangeMessage, payload: Buffer, now: float
    ) -> Outgoing | None:
        most = self.config.screening.undecoded_share
        if not opened.expects(message):
            raise Unsupported(f"{type(message).__name__} while {opened.state.name}")
        if isinstance(message, Busy):
            self._engaged.add(opened.peer)
            if message.partner:
                self._engaged.add(PeerId(message.partner))
            self._end(opened, "busy")
            return None
        if isinstance(message, Refuse):
            self._end(opened, refusal(message), message.detail)
            return None
        if isinstance(opened, Proposer):
            if isinstance(message, Accept):
                return Outgoing(opened.peer, *opened.accepted())
            if isinstance(message, More):
                return Outgoing(opened.peer, *opened.more(payload))
            assert isinstance(message, Settled)
            opened.settled(message, payload, most)
            self.finish()
            return None
        assert isinstance(opened, Accepter)
        answer, codes = opened.commit(most)
        self._patience.heard(opened.peer, now - self._opened_at)
        if opened.state is State.SETTLED:
            self._deadline = now  # nothing more is waited for: ``tick`` may finish it
        else:
            self._hold(opened, now, now + self._patience.seconds + self.haul_s)
        return Outgoing(opened.peer, answer, codes)

    def _mixed(self, opened: Exchange) -> None:
        """Keep what the exchange taught us and let go of it."""
        undecoded, reason, detail = opened.coder.undecoded, "", ""
        if opened.coder.repeated > _MANY:
            self.replica.gauge.mislead()
        tame = opened.coder.tame
        if tame:
            self.replica.found_finite()
        if not tame:
            reason, detail = "unfit", "this node's own model is not finite, or far out of range"
        elif undecoded > self.config.screening.undecoded_share:
            reason, detail = "undecoded", f"{undecoded:.0%} of the blocks are too far apart"
        else:  # then the distance is that of nearly the whole vector
            self._note(opened.peer, opened.distances)
            if not opened.factors[0]:
                reason = "implausible"
                detail = f"{opened.distances[0]:.3g} away, far beyond what recent peers are"
        if reason not in ("unfit", "implausible"):  # which would only make our scales coarser
            assert opened.largest is not None
            self.replica.history.remember(opened.largest)
        if not reason:
            self._contraction.met(opened.factors[0] / 2)
            if self._due and (isinstance(opened, Proposer) or opened.peer not in self._called):
                self._due -= 1
                self._renew()
            elif isinstance(opened, Accepter):
                self._called.add(opened.peer)
        self._end(opened, reason, detail)

    def _end(self, opened: Exchange, reason: str = "", detail: str = "") -> None:
        proposed = isinstance(opened, Proposer)
        if proposed and reason not in ("", "busy"):  # who is busy now may be free at the next try
            self._asked.add(opened.peer)
        distance, factor = opened.distances[0], opened.factors[0]
        self._outcomes.append(Outcome(opened.peer, reason, detail, distance, factor, proposed))
        self._release()
        refused = reason == "busy" and not opened.listening
        if opened.state is State.DONE or refused:  # else it may still be on its way out
            self._workspace = opened.coder.workspace

    def _hold(self, opened: Exchange, now: float, deadline: float) -> None:
        self._open, self._opened_at, self._deadline = opened, now, deadline
        self._workspace = None

    def _release(self) -> None:
        self._open, self._deadline = None, float("inf")

    def _renew(self) -> None:
        self._asked.clear()
        self._engaged.clear()
        self._attempts = self.config.attempts


class _Layers:
    """Accept or Commit on its way in; Commit may leave before all of Accept is there."""

    def __init__(self, core: Pair, opened: Exchange, message: Accept | Commit) -> None:
        self._core, self._opened, self._message = core, opened, message
        self.early: Outgoing | None = None

    def take(self, piece: Buffer) -> None:
        core, opened = self._core, self._opened
        if not core.holds(opened):
            return  # given up meanwhile, as ``end`` will tell
        try:
            opened.take(memoryview(piece))
        except RemoteError as error:
            core.broken(opened, error)
            raise
        if isinstance(opened, Proposer) and opened.layer is not None and self.early is None:
            message, pieces = Commit(opened.exchange), core.of(opened, opened.layer)
            self.early = Outgoing(opened.peer, message, b"", pieces, opened.layer_bytes)

    def end(self, now: float) -> Outgoing | None:
        self._opened.listening = False
        return self._core.taken(self._opened.peer, self._message, b"", now)
