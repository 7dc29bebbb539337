"""A workload without torch, of which it is known what the mean must be."""

import numpy as np

from covey.gossip.quantiser import Floats
from covey.protocols.layout import Layout, Tensor
from covey.simulate.workload import Nodes, Score


class Strolls:
    """Each node walks at random from a common start; ``walked`` is where it would be alone."""

    def __init__(self, nodes: int, size: int = 300, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self.layout = Layout.of([Tensor("vector", (size,))])
        first = self._rng.standard_normal(size, np.float32)
        self.vectors: Floats = np.tile(first, (nodes, 1))
        self.walked = self.vectors.astype(np.float64)
        self.steps = np.zeros(nodes, np.int64)

    def step(self, nodes: Nodes) -> None:
        moves = np.float32(0.01) * self._rng.standard_normal(
            (len(nodes), self.vectors.shape[1]), np.float32
        )
        self.vectors[nodes] += moves
        self.walked[nodes] += moves
        self.steps[nodes] += 1

    def score(self, vectors: Floats) -> Score:
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        return Score(np.full(len(vectors), np.nan), lengths)
