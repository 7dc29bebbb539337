"""How vectors move: progress, the outer step, the increment.  Pure functions, in place.

All vectors are float32 and one-dimensional.
"""

from math import fsum, sqrt

import numpy as np

from covey.gossip.config import OuterStep
from covey.gossip.kernels import chosen as kernels
from covey.gossip.reference import LANES, Floats

_CHUNK = 1 << 16


def finite(vector: Floats) -> bool:
    """Whether every element is finite."""
    return kernels.is_finite(vector)


def add_difference(x: Floats, new: Floats, old: Floats, weight: float = 1.0) -> None:
    """x <- x + weight (new - old); ``old`` may be x itself."""
    kernels.add_difference(x, new, old, weight)


def progress(x: Floats, learner: Floats, snapshot: Floats, movement: Floats) -> None:
    """x <- x + snapshot - learner; learner <- snapshot; movement, one element per block, gains the
    largest |snapshot - learner|."""
    kernels.progress(x, learner, snapshot, movement)


def outer_step(x: Floats, slow: Floats, momentum: Floats, step: OuterStep) -> None:
    """d <- x - phi; m <- alpha m + d; phi <- phi + gamma (d + alpha m); x <- phi.

    DiLoCo's Nesterov step (Douillard et al. 2023, section 2) on what a period brought, exchanges
    included; see stability.py for why it is not NoLoCo's heavy-ball.
    """
    kernels.outer_step(x, slow, momentum, step.momentum, step.rate)


def subtract(a: Floats, b: Floats, out: Floats) -> bool:
    """out <- a - b; whether any element is not zero."""
    return kernels.subtract(a, b, out)


def median(rows: Floats, out: Floats) -> None:
    """out <- the median of each column, of two the larger: of up to 9 rows without NaN."""
    kernels.median(rows, out)


def norm(vector: Floats, other: Floats | None = None) -> float:
    """Euclidean length of ``vector``, or of its float32 difference to ``other``; in float64."""
    lanes = np.empty(LANES)
    sums: list[float] = []
    for first in range(0, len(vector), _CHUNK):
        part = slice(first, first + _CHUNK)
        kernels.squares(vector[part], None if other is None else other[part], lanes)
        sums += lanes.tolist()
    return sqrt(fsum(sums))
