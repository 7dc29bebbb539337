"""One exchange between two nodes, from each side.

    proposer                                   accepter
    PROPOSED   ── Propose(scales) ───────────► (try-lock; Busy or Refuse if it may not)
               ◄────────── Accept(scales, layer 0) ──  ACCEPTED
    COMMITTED  ── Commit(layer 0[, layer 1]) ──────►
               ◄── More(layer 1, layer 2) ───────────  CONTINUED     only if blocks are still unsure
    COMMITTED  ── Commit(layer 2) ─────────────────►
               ◄── Settled(factor[, layer 1]) ───────  DONE, half applied
    DONE, half applied

Both sides find the same blocks unsure, so neither says which.  The accepter knows the whole
difference first: it settles the factor, which the proposer checks against the bounds that both
stated.  A message lost before Settled changes nothing; a lost Settled moves one side only, by half
of this one difference.  Nothing here chooses peers, keeps time or locks: core.py does.
"""

from enum import Enum, auto

from covey.gossip.codecs import Buffer, Coder, Side, coder, scales_size
from covey.gossip.quantiser import Floats
from covey.gossip.screening import Bounds
from covey.protocols.errors import Forged, Malformed
from covey.protocols.identity import PeerId
from covey.protocols.messages import Accept, Commit, Lineage, More, Propose, Settled

_HALF = 0.5
_TOLERANCE = 1 + 1e-4  # two machines may sum a distance in another order


class State(Enum):
    PROPOSED = auto()
    COMMITTED = auto()
    ACCEPTED = auto()
    CONTINUED = auto()
    DONE = auto()


_EXPECTED: dict[State, tuple[type, ...]] = {
    State.PROPOSED: (Accept,),
    State.COMMITTED: (More, Settled),
    State.ACCEPTED: (Commit,),
    State.CONTINUED: (Commit,),
    State.DONE: (),
}


class Exchange:
    """What both roles share.  After DONE, ``factor`` says how the difference was scaled (0: the
    gate refused it) and ``distance`` how far apart the two vectors were."""

    def __init__(self, peer: PeerId, exchange: bytes, side: Side, bounds: Bounds) -> None:
        self.peer = peer
        self.exchange = exchange
        self.bounds = bounds  # ours, until the peer has stated its own
        self.state = State.PROPOSED
        self.factor = 0.0
        self.distance = 0.0
        self._side = side

    def expects(self, message: object) -> bool:
        return isinstance(message, _EXPECTED[self.state])

    def _screened(self, undecoded_max: float, coder: Coder) -> float:
        """The factor our bounds allow; also notes the distance."""
        self.distance = coder.distance()
        return self.bounds.factor(self.distance) if coder.undecoded <= undecoded_max else 0.0


class Proposer(Exchange):
    """The side that asked."""

    def __init__(
        self, peer: PeerId, exchange: bytes, side: Side, bounds: Bounds, codec: str
    ) -> None:
        super().__init__(peer, exchange, side, bounds)
        self.coder = coder(codec, side)

    def propose(self, lineage: Lineage) -> tuple[Propose, Buffer]:
        bounds = self.bounds
        name = self.coder.name
        message = Propose(self.exchange, name, lineage, bounds.reach, bounds.clip)
        return message, self.coder.scales()

    def accepted(self, accept: Accept, payload: Buffer) -> tuple[Commit, Buffer]:
        """The accepter's scales and first layer have come; our codes go back."""
        self.bounds = self.bounds.both(Bounds(accept.reach, accept.clip))
        scales, layer = _split(payload, scales_size(self.coder.name, self._side.parameters))
        self.coder.open(scales, self.exchange + accept.nonce)
        out = bytearray(self.coder.write())
        self.coder.read(layer)
        if self.coder.pending:
            out += self.coder.write()
        self.state = State.COMMITTED
        return Commit(self.exchange), out

    def more(self, payload: Buffer) -> tuple[Commit, Buffer]:
        """The accepter's second and third layer; our third goes back."""
        layer, rest = _split(payload, self.coder.layer_size())
        self.coder.read(layer)
        if not self.coder.pending:
            raise Malformed("more layers than are needed")
        out = self.coder.write()
        self.coder.read(rest)
        return Commit(self.exchange), out

    def settled(self, message: Settled, payload: Buffer, undecoded_max: float, x: Floats) -> None:
        """Apply our half.  Raises Forged if the factor is more than our bounds allow."""
        if self.coder.pending:
            self.coder.read(payload)
        elif len(payload):
            raise Malformed("a payload that nobody asked for")
        if self.coder.pending:
            raise Malformed("settled although blocks are unsure")
        allowed = self._screened(undecoded_max, self.coder)
        if message.factor > allowed * _TOLERANCE:
            raise Forged(f"a factor of {message.factor:.3g} where {allowed:.3g} is allowed")
        self.factor = message.factor
        if self.factor:
            self.coder.apply(x, _HALF * self.factor)
        self.state = State.DONE


class Accepter(Exchange):
    """The side that was asked."""

    def accept(self, propose: Propose, payload: Buffer, nonce: bytes) -> tuple[Accept, Buffer]:
        own = self.bounds
        self.bounds = own.both(Bounds(propose.reach, propose.clip))
        self.coder = coder(propose.codec, self._side)
        self.coder.open(payload, self.exchange + nonce)
        self.state = State.ACCEPTED
        out = bytearray(self.coder.scales())
        out += self.coder.write()
        return Accept(self.exchange, nonce, own.reach, own.clip), out

    def commit(
        self, payload: Buffer, undecoded_max: float, x: Floats
    ) -> tuple[More | Settled, Buffer]:
        """The proposer's codes have come; apply our half if nothing is unsure any more."""
        layer, rest = _split(payload, self.coder.layer_size())
        self.coder.read(layer)
        out = bytearray()
        if self.state is State.ACCEPTED and self.coder.pending:
            out += self.coder.write()
            self.coder.read(rest)
            if self.coder.pending:
                out += self.coder.write()
                self.state = State.CONTINUED
                return More(self.exchange), out
        elif len(rest):
            raise Malformed("a layer that nobody asked for")
        self.factor = self._screened(undecoded_max, self.coder)
        if self.factor:
            self.coder.apply(x, _HALF * self.factor)
        self.state = State.DONE
        return Settled(self.exchange, self.factor), out


def _split(payload: Buffer, size: int) -> tuple[memoryview, memoryview]:
    if len(payload) < size:
        raise Malformed(f"a payload of {len(payload)} bytes where at least {size} are due")
    view = memoryview(payload)
    return view[:size], view[size:]
