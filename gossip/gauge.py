"""How far a learner moves in a period: what the scales of its next exchange expect of it.

The outer step tells in passing how far each block of x has moved, which spares a pass; but only
where that was the learner's doing alone.  Exchanges bring nodes together, so that they ask for no
coarser scale.  A block that rested in the last period is expected to move as before, less each
time.  Where that is no good guide, as when other blocks are trained each time, the periods to come
are measured; unless that is no better, as where peers differ by more than anybody moves.
"""

import numpy as np

from covey.gossip.quantiser import Floats

_STALE = 4  # periods for which a movement is a recent one's
_MEASURED = 8  # periods that are measured where movement was no good guide
_TRUSTED = 64  # periods that are not, if that was none either: then it was not the movement
_KEPT = np.float32(0.75)  # of a block's movement that it is expected to repeat, per period of rest


class Gauge:
    """Of so many blocks: ``movement`` is float32, the largest of each block."""

    def __init__(self, blocks: int) -> None:
        self.movement: Floats = np.zeros(blocks, np.float32)
        self._age = _STALE  # in periods
        self._measure = 0  # so many periods
        self._missed = 0  # of those measured, how many misled as well
        self._trust = 0  # so many periods, whatever happens
        self._measured = False  # this one was,
        self._misled = False  # and misled as well

    @property
    def recent(self) -> bool:
        """Whether it is of a recent period, so that this one's need not be measured."""
        return self._age < _STALE and not self._measure

    def measuring(self) -> Floats:
        """Where this period's movement is to be added: it is of no use if there is a recent one."""
        if self.recent:
            return np.empty_like(self.movement)
        self._measured = True
        return self.movement

    def close(self, told: Floats, plain: bool) -> None:
        """A period is over; ``told``: how far x moved in it, by the learner alone if ``plain``, but
        for the few blocks whose difference to a peer took further layers."""
        if plain:
            self.movement *= _KEPT
            np.maximum(self.movement, told, out=self.movement)
        self._age = 0 if plain or self._measured else self._age + 1
        self._trust = max(0, self._trust - 1)
        if self._measured and self._measure:
            self._measure -= 1
            self._missed += self._misled
            if not self._measure and 2 * self._missed > _MEASURED:
                self._trust = _TRUSTED
        self._measured = self._misled = False
        if not self.recent:
            self.movement.fill(0)  # to be measured

    def mislead(self) -> None:
        """Many blocks were farther apart than their scales said."""
        if self._measured:
            self._misled = True
        elif self.recent and not self._trust:
            self.movement.fill(0)
            self._measure, self._missed = _MEASURED, 0

    def reset(self) -> None:
        """Nothing is known: of another model, or without training."""
        self.movement.fill(0)
        self._age, self._measured, self._misled = _STALE, False, False
        self._measure = self._missed = self._trust = 0
