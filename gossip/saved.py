"""What is left of a replica when its node ends."""

from dataclasses import dataclass

import numpy as np

from covey.gossip.quantiser import Floats


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint keeps: float32 vectors of the layout's size and of its parameters."""

    x: Floats
    slow: Floats
    momentum: Floats

    @classmethod
    def fresh(cls, vector: Floats, parameters: int) -> "Saved":
        """The beginning of a model: at ``vector``, at rest."""
        return cls(vector, vector[:parameters], np.zeros(parameters, np.float32))
