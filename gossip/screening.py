"""Whether an exchange is plausible, and how far it may move us: always on, from our own history.

The yard-stick is the distance to the peers of recent exchanges, for parameters and for buffers each
on its own.  Both sides state their bounds when an exchange opens and the smaller ones hold for
both, so clipping too is symmetric and preserves the mean; a peer that lies about its own bound can
only make the exchange gentler.

Sources: clipping to a quantile follows ClippedGossip (He, Karimireddy, Jaggi 2022) with the history
of distances in place of the neighbourhood; a gate that follows a quantile keeps a minority of liars
from stretching it.  Of the history's 70 %, not the median: where a cut has healed, whoever meets
the other part is to take it for a part of the flock before half of all it meets are of it.
"""

from collections.abc import Set
from typing import NamedTuple

from covey.gossip.config import Screening
from covey.protocols.identity import PeerId

_FARTHEST = 1e18  # no model is this far from another, whatever the history: float32 stays finite

Pair = tuple[float, float]  # of parameters and of buffers


class Bound(NamedTuple):
    """Distances in the norm of the vector: beyond ``reach`` refused, beyond ``clip`` clipped."""

    reach: float
    clip: float

    def both(self, other: "Bound") -> "Bound":
        """What holds for an exchange of two: the smaller of each."""
        return Bound(min(self.reach, other.reach), min(self.clip, other.clip))

    def factor(self, distance: float) -> float:
        """In [0, 1]: what the difference is scaled by; 0 refuses it."""
        if not distance <= self.reach:
            return 0.0
        return 1.0 if distance <= self.clip else self.clip / distance


class Bounds(NamedTuple):
    """The bounds of both parts of the vector."""

    parameters: Bound
    buffers: Bound

    def both(self, other: "Bounds") -> "Bounds":
        return Bounds(self.parameters.both(other.parameters), self.buffers.both(other.buffers))

    def factors(self, distances: Pair) -> Pair:
        return self.parameters.factor(distances[0]), self.buffers.factor(distances[1])


class Screen:
    """The distances to the peers of this node's exchanges and the bound that follows from them.

    Every peer has as many votes as any other, however often it calls: one that floods us cannot
    move the quantiles, and a flock of which a good part drifted away is soon plausible again.
    ``scale`` is the length of the vector itself, ``moved`` how far its learner went since the model
    began here: all the yard-stick there is for the first peers, who began at the same weights.
    """

    def __init__(self, config: Screening) -> None:
        self.scale = 0.0
        self.moved = 0.0
        self._config = config
        self._distances: dict[PeerId, list[float]] = {}  # whom we met last comes last
        self._yardstick: tuple[float, float] | None = None  # gate and clip quantile, if known
        self._most = _FARTHEST  # that the bound is without a history

    def begin(self) -> None:
        """The model is a peer's now, of the same beginning: what was far before, still is."""
        self._most = self.bound().reach
        self.moved = 0.0
        self._distances.clear()
        self._yardstick = None

    def bound(self) -> Bound:
        """What this node states when an exchange opens; hardly any until there is a history."""
        if self._yardstick is None:
            return self._first()
        usual, quantile = self._yardstick
        # A flock that has agreed must not take its next movement for an attack.
        floor = self._config.negligible * self.scale
        reach = self._config.gate_ratio * max(usual, floor)
        return Bound(min(reach, _FARTHEST), min(max(quantile, floor), _FARTHEST))

    def note(self, peer: PeerId, distance: float) -> None:
        """Remember a distance, refused or not: else a swarm that drifted apart never meets again.

        It counts as a bounded factor above the usual at most, so that a majority of liars, or the
        only peer, stretches the bound slowly.  No distance at all is no yard-stick.
        """
        if not distance > 0:
            return
        most = self.bound().reach / self._config.gate_ratio * self._config.growth
        seen = [*self._distances.pop(peer, []), min(distance, most, _FARTHEST)]
        self._distances[peer] = seen[-self._config.remembered :]
        if len(self._distances) > self._config.remembered:
            del self._distances[next(iter(self._distances))]
        self._yardstick = self._quantiles()

    @property
    def settled(self) -> bool:
        """Whether there is a history, so that ``moved`` no longer matters."""
        return self._yardstick is not None

    def _first(self) -> Bound:
        """Whoever began at the same weights is as far as either has moved since, about."""
        reach = min(self._config.first_reach, _FARTHEST)
        known = self.scale + self.moved > 0 and reach < _FARTHEST
        most = min(max(self.scale, reach * self.moved), self._most) if known else self._most
        return Bound(most, most)

    def keep(self, peers: Set[PeerId]) -> None:
        """Drop the votes of all but ``peers``, as long as enough are left to have a bound."""
        if self._too_few or self._distances.keys() <= peers:
            return
        left = {peer: seen for peer, seen in self._distances.items() if peer in peers}
        if sum(len(seen) for seen in left.values()) >= self._config.unscreened:
            self._distances = left
            self._yardstick = self._quantiles()

    @property
    def _too_few(self) -> bool:
        """Whether all distances together are not enough to have a bound."""
        return sum(map(len, self._distances.values())) < self._config.unscreened

    def _quantiles(self) -> tuple[float, float] | None:
        """Gate and clip quantile of the latest distances, as many of each peer as make up the
        number remembered; None while they are too few."""
        if self._too_few:
            return None
        each = self._config.remembered // max(1, len(self._distances))
        votes = sorted(value for seen in self._distances.values() for value in seen[-each:])
        if len(votes) < self._config.unscreened:
            return None
        return (
            _quantile(votes, self._config.gate_quantile),
            _quantile(votes, self._config.clip_quantile),
        )


def _quantile(ordered: list[float], share: float) -> float:
    """Between the two nearest of some sorted numbers, linearly."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
