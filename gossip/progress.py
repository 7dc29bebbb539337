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

from random import Random

import numpy as np

from covey.gossip.config import Screening
from covey.gossip.quantiser import BLOCK, Floats, Indices, blocks_in, gathered

_BLOCKS = 1024  # 65,536 parameters: 256 KiB tell the share to about a hundredth


class Progress:
    """The way of one model's parameters: float32, of one length."""

    def __init__(self, config: Screening, parameters: int, rng: Random) -> None:
        blocks = blocks_in(parameters)
        drawn = sorted(rng.sample(range(blocks), min(blocks, _BLOCKS)))
        self.blocks: Indices = np.array(drawn, np.intp)
        self._config = config
        self._began: Floats = np.zeros((len(drawn), BLOCK), np.float32)
        self._periods = 0

    def begin(self, parameters: Floats) -> None:
        """The model is ``parameters`` from here on."""
        self._began = self._drawn(parameters).copy()
        self._periods = 0

    def close_period(self) -> None:
        self._periods += 1

    @property
    def undone_most(self) -> float:
        """The share of the way that one exchange may undo."""
        return max(self._config.undone_share, self._config.undone_periods / (1 + self._periods))

    def factor(self, parameters: Floats, differences: Floats) -> float:
        """In [0, 1]: what a difference is to be scaled by; ``differences`` has its ``blocks``."""
        way = self._drawn(parameters) - self._began
        back = -_product(differences, way)
        if back <= 0:
            return 1.0
        most = self.undone_most * _product(way, way)
        return 1.0 if back <= most else most / back

    def _drawn(self, parameters: Floats) -> Floats:
        """The blocks that stand for all; of a small model all of them, which need no copying."""
        if len(self.blocks) * BLOCK == len(parameters):
            return parameters.reshape(-1, BLOCK)
        return gathered(parameters, self.blocks)


def _product(a: Floats, b: Floats) -> float:
    return float(np.einsum("ij,ij->", a, b, dtype=np.float64))
