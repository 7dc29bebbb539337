"""How far a learner moves in a period: what the scales of its next exchange expect of it.

The outer step tells in passing how far each block of x has moved, which spares a pass; but only
where that was the learner's doing alone.  Exchanges bring nodes together, so that they ask for no
coarser scale.
"""

import numpy as np

from covey.gossip.quantiser import Floats

_STALE = 4  # periods for which a movement is a recent one's


class Gauge:
    """Of so many blocks: ``movement`` is float32, the largest of each block."""

    def __init__(self, blocks: int) -> None:
        self.movement: Floats = np.zeros(blocks, np.float32)
        self._age = _STALE  # in periods

    @property
    def recent(self) -> bool:
        """Whether it is of a recent period, so that this one's need not be measured."""
        return self._age < _STALE

    def measuring(self) -> Floats:
        """Where this period's movement is to be added: it is of no use if there is a recent one."""
        return np.empty_like(self.movement) if self.recent else self.movement

    def close(self, told: Floats, plain: bool) -> None:
        """A period is over; ``told``: how far x moved in it, by the learner alone if ``plain``."""
        if plain:
            np.copyto(self.movement, told)
        self._age = 0 if plain or not self.recent else self._age + 1
        if not self.recent:
            self.movement.fill(0)  # to be measured

    def reset(self) -> None:
        """Nothing is known: of another model, or without training."""
        self.movement.fill(0)
        self._age = _STALE
