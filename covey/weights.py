"""What an attachment needs of a model: to copy its vector out, to add to it, and to set it."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class Weights(Protocol):
    """A model seen as one float32 vector of the layout's size.  Arguments are valid only during
    the call, but for ``into``."""

    def gather(self, into: Vector, wait: bool = True) -> bool:
        """Copy the model as it is now into ``into``.

        False, which only comes without ``wait``: it is on its way.  Call again, with the same
        ``into``, until it is there; the model may be trained meanwhile, but not added to or set.
        """

    def add(self, increment: Vector) -> None:
        """Add ``increment`` to the live model."""

    def set(self, vector: Vector) -> None:
        """Make the model equal to ``vector``."""


class ArrayWeights:
    """A model that is one float32 array, changed in place."""

    def __init__(self, array: Vector) -> None:
        self.array = array

    def gather(self, into: Vector, wait: bool = True) -> bool:
        np.copyto(into, self.array)
        return True

    def add(self, increment: Vector) -> None:
        self.array += increment

    def set(self, vector: Vector) -> None:
        np.copyto(self.array, vector)
