"""One exchange between two nodes, from each side.

    proposer                                   accepter
    PROPOSED   ── Propose(scales) ───────────► (try-lock; Busy or Refuse if it may not)
               ◄────────── Accept(scales, layer 0) ──  ACCEPTED      (Refuse: dropped meanwhile)
    COMMITTED  ── Commit(layer 0[, layer 1]) ──────►
               ◄── More(layer 1[, layer 2]) ─────────  CONTINUED     only if blocks are still unsure
    COMMITTED  ── Commit([layer 2]) ───────────────►                 or many were
               ◄── Settled(factor[, layer 1]) ───────  SETTLED, half applied at once: DONE
    SETTLED, half applied at once: DONE

Payloads come in pieces.  As soon as the accepter's scales are there the proposer's layer 0 leaves,
so that both layers 0 are under way at once, each coded as it goes and read as it comes.
Both sides find the same blocks unsure, so neither says which.  Commit ends with the most that the
proposer lets the exchange count for, by what it knows of the difference and of its peer.  The
accepter knows the whole of it first: it settles the factors, which the proposer checks against that
and the bounds that both stated.  A message lost before Settled changes nothing; a lost Settled
moves one side only, by half of this one difference.  Nothing here chooses peers, keeps time or
locks: core.py does.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from covey.gossip.codecs import Buffer, Coder, Side, coder, scales_size, split
from covey.gossip.outliers import Outliers
from covey.gossip.progress import Progress
from covey.gossip.quantiser import RANGE_PER_SCALE, Floats
from covey.gossip.screening import Bound, Bounds, Pair
from covey.protocols.errors import Forged, Malformed
from covey.protocols.identity import PeerId
from covey.protocols.messages import (
    Accept,
    Busy,
    Commit,
    Lineage,
    More,
    Propose,
    Refuse,
    Settled,
)

_HALF = 0.5
_FEW = 0.1  # share of unsure blocks without which a difference is known well enough
_MOST = struct.Struct("<f")
_REFUSED = (0.0, 0.0)
_TOLERANCE = 1 + 1e-4  # two machines may sum a distance in another order


class State(Enum):
    PROPOSED = auto()
    COMMITTED = auto()
    ACCEPTED = auto()
    CONTINUED = auto()
    SETTLED = auto()  # the factors are agreed, and our half is yet to be applied
    DONE = auto()


_EXPECTED: dict[State, tuple[type, ...]] = {
    State.PROPOSED: (Accept, Busy, Refuse),
    State.COMMITTED: (More, Settled),
    State.ACCEPTED: (Commit, Refuse),
    State.CONTINUED: (Commit, Refuse),
    State.SETTLED: (),
    State.DONE: (),
}


@dataclass(frozen=True, slots=True)
class Judges:
    """What says how much an exchange that opens now may count for."""

    bounds: Bounds  # ours
    progress: Progress
    outliers: Outliers


class Exchange:
    """What both roles share.  After DONE, ``factors`` say how the difference was scaled (0: the
    gate refused it), ``distances`` how far apart the two vectors were, and ``largest`` the largest
    differences of the blocks."""

    coder: Coder

    def __init__(self, peer: PeerId, exchange: bytes, side: Side, judges: Judges) -> None:
        self.peer = peer
        self.exchange = exchange
        self.bounds = judges.bounds  # ours, until the peer has stated its own
        self.state = State.PROPOSED
        self.listening = False  # whether a payload comes in pieces
        self.factors = _REFUSED
        self.distances: Pair = (0.0, 0.0)
        self.largest: Floats | None = None
        self._side = side
        self._progress, self._outliers = judges.progress, judges.outliers
        self._rest = bytearray()  # what came behind layer 0

    def expects(self, message: object) -> bool:
        return isinstance(message, _EXPECTED[self.state])

    def take(self, piece: memoryview) -> None:
        """Read what has come of Accept's or Commit's payload, in order.  Raises Malformed."""
        self._rest += self.coder.take(piece)

    def _behind(self) -> Buffer:
        """What came behind layer 0, which must be there."""
        if self.coder.first_pending:
            raise Malformed("the payload is too short")
        rest, self._rest = self._rest, bytearray()
        return rest

    def _most(self) -> float:
        """The parameters' factor as far as it is ours to judge: by what the difference, as far as
        known, does to our progress, and by whose it is; nothing if ours is no model."""
        if not self.coder.tame:
            return 0.0
        differences = self.coder.differences(self._progress.blocks)
        kept = self._progress.factor(self._side.x[: self._side.parameters], differences)
        return min(kept, self._outliers.factor(self.peer))

    def _agree(self, theirs: Bounds) -> None:
        """The peer has stated its bounds: the smaller ones hold."""
        self._outliers.note(self.peer, self.bounds.parameters, theirs.parameters)
        self.bounds = self.bounds.both(theirs)

    def _allowed(self, undecoded_max: float, most: float, tolerance: float = 1.0) -> Pair:
        """The factors that the bounds of both allow, now that the whole difference is known."""
        self.reckon()
        apart = self.distances
        if self.coder.undecoded > undecoded_max:
            return _REFUSED
        parameters, buffers = self.bounds.factors((apart[0] / tolerance, apart[1] / tolerance))
        return min(parameters, most), buffers

    def reckon(self) -> None:
        """Learn what there is to know of the difference, as soon as the whole of it is there."""
        if self.largest is None:
            # A peer's scales may be absurd: what we remember is at most what ours could express.
            most = self._side.scales * RANGE_PER_SCALE
            self.distances, self.largest = self.coder.outcome(most)

    def half(self) -> Pair:
        """The weights of the difference that we move by, which ends the exchange."""
        assert self.state is State.SETTLED, "the factors come first"
        self.state = State.DONE
        return _HALF * self.factors[0], _HALF * self.factors[1]


class Proposer(Exchange):
    """The side that asked."""

    def __init__(
        self, peer: PeerId, exchange: bytes, side: Side, judges: Judges, codec: str
    ) -> None:
        super().__init__(peer, exchange, side, judges)
        self.coder = coder(codec, side)
        self.layer: Iterator[memoryview] | None = None  # 0, of Commit; once their scales are known
        self.layer_bytes = 0
        self._scales, self._nonces = bytearray(), b""
        self._stated = 1.0  # the most that our last Commit named

    def propose(self, lineage: Lineage) -> tuple[Propose, Buffer]:
        message = Propose(self.exchange, self.coder.name, lineage, *_stated(self.bounds))
        return message, self.coder.scales()

    def answered(self, accept: Accept) -> None:
        """The exchange is accepted; scales and first layer come now, to be taken."""
        self._agree(_bounds(accept))
        self._nonces = self.exchange + accept.nonce
        self._open()

    def take(self, piece: memoryview) -> None:
        if self.layer is None:
            due = self._scales_due
            self._scales += piece[:due]
            piece = piece[due:]
            self._open()
        if self.layer is not None:
            super().take(piece)

    def accepted(self) -> tuple[Commit, Buffer]:
        """All has come; the second is what Commit has behind ``layer``."""
        if self.layer is None:
            raise Malformed("the payload is too short")
        if len(self._behind()):
            raise Malformed("a payload that nobody asked for")
        self.state = State.COMMITTED
        return Commit(self.exchange), self._ending(
            self.coder.write() if self.coder.pending else b""
        )

    @property
    def _scales_due(self) -> int:
        return scales_size(self.coder.name, self._side.parameters) - len(self._scales)

    def _open(self) -> None:
        if not self._scales_due:
            self.coder.open(self._scales, self._nonces)
            self.layer_bytes = self.coder.layer_size()
            self.layer = self.coder.pieces()

    def more(self, payload: Buffer) -> tuple[Commit, Buffer]:
        """The accepter's second layer, and the third if it is needed; then our third goes back."""
        layer, rest = split(payload, self.coder.layer_size())
        if not len(layer):
            raise Malformed("more layers than are needed")
        self.coder.read(layer)
        out: Buffer = b""
        if self.coder.pending:
            out = self.coder.write()
            self.coder.read(rest)
        elif len(rest):
            raise Malformed("a layer that nobody asked for")
        return Commit(self.exchange), self._ending(out)

    def _ending(self, codes: Buffer) -> Buffer:
        """What Commit ends with: codes, and what the exchange may count for at most."""
        ending = bytearray(codes) + _MOST.pack(self._most())
        (self._stated,) = _MOST.unpack(ending[-_MOST.size :])
        return ending

    def settled(self, message: Settled, payload: Buffer, undecoded_max: float) -> None:
        """Take the factors.  Raises Forged if a factor is more than the bounds allow."""
        if self.coder.pending:
            self.coder.read(payload)
        elif len(payload):
            raise Malformed("a payload that nobody asked for")
        if self.coder.pending:
            raise Malformed("settled although blocks are unsure")
        factors = message.factor, message.buffers_factor
        allowed = self._allowed(undecoded_max, self._stated, _TOLERANCE)
        for factor, most in zip(factors, allowed, strict=True):
            if factor > most:
                raise Forged(f"a factor of {factor:.3g} where {most:.3g} is allowed")
        self.factors, self.state = factors, State.SETTLED


