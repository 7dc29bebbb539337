"""How far apart blocks were in recent exchanges: what the next one's scales expect.

The median of each block's largest difference: a few liars cannot move it.
"""

import numpy as np

from covey.gossip import mixing
from covey.gossip.quantiser import Floats

_HISTORY = 9  # exchanges whose largest differences make the typical one of a block


class History:
    """Of so many blocks; all float32, one element per block."""

    def __init__(self, blocks: int) -> None:
        self._largest: Floats = np.zeros((_HISTORY, blocks), np.float32)
        self._remembered = 0  # exchanges; the latest of them are kept
        self._typical: Floats = np.zeros(blocks, np.float32)
        self._news: list[Floats] = []  # what is to be remembered, and that does not know of

    def remember(self, largest: Floats) -> None:
        """Keep the largest differences of an exchange: the array itself, until ``typical``."""
        self._news.append(largest)

    def typical(self) -> Floats:
        """Median over recent exchanges of each block's largest difference; zero without any."""
        if self._news:
            for largest in self._news:
                self._largest[self._remembered % _HISTORY] = largest
                self._remembered += 1
            self._news.clear()
            known = self._largest[: self._remembered]
            mixing.median(known, self._typical)  # of two the larger: safe
        return self._typical

    def forget(self) -> None:
        """What was remembered was of another model."""
        self._news.clear()
        self._remembered = 0
        self._typical.fill(0)
