"""How far a model has come since it began here, and how much of that one exchange may undo.

The gate and the clip know distances alone: a peer that sends the initial weights for ever is no
farther away than an honest one with other data, and it never tires, so that a fifth of such peers
holds a flock where it began.  Honest peers lead off into other directions, but they take no node
far back along its own way; early on by about a period's progress, then less and less, as all share
the same way.  With u the way from the beginning to x and d the difference to a peer, an exchange
undoes the share -d.u / u.u of it.  That may be two periods' worth at most, later a twentieth of
all: beyond it, d is scaled.

Some blocks, drawn at random and known to nobody else, stand for all.  The rule is covey's own.
"""

from math import fsum
from random import Random

import numpy as np

from covey.gossip.config import Screening
from covey.gossip.kernels import chosen as kernels
from covey.gossip.quantiser import BLOCK, Floats, Indices, blocks_in, gathered

_BLOCKS = 1024  # 65,536 parameters: 256 KiB tell the share to about a hundredth


class Progress:
    """The way of one model's parameters: float32, of one length."""

    def __init__(self, config: Screening, parameters: int, rng: Random) -> None:
        blocks = blocks_in(parameters)
        drawn = sorted(rng.sample(range(blocks), min(blocks, _BLOCKS)))
        self.blocks: Indices = np.array(drawn, np.intp)
        self._rows = self.blocks.astype(np.uint32)
        self._config = config
        self._began: Floats = np.zeros((len(drawn), BLOCK), np.float32)
        self._periods = 0

    def begin(self, parameters: Floats) -> None:
        """The model is ``parameters`` from here on."""
        self._began = gathered(parameters, self.blocks)
        self._periods = 0

    def close_period(self) -> None:
        self._periods += 1

    @property
    def undone_most(self) -> float:
        """The share of the way that one exchange may undo."""
        return max(self._config.undone_share, self._config.undone_periods / (1 + self._periods))

    def factor(self, parameters: Floats, differences: Floats) -> float:
        """In [0, 1]: what a difference is to be scaled by; ``differences`` has its ``blocks``."""
        lanes = np.empty((2, BLOCK))
        kernels.undone(parameters, self._rows, self._began, differences, lanes)
        ahead, length = map(fsum, lanes)
        most = self.undone_most * length
        return 1.0 if -ahead <= most else most / -ahead
