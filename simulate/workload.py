"""What the nodes of a simulation work on."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from covey.gossip.quantiser import Floats
from covey.protocols.layout import Layout

Nodes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Score:
    """How good models are: ``accuracy`` in [0, 1] (or NaN) and ``loss``, one value per model."""

    accuracy: NDArray[np.float64]
    loss: NDArray[np.float64]


class Workload(Protocol):
    """The live models of all nodes, and their local training."""

    @property
    def layout(self) -> Layout: ...

    @property
    def vectors(self) -> Floats:
        """float32 (nodes, size): views of the live models, written to by the world."""

    def step(self, nodes: Nodes) -> None:
        """One local step of each of ``nodes``."""

    def score(self, vectors: Floats) -> Score:
        """Of any models, float32 (count, size), on what nobody trains on."""
