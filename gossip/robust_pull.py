"""Robust pull: ask several random peers for their vectors and mix them so that a few may lie.

Epidemic learning by pulling (RPEL, 2025): liars cannot flood, since each node chooses whom it asks;
own and pulled vectors are mixed by nearest-neighbour mixing and a trimmed mean (aggregation.py),
and the outer step closes the period as for pairs.  Our own part in the mixing is x as the last
period left it, and the learner's progress is added to the outcome: nodes do not move at the same
time, so to a trimmed mean whoever has just moved looks like a liar, and nobody would get anywhere.

Whatever a minority within each round's bound sends, a node stays near what the honest sent; should
chance draw more liars once, the gate of screening.py bounds what they do.  It costs ``pulls`` times
the bytes of a pair exchange, and the mean is preserved in expectation only: choose it when more
than a tenth of the members may lie.

    puller  ── Pull(scales) ──────────────────► (its x is read, not locked)
            ◄──────── Pulled(scales, layer 0) ──

A block that layer 0 leaves unsure counts as equal to ours; a vector with many such is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np

from covey.gossip import mixing
from covey.gossip.aggregation import robust_mean, tolerated
from covey.gossip.codecs import Buffer, Coder, coder, scales_size, split
from covey.gossip.config import Config
from covey.gossip.core import Core, Outgoing, refusal
from covey.gossip.quantiser import RANGE_PER_SCALE, Floats
from covey.gossip.replica import Saved
from covey.gossip.sampling import Cycle
from covey.protocols.errors import RemoteError, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import ExchangeMessage, Lineage, Pull, Pulled, Refuse


@dataclass(frozen=True, slots=True)
class _Asked:
    """A pull under way."""

    peer: PeerId
    exchange: bytes
    coder: Coder
    round: "_Round"
    most: Floats  # what our scales could express, per block


@dataclass(slots=True)
class _Round:
    """The pulls that are mixed at once."""

    pulls: int
    attempts: int
    hostile: int
    asked: set[PeerId] = field(default_factory=set)
    vectors: list[Floats] = field(default_factory=list)
    largest: list[Floats] = field(default_factory=list)  # differences per block, of all answers


class RobustPull(Core):
    """A node that pulls; others may pull from it at any time."""

    algorithm = "robust-pull"

    def __init__(self, me: PeerId, config: Config, layout: Layout, rng: Random) -> None:
        super().__init__(me, config, layout, rng)
        self._cycle = Cycle(rng)
        self._open: _Asked | None = None
        self._round: _Round | None = None
        self._base = self.replica.x.copy()  # x without the progress of this period

    @property
    def busy(self) -> bool:
        return self._open is not None

    def open_period(self, exchanges: int | None = None) -> None:
        self._due = self.config.exchanges if exchanges is None else exchanges
        self._round = None

    def restore(self, saved: Saved, lineage: Lineage) -> None:
        super().restore(saved, lineage)
        np.copyto(self._base, self.replica.x)

    def close_period(self, partners: int, out: Floats | None = None) -> bool:
        self._round = None
        made = super().close_period(partners, out)
        np.copyto(self._base, self.replica.x)
        return made

    def look_back(self) -> None:
        super().look_back()
        np.copyto(self._base, self.replica.x)  # it is no progress to be added again

    def propose(self, candidates: Sequence[PeerId], now: float) -> Outgoing | None:
        if self.busy or not self._due:
            return None
        present = set(candidates)
        for screen in self._screens:
            screen.keep(present)
        if self._round is None:
            pulls = min(self.config.pulls, len(candidates))
            hostile = tolerated(len(candidates), pulls, self.config.hostile_share)
            self._round = _Round(pulls, pulls + self.config.attempts - 1, hostile)
        asking = self._round
        peer = self._cycle.next(candidates, asking.asked) if asking.attempts else None
        if peer is None:
            self._mix(asking)
            self._due = 0
            return None
        asking.attempts -= 1
        asking.asked.add(peer)
        side = self._side()
        opened = coder(self.config.codec, side)
        exchange = self._rng.randbytes(16)
        self._open = _Asked(peer, exchange, opened, asking, side.scales * RANGE_PER_SCALE)
        return Outgoing(peer, Pull(exchange, opened.name, self.lineage), opened.scales())

    def failed(
        self, peer: PeerId, reason: str, detail: str = "", exchange: bytes | None = None
    ) -> None:
        asked = self._open
        if asked is not None and asked.peer == peer and exchange in (None, asked.exchange):
            self._end(asked, reason, detail)

    def tick(self, now: float) -> None:
        """Nothing: the caller's request has its own deadline."""

    def deadline(self) -> float:
        return float("inf")

    # --- inside ----------------------------------------------------------------------------------

    def _receive(
        self, sender: PeerId, message: ExchangeMessage, payload: Buffer, now: float
    ) -> Outgoing | None:
        if isinstance(message, Pull):
            return self._pulled_from(sender, message, payload)
        asked = self._open
        if asked is None or (asked.peer, asked.exchange) != (sender, message.exchange):
            return None
        try:
            self._answered(asked, message, payload)
        except RemoteError as error:
            self._end(asked, error.reason, str(error))
            raise
        return None

    def _pulled_from(self, sender: PeerId, pull: Pull, payload: Buffer) -> Outgoing:
        if unwilling := self._unwilling(pull.exchange, pull.lineage):
            return Outgoing(sender, unwilling)
        try:
            given = coder(pull.codec, self._side())
        except Unsupported as error:
            return Outgoing(sender, Refuse(pull.exchange, "codec", str(error)))
        nonce = self._rng.randbytes(16)
        given.open(payload, pull.exchange + nonce)
        self.heard(pull.lineage)
        answer = bytearray(given.scales())
        answer += given.write()
        return Outgoing(sender, Pulled(pull.exchange, nonce), answer)

    def _answered(self, asked: _Asked, message: ExchangeMessage, payload: Buffer) -> None:
        if isinstance(message, Refuse):
            self._end(asked, refusal(message), message.detail)
        elif isinstance(message, Pulled):
            self._decode(asked, message, payload)
        else:
            raise Unsupported(f"{type(message).__name__} in answer to Pull")

    def _decode(self, asked: _Asked, message: Pulled, payload: Buffer) -> None:
        """Keep the peer's vector for the round's mixing, if it is plausible."""
        opened, asking = asked.coder, asked.round
        scales, layer = split(payload, scales_size(opened.name, self.replica.parameters))
        opened.open(scales, asked.exchange + message.nonce)
        opened.write()  # codes are read against our own
        opened.read(layer)
        opened.skip()
        distances, largest = opened.outcome(asked.most)
        undecoded, reason, detail = opened.undecoded, "", ""
        if undecoded > self.config.screening.undecoded_share:
            reason, detail = "undecoded", f"{undecoded:.0%} of the blocks are too far apart"
        else:  # then the distance is that of nearly the whole vector
            plausible = all(self._bounds().factors(distances))
            self._note(asked.peer, distances)
            if not plausible:
                reason, detail = "implausible", f"{distances[0]:.3g} away, far beyond recent peers"
        asking.largest.append(largest)
        if not reason:
            vector = self.replica.x.copy()
            opened.apply(vector, (1.0, 1.0))
            asking.vectors.append(vector)
        self._end(asked, reason, detail, distances[0])
        if len(asking.largest) == asking.pulls:
            self._mix(asking)
            self._due -= 1

    def _mix(self, asking: _Round) -> None:
        """x <- the robust mean; nothing if fewer answered than a majority of honest ones needs."""
        self._round = None
        if not asking.largest or len(asking.largest) < 2 * asking.hostile:
            return
        vectors = asking.vectors
        refused = len(asking.largest) - len(vectors)  # these were liars, as far as anyone can tell
        hostile = min(max(asking.hostile - refused, 0), len(vectors) // 2)
        middle, mixed = self.replica.parameters, self._base.copy()
        robust_mean(mixed[:middle], [vector[:middle] for vector in vectors], hostile)
        # Buffers on their own: a vector may be honest in one part only.
        robust_mean(mixed[middle:], [vector[middle:] for vector in vectors], hostile)
        mixing.add_difference(self.replica.moving(), mixed, self._base)
        self._base = mixed
        self._contraction.averaged(1 + len(vectors))
        # A liar's differences must not make our scales coarser than an honest one's may.
        honest = np.sort(asking.largest, axis=0)[-1 - asking.hostile]
        for largest in asking.largest:
            self.replica.history.remember(np.minimum(largest, honest))

    def _end(self, asked: _Asked, reason: str, detail: str = "", distance: float = 0.0) -> None:
        self._tell(asked.peer, reason, detail, distance, proposed=True)
        self._open = None

    def _release(self) -> None:
        self._open, self._round = None, None
