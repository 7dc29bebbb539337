"""Push-sum: each node sends half of its mass to one random peer and needs but a receipt.

Stochastic gradient push (Assran et al. 2019, "SGP"; push-sum: Kempe et al. 2003).  A node's mass is
a weight w and w times its vector.  Here x is the de-biased vector itself, so a push carries x and
the half weight, and whoever takes it in moves to the weighted mean:

    push   w_i <- w_i - v,  v = w_i / 2
    take   x_j <- (w_j x_j + v x_i) / (w_j + v),  w_j <- w_j + v

The sums of w and of w x over all nodes are constant, so all agree on the exact mean even though no
exchange is symmetric and links may work in one direction only.  The learner's progress adds to x,
hence to the mass with the node's own weight, which is 1 on average; the outer step acts on x.
Choose it where exchanges in pairs keep finding each other busy, or where peers cannot all be
called; a push is float32 and costs eight times the bytes of a pair's, and it must be possible to
get from each node to each other by some links.

A receipt that does not come leaves the mass in doubt.  It is neither lost nor counted twice: the
same push is repeated until the peer says what became of it, which it remembers (the effect of the
running sums of robust push-sum, Hadjicostis et al. 2016, with one vector for each push in doubt in
place of one for each link).  Only a peer that stays silent for long is given up, and then the mass
is taken back: what a dead node took in died with it, and a mass counted twice by the one that lives
on after all shifts the mean a little, where lost masses would add up to none.

What liars can do: a weight is at most 1 in a push and 64 in a node, and a vector that screening
finds implausible is refused, so one push moves a node by less than the reach of its screen.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from covey.gossip import mixing
from covey.gossip.codecs import Buffer, floats
from covey.gossip.config import Config
from covey.gossip.core import Core, Outgoing, refusal
from covey.gossip.quantiser import Floats
from covey.gossip.sampling import Cycle
from covey.protocols import limits
from covey.protocols.errors import RemoteError, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import Busy, ExchangeMessage, Push, Pushed, Refuse

_DOUBTS = 4  # pushes without a receipt at most: each keeps a vector
_DOUBT_S = 30.0  # until a silent peer's push is taken back; a live one is asked again long before
_ANSWERS = 2 * _DOUBTS  # remembered of each sender: more than it may have in doubt
_LEAST = 2.0**-10  # a lighter node keeps its mass, else pushes that nobody returns would end in 0
_TAKEN = 8  # pushes between two of our own: a node that never pushes must not gather all the mass
_MOST = 64.0  # the weight of a swarm's worth of pushes that all came here


@dataclass(frozen=True, slots=True)
class _Mass:
    """A push on its way, or in doubt."""

    peer: PeerId
    exchange: bytes
    weight: float
    vector: Floats
    since: float


class PushSum(Core):
    """A node that pushes to one peer at a time; others may push to it at any time."""

    algorithm = "push-sum"

    def __init__(self, me: PeerId, config: Config, layout: Layout, rng: Random) -> None:
        super().__init__(me, config, layout, rng)
        self.weight = 1.0
        self._cycle = Cycle(rng)
        self._masses: dict[bytes, _Mass] = {}  # without a receipt, by exchange
        self._awaited: bytes | None = None  # the exchange whose answer the caller waits for
        self._answers: dict[PeerId, deque[Pushed | Refuse | Busy]] = {}
        self._taken = 0  # pushes, since our own last one
        self._attempts = 0
        self._asked: set[PeerId] = set()

    @property
    def busy(self) -> bool:
        return self._awaited is not None

    @property
    def in_doubt(self) -> Sequence[tuple[float, Floats]]:
        """Weight and vector of what was pushed and not yet acknowledged."""
        return [(mass.weight, mass.vector) for mass in self._masses.values()]

    def open_period(self, exchanges: int | None = None) -> None:
        self._due = self.config.exchanges if exchanges is None else exchanges
        self._renew()

    def propose(self, candidates: Sequence[PeerId], now: float) -> Outgoing | None:
        if self.busy or not self._due:
            return None
        present = set(candidates)
        for screen in self._screens:
            screen.keep(present)
        mass = self._next(candidates, now) if self._attempts else None
        if mass is None:
            self._due = 0
            return None
        self._attempts -= 1
        self._asked.add(mass.peer)
        self._awaited = mass.exchange
        little = mass.vector.astype("<f4", copy=False)
        push = Push(mass.exchange, mass.weight, self.lineage)
        return Outgoing(mass.peer, push, memoryview(little.data).cast("B"))

    def failed(
        self, peer: PeerId, reason: str, detail: str = "", exchange: bytes | None = None
    ) -> None:
        mass = self._masses.get(self._awaited or b"")
        if mass is not None and mass.peer == peer and exchange in (None, mass.exchange):
            self._awaited = None  # in doubt from now on
            self._tell(peer, reason, detail, proposed=True)

    def tick(self, now: float) -> None:
        """Take back what was pushed to peers that have been silent for long."""
        for mass in list(self._masses.values()):
            if now >= mass.since + _DOUBT_S and mass.exchange != self._awaited:
                self._take_back(mass)

    def deadline(self) -> float:
        waiting = [m.since for m in self._masses.values() if m.exchange != self._awaited]
        return min(waiting, default=float("inf")) + _DOUBT_S

    # --- pushing ---------------------------------------------------------------------------------

    def _next(self, candidates: Sequence[PeerId], now: float) -> _Mass | None:
        """A push to be repeated, else half of our mass for the next peer."""
        for mass in self._masses.values():
            if mass.peer in candidates and mass.peer not in self._asked:
                return mass
        if len(self._masses) >= _DOUBTS or self.weight < _LEAST:
            return None
        peer = self._cycle.next(candidates, self._asked)
        if peer is None:
            return None
        weight = min(self.weight / 2, limits.PUSH_WEIGHT_MAX)
        self.weight -= weight
        self._taken = 0
        mass = _Mass(peer, self._rng.randbytes(16), weight, self.replica.x.copy(), now)
        self._masses[mass.exchange] = mass
        return mass

    def _answered(self, mass: _Mass, message: ExchangeMessage) -> None:
        if isinstance(message, Pushed):
            del self._masses[mass.exchange]
            self._due -= self._due > 0
            self._renew()
            self._tell(mass.peer, distance=message.distance, proposed=True)
        elif isinstance(message, Refuse | Busy):
            self._take_back(mass)
            why = ("busy", "") if isinstance(message, Busy) else (refusal(message), message.detail)
            self._tell(mass.peer, *why, proposed=True)
        else:
            raise Unsupported(f"{type(message).__name__} in answer to Push")

    def _take_back(self, mass: _Mass) -> None:
        del self._masses[mass.exchange]
        self._add(mass.weight, mass.vector)

    # --- being pushed to -------------------------------------------------------------------------

    def _receive(
        self, sender: PeerId, message: ExchangeMessage, payload: Buffer, now: float
    ) -> Outgoing | None:
        if isinstance(message, Push):
            return Outgoing(sender, self._remembered(sender, message, payload))
        mass = self._masses.get(message.exchange)
        if mass is None or mass.peer != sender:
            return None
        if mass.exchange == self._awaited:
            self._awaited = None
        try:
            self._answered(mass, message)
        except RemoteError as error:
            self._tell(sender, error.reason, str(error), proposed=True)
            raise
        return None

    def _remembered(self, sender: PeerId, push: Push, payload: Buffer) -> Pushed | Refuse | Busy:
        """Our answer to this push, which is the same whenever it comes again."""
        answers = self._answers.pop(sender, None) or deque(maxlen=_ANSWERS)
        self._answers[sender] = answers  # whom we heard of last comes last
        if len(self._answers) > limits.PEERS_MAX:
            del self._answers[next(iter(self._answers))]
        for answer in answers:
            if answer.exchange == push.exchange:
                return answer
        answer = self._take(sender, push, payload)
        answers.append(answer)
        return answer

    def _take(self, sender: PeerId, push: Push, payload: Buffer) -> Pushed | Refuse | Busy:
        if unwilling := self._unwilling(push.exchange, push.lineage):
            return unwilling
        if self._taken >= _TAKEN or self.weight + push.weight > _MOST:
            return Busy(push.exchange)
        theirs = floats(payload, len(self.replica.x))
        self.heard(push.lineage)
        x, split = self.replica.x, self.replica.parameters
        distances = mixing.norm(theirs[:split], x[:split]), mixing.norm(theirs[split:], x[split:])
        plausible = all(self._bounds().factors(distances))
        self._note(sender, distances)
        if not plausible:
            detail = f"{distances[0]:.3g} away, far beyond recent peers"
            self._tell(sender, "implausible", detail, distances[0])
            return Refuse(push.exchange, "implausible", detail)
        self._add(push.weight, theirs)
        self._contraction.met(push.weight / self.weight)
        self._taken += 1
        self._tell(sender, distance=distances[0])
        return Pushed(push.exchange, distances[0])

    # --- both ------------------------------------------------------------------------------------

    def _add(self, weight: float, vector: Floats) -> None:
        """Take a mass in: x moves to the weighted mean."""
        self.weight += weight
        x = self.replica.moving()
        mixing.add_difference(x, vector, x, weight / self.weight)

    def _release(self) -> None:
        """A model that begins has the weight of one node, whatever the last one's was."""
        self.weight, self._taken = 1.0, 0
        self._masses.clear()
        self._awaited = None

    def _renew(self) -> None:
        self._asked.clear()
        self._attempts = self.config.attempts
