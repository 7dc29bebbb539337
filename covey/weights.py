"""What an attachment needs of a model: to copy its vector out, to add to it, and to set it."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class Weights(Protocol):
    """A model seen as one float32 vector of the layout's size.  Arguments are valid only during
    the call."""

    def gather(self, into: Vector) -> None:
        """Copy the model into ``into``."""

    def add(self, increment: Vector) -> None:
        """Add ``increment`` to the live model."""

    def set(self, vector: Vector) -> None:
        """Make the model equal to ``vector``."""


class ArrayWeights:
    """A model that is one float32 array, changed in place."""

    def __init__(self, array: Vector) -> None:
        self.array = array

    def gather(self, into: Vector) -> None:
        np.copyto(into, self.array)

    def add(self, increment: Vector) -> None:
        self.array += increment

    def set(self, vector: Vector) -> None:
        np.copyto(self.array, vector)
