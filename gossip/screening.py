"""Whether an exchange is plausible, and how far it may move us: always on, from our own history.

The yard-stick is the distance to the peers of recent exchanges.  Both sides state their bounds when
an exchange opens and the smaller ones hold for both, so clipping too is symmetric and preserves the
mean; a peer that lies about its own bound can only make the exchange gentler.

Sources: clipping to a quantile follows ClippedGossip (He, Karimireddy, Jaggi 2022) with the history
of distances in place of the neighbourhood; the median gate keeps one liar from stretching it.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from covey.gossip.config import Screening


@dataclass(frozen=True, slots=True)
class Bounds:
    """Distances in the norm of the vector: beyond ``reach`` refused, beyond ``clip`` clipped."""

    reach: float
    clip: float

    def both(self, other: "Bounds") -> "Bounds":
        """What holds for an exchange of two: the smaller of each."""
        return Bounds(min(self.reach, other.reach), min(self.clip, other.clip))

    def factor(self, distance: float) -> float:
        """In [0, 1]: what the difference is scaled by; 0 refuses the exchange."""
        if distance > self.reach:
            return 0.0
        return 1.0 if distance <= self.clip else self.clip / distance


class Screen:
    """The distances of this node's recent exchanges and the bounds that follow from them."""

    def __init__(self, config: Screening) -> None:
        self._config = config
        self._distances: deque[float] = deque(maxlen=config.remembered)

    def bounds(self) -> Bounds:
        """What this node states when an exchange opens; infinite until there is a history."""
        if len(self._distances) < self._config.unscreened:
            return Bounds(float("inf"), float("inf"))
        distances = np.array(self._distances)
        return Bounds(
            reach=self._config.gate_ratio * float(np.median(distances)),
            clip=float(np.quantile(distances, self._config.clip_quantile)),
        )

    def note(self, distance: float) -> None:
        """Remember a distance, refused or not: else a swarm that drifted apart never meets again.

        One exchange raises the history by a bounded factor only, so a liar cannot stretch it.
        """
        self._distances.append(min(distance, self._config.growth * self.bounds().clip))
