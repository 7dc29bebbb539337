"""How vectors move: progress, the outer step, the increment.  Pure functions, in place.

All vectors are float32 and one-dimensional.
"""

from dataclasses import dataclass
from math import fsum, sqrt

import numpy as np

from covey.gossip.config import OuterStep
from covey.gossip.kernels import chosen as kernels
from covey.gossip.quantiser import Moves, blocks_in
from covey.gossip.reference import LANES, Floats

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class State:
    """What the outer step moves: x, phi and m, and what it leaves: ``sums``, of each block of x the
    largest |x| and the sum of squares, shape (2, blocks)."""

    x: Floats
    slow: Floats
    momentum: Floats
    sums: Floats

    @property
    def sizes(self) -> Floats:
        sizes: Floats = self.sums[0]
        return sizes

    @property
    def energies(self) -> Floats:
        energies: Floats = self.sums[1]
        return energies

    @classmethod
    def of(cls, x: Floats, slow: Floats, momentum: Floats) -> "State":
        """Of these vectors, without the sums."""
        return cls(x, slow, momentum, np.zeros((2, blocks_in(len(x))), np.float32))


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


def follow(x: Floats, snapshot: Floats, movement: Floats, sizes: Floats) -> None:
    """``progress`` of a learner that had x: x <- snapshot.  sizes, one element per block, <- the
    largest |x|."""
    kernels.follow(x, snapshot, movement, sizes)


def outer_step(
    state: State, step: OuterStep, moves: Moves | None = None, increment: Floats | None = None
) -> bool:
    """x <- x + moves; then d <- x - phi; m <- alpha m + d; phi <- phi + gamma (d + alpha m);
    x <- phi.  ``increment`` <- by how much all that moved x; whether there is one and it did.

    DiLoCo's Nesterov step (Douillard et al. 2023, section 2) on what a period brought, exchanges
    included; see stability.py for why it is not NoLoCo's heavy-ball.  All in one pass: memory is
    what it costs.
    """
    vectors = state.x, state.slow, state.momentum, state.sums
    if moves is None:
        return kernels.outer_step(*vectors, None, None, increment, (0.0, step.momentum, step.rate))
    numbers = moves.weight, step.momentum, step.rate
    with moves.deep_added(state.x, increment):
        changed = kernels.outer_step(*vectors, moves.difference, moves.steps, increment, numbers)
    return changed or (increment is not None and len(moves.rows) > 0)


def subtract(a: Floats, b: Floats, out: Floats) -> bool:
    """out <- a - b; whether any element is not zero."""
    return kernels.subtract(a, b, out)


def median(rows: Floats, out: Floats) -> None:
    """out <- the median of each column, of two the larger: of up to 9 rows without NaN."""
    kernels.median(rows, out)


def norm(vector: Floats, other: Floats | None = None) -> float:
    """Euclidean length of ``vector``, or of its float32 difference to ``other``; in float64."""
    if not len(vector):
        return 0.0
    lanes = np.empty(LANES)
    sums: list[float] = []
    for first in range(0, len(vector), _CHUNK):
        part = slice(first, first + _CHUNK)
        kernels.squares(vector[part], None if other is None else other[part], lanes)
        sums += lanes.tolist()
    return sqrt(fsum(sums))
