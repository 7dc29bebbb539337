"""Vectors without training: how fast a large flock agrees, and what that costs.

All begin at zero; with its first step each node goes a unit normal step of its own per coordinate,
with later ones only ``noise``.  What follows is averaging alone, so many nodes take little time.
The mean is shorter the more nodes there are, so that the disagreement relative to it begins at
sqrt(n).
"""

import numpy as np

from covey.gossip.quantiser import Floats
from covey.protocols.layout import Layout, Tensor
from covey.simulate.workload import Nodes, Score


class Consensus:
    """A workload of ``nodes`` vectors, float32 of ``size`` elements.

    The score's loss is a vector's distance to the mean of all, in units of the first scattering: 1
    before any exchange, 0 at agreement.  There is no accuracy (NaN).
    """

    def __init__(self, nodes: int, size: int, seed: int, noise: float = 0.0) -> None:
        """``noise``: standard deviation of each later step, per coordinate."""
        self._rng = np.random.default_rng([seed, 5])
        self._noise = noise
        self._fresh = np.ones(nodes, bool)  # yet to take the first step
        self.layout = Layout.of([Tensor("vector", (size,))])
        self.vectors: Floats = np.zeros((nodes, size), np.float32)

    def step(self, nodes: Nodes) -> None:
        lengths = np.where(self._fresh[nodes], 1.0, self._noise).astype(np.float32)
        self._fresh[nodes] = False
        if lengths.any():
            steps = self._rng.standard_normal((len(nodes), self.vectors.shape[1]), np.float32)
            self.vectors[nodes] += lengths[:, None] * steps

    def score(self, vectors: Floats) -> Score:
        mean = self.vectors.mean(axis=0, dtype=np.float64)
        squares = np.square(vectors - mean).sum(axis=1) / vectors.shape[1]
        return Score(np.full(len(vectors), np.nan), np.sqrt(squares))
