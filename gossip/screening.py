"""Whether an exchange is plausible, and how far it may move us: always on, from our own history.

The yard-stick is the distance to the peers of recent exchanges, for parameters and for buffers each
on its own.  Both sides state their bounds when an exchange opens and the smaller ones hold for
both, so clipping too is symmetric and preserves the mean; a peer that lies about its own bound can
only make the exchange gentler.

Sources: clipping to a quantile follows ClippedGossip (He, Karimireddy, Jaggi 2022) with the history
of distances in place of the neighbourhood; the median gate keeps one liar from stretching it.
"""

from collections import deque
from dataclasses import dataclass

from covey.gossip.config import Screening

_FARTHEST = 1e18  # no model is this far from another, whatever the history: float32 stays finite

Pair = tuple[float, float]  # of parameters and of buffers


@dataclass(frozen=True, slots=True)
class Bound:
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


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of both parts of the vector."""

    parameters: Bound
    buffers: Bound

    def both(self, other: "Bounds") -> "Bounds":
        return Bounds(self.parameters.both(other.parameters), self.buffers.both(other.buffers))

    def factors(self, distances: Pair) -> Pair:
        return self.parameters.factor(distances[0]), self.buffers.factor(distances[1])


class Screen:
    """The distances of this node's recent exchanges and the bound that follows from them.

    ``scale`` is the length of the vector itself, as far as it is known.
    """

    def __init__(self, config: Screening) -> None:
        self.scale = 0.0
        self._config = config
        self._distances: deque[float] = deque(maxlen=config.remembered)

    def bound(self) -> Bound:
        """What this node states when an exchange opens; hardly any until there is a history."""
        if len(self._distances) < self._config.unscreened:
            return Bound(_FARTHEST, _FARTHEST)
        # A flock that has agreed must not take its next movement for an attack.
        floor = self._config.negligible * self.scale
        distances = sorted(self._distances)
        reach = self._config.gate_ratio * max(_quantile(distances, 0.5), floor)
        clip = max(_quantile(distances, self._config.clip_quantile), floor)
        return Bound(min(reach, _FARTHEST), min(clip, _FARTHEST))

    def note(self, distance: float) -> None:
        """Remember a distance, refused or not: else a swarm that drifted apart never meets again.

        One exchange raises the history by a bounded factor only, so a liar cannot stretch it.  No
        distance at all is no yard-stick.
        """
        if distance > 0:
            self._distances.append(min(distance, self._config.growth * self.bound().clip))


def _quantile(ordered: list[float], share: float) -> float:
    """Between the two nearest of some sorted numbers, linearly."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