class Accepter(Exchange):
    """The side that was asked."""

    def accept(
        self, propose: Propose, payload: Buffer, nonce: bytes
    ) -> tuple[Accept, Buffer, Iterator[memoryview]]:
        """The answer with our scales, and layer 0 behind them."""
        own = self.bounds
        self._agree(_bounds(propose))
        self.coder = coder(propose.codec, self._side)
        self.coder.open(payload, self.exchange + nonce)
        self.state = State.ACCEPTED
        answer = Accept(self.exchange, nonce, *_stated(own))
        return answer, self.coder.scales(), self.coder.pieces()

    def commit(self, undecoded_max: float) -> tuple[More | Settled, Buffer]:
        """The proposer's codes have come; settle if nothing is unsure any more."""
        rest, out = self._behind(), bytearray()
        first, many = self.state is State.ACCEPTED, self.coder.undecoded > _FEW
        if first and self.coder.pending:
            out += self.coder.write()
        if self.coder.pending:
            layer, rest = split(rest, self.coder.layer_size())
            self.coder.read(layer)
        theirs = _most(rest)
        if first and (many or self.coder.pending):
            if self.coder.pending:
                out += self.coder.write()
            self.state = State.CONTINUED
            return More(self.exchange), out
        self.factors = self._allowed(undecoded_max, min(theirs, self._most()))
        self.state = State.SETTLED
        return Settled(self.exchange, *self.factors), out


def _most(data: Buffer) -> float:
    """What a Commit ends with.  Raises Malformed."""
    if len(data) != _MOST.size:
        raise Malformed(f"{len(data)} bytes behind the codes, not {_MOST.size}")
    (most,) = _MOST.unpack(data)
    if not 0 <= most <= 1:
        raise Malformed(f"an exchange cannot count for {most:.3g} of itself")
    return float(most)


def _stated(bounds: Bounds) -> tuple[float, float, float, float]:
    """The bounds as Propose and Accept carry them."""
    return (
        bounds.parameters.reach,
        bounds.parameters.clip,
        bounds.buffers.reach,
        bounds.buffers.clip,
    )


def _bounds(stated: Propose | Accept) -> Bounds:
    return Bounds(
        Bound(stated.reach, stated.clip), Bound(stated.buffers_reach, stated.buffers_clip)
    )
