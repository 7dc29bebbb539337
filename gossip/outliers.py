"""Which peers are farther from all the others than is usual: told by what each says of itself.

A peer that learns what contradicts the others, from wrong labels say, sends vectors that are
plausible one by one, and a node that meets it now and then cannot tell its distance from chance.
But it is that far from everyone, and knows it: the bounds that a side states when an exchange opens
are quantiles of its own distances.  So a node compares a peer's bounds with its own, and that ratio
with the median of all peers' ratios; ratios, because in the course of learning distances rise and
fall for all alike.  Up to 5 % more is usual, or the median deviation where that is more; beyond it
an exchange counts for less, from three times as much on for nothing.  Less alone would not do: a
peer that is only held off leads farther off, and then pushes as hard as before.

It takes peers at their word.  One that states less than is true is clipped to less, as the smaller
bound holds for both; what it can hide is itself, behind bounds like everyone's: it then moves
others as far as the clip allows.  The rule is covey's own.
"""

from math import log
from statistics import median

from covey.gossip.config import Screening
from covey.gossip.screening import Bound
from covey.protocols.identity import PeerId

_PEERS = 10  # of fewer, a median tells little
_LEAST, _FARTHEST = 1e-18, 1e18  # distances are compared by their logarithms


class Outliers:
    """How each peer's bounds compared with ours when we last met."""

    def __init__(self, config: Screening) -> None:
        self._config = config
        self._ratios: dict[PeerId, float] = {}  # logarithms; whom we met last comes last
        self._noted = 0

    def note(self, peer: PeerId, ours: Bound, theirs: Bound) -> None:
        """What both stated as an exchange opened.  Without a history, as after it has copied a
        model, nothing is said by it, nor by what it stated before."""
        if ours.reach <= ours.clip:
            return
        self._ratios.pop(peer, None)
        if theirs.reach <= theirs.clip:
            return
        self._ratios[peer] = _typical(theirs) - _typical(ours)
        self._noted += 1
        if len(self._ratios) > self._config.remembered:
            del self._ratios[next(iter(self._ratios))]

    def factor(self, peer: PeerId) -> float:
        """In [0, 1]: what an exchange with ``peer`` counts for; 1 until enough were noted."""
        few = self._noted < self._config.remembered or len(self._ratios) < _PEERS
        if few or peer not in self._ratios:
            return 1.0
        usual = median(self._ratios.values())
        deviation = median(abs(ratio - usual) for ratio in self._ratios.values())
        spread = max(self._config.outlying, deviation)
        return max(0.0, min(1.0, (3 - (self._ratios[peer] - usual) / spread) / 2))


def _typical(bound: Bound) -> float:
    """The logarithm of a distance between both, which varies less by chance than either."""
    clip, reach = (log(max(_LEAST, min(distance, _FARTHEST))) for distance in bound)
    return (clip + reach) / 2
