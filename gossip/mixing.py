"""How vectors move: progress, the outer step, the increment.  Pure functions, in place.

All vectors are float32 and one-dimensional.
"""

from dataclasses import dataclass
from math import fsum, sqrt

import numpy as np

from covey.gossip.blocks import LANES, Floats
from covey.gossip.config import OuterStep
from covey.gossip.kernels import chosen as kernels
from covey.gossip.quantiser import Moves, blocks_in

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class State:
    """What the outer step moves: phi and m; and what it leaves: ``sums``, shape (3, blocks).

    Those are of each block the largest |phi|, the sum of its squares, and the largest |x - phi| of
    before."""

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

    @property
    def movement(self) -> Floats:
        movement: Floats = self.sums[2]
        return movement

    @classmethod
    def of(cls, slow: Floats, momentum: Floats) -> "State":
        """Of these vectors, without the sums."""
        return cls(slow, momentum, np.zeros((3, blocks_in(len(slow))), np.float32))


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
    """What a learner that had x, and has ``snapshot`` now, did: of each block, movement gains the
    largest |snapshot - x|, and sizes <- the largest |snapshot|."""
    kernels.follow(x, snapshot, movement, sizes)


def outer_step(
    x: Floats,
    state: State,
    step: OuterStep,
    moves: Moves | None = None,
    increment: Floats | None = None,
    learner: Floats | None = None,
) -> bool:
    """d <- x + moves - phi; m <- alpha m + d; phi <- phi + gamma (d + alpha m).

    ``x`` may be phi, and is of no use afterwards.  ``increment`` <- phi - ``learner``, by default
    the x that was given; whether there is one and it is not zero.

    DiLoCo's Nesterov step (Douillard et al. 2023, section 2) on what a period brought, exchanges
    included; see stability.py for why it is not NoLoCo's heavy-ball.  All in one pass: memory is
    what it costs.
    """
    codes, deep, numbers = None, None, (0.0, step.momentum, step.rate)
    if moves is not None:
        codes, numbers = (moves.difference, moves.steps), (moves.weight, *numbers[1:])
        deep = moves.add_deep(x)
    vectors = x, state.slow, state.momentum, learner, state.sums
    changed = kernels.outer_step(*vectors, codes, increment, numbers)
    if deep is not None and increment is not None and learner is None:
        deep.tell(state.slow, increment)
        changed = True
    return changed


def look_back(x: Floats, momentum: Floats, step: OuterStep) -> None:
    """x <- x - gamma alpha m: the point that Nesterov's step, which left x, looked ahead from."""
    ahead = np.float32(step.rate * step.momentum)
    for first in range(0, len(x), _CHUNK):
        part = slice(first, first + _CHUNK)
        x[part] -= ahead * momentum[part]


def subtract(a: Floats, b: Floats, out: Floats) -> bool:
    """out <- a - b; whether any element is not zero."""
    return kernels.subtract(a, b, out)


def median(rows: Floats, out: Floats) -> None:
    """out <- the median of each column, of two the larger: of up to 9 rows, none below 0 or NaN."""
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
