"""Averages of vectors of which some may lie: nearest-neighbour mixing, then a trimmed mean.

Nearest-neighbour mixing (NNM, Allouah et al. 2023) replaces each vector by the mean of those that
are nearest to it, which brings the honest ones together whatever their data; the coordinate-wise
trimmed mean (CWTM, Yin et al. 2018) of these drops the extremes.  With at most ``hostile`` liars
among m vectors, 2 hostile < m, it is inside the range of the honest rows in every coordinate.
How many to reckon with when peers are drawn at random: RPEL's hypergeometric tail (2025).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from covey.gossip.quantiser import Floats

_CHUNK = 1 << 14  # elements of each vector worked on at a time
_TAIL = 0.05  # how often more liars than reckoned with may be drawn in one round

Matrix = NDArray[np.float64]


def tolerated(others: int, pulls: int, share: float) -> int:
    """How many liars to reckon with among ``pulls`` random ones of ``others`` peers.

    ``share`` of all nodes lie, this one not.  The least number that is exceeded with probability
    0.05 at most, and always fewer than half of the pulled and our own vector.  A union bound over
    all rounds asks for far more pulls; 7 of which 3 may lie held at 20 % in all attacks measured.
    """
    liars = min(math.floor(share * (others + 1) + 1e-9), others)
    draws = math.comb(others, pulls)
    most = pulls // 2
    for number in range(most):
        drawn = range(number + 1, min(liars, pulls) + 1)
        beyond = sum(math.comb(liars, k) * math.comb(others - liars, pulls - k) for k in drawn)
        if beyond <= _TAIL * draws:
            return number
    return most


def robust_mean(own: Floats, others: Sequence[Floats], hostile: int) -> None:
    """own <- CWTM of NNM of ``own`` and ``others`` (float32, one length); see the module.

    Raises ValueError if half of the vectors or more may lie.
    """
    count = len(others) + 1
    if not 0 <= 2 * hostile < count:
        raise ValueError(f"{hostile} of {count} vectors may not lie")
    near = nearest(_squares(own, others), count - hostile)
    weights = np.zeros((count, count))
    np.put_along_axis(weights, near, 1 / near.shape[1], axis=1)
    for part in _chunks(len(own)):
        mixed = weights @ _apart(own, others, part)
        own[part] = own[part] + trimmed_mean(mixed, hostile)


def trimmed_mean(rows: Matrix, trim: int) -> Matrix:
    """The mean of each column without its ``trim`` least and greatest: shape (columns,)."""
    ordered = np.sort(rows, axis=0)
    kept: Matrix = ordered[trim : len(rows) - trim].mean(axis=0)
    return kept


def nearest(squares: Matrix, count: int) -> NDArray[np.intp]:
    """The ``count`` nearest of each, itself first, by squared distances: shape (all, count)."""
    places: NDArray[np.intp] = np.argsort(squares - np.eye(len(squares)), axis=1, kind="stable")
    return places[:, :count]


def _squares(own: Floats, others: Sequence[Floats]) -> Matrix:
    """Squared distances of all pairs, ``own`` first."""
    count = len(others) + 1
    gram = np.zeros((count, count))
    for part in _chunks(len(own)):
        apart = _apart(own, others, part)
        gram += apart @ apart.T
    lengths = np.diag(gram)
    squares: Matrix = np.maximum(lengths[:, None] + lengths - 2 * gram, 0)
    return squares


def _apart(own: Floats, others: Sequence[Floats], part: slice) -> Matrix:
    """What is left when ``own`` is subtracted: differences keep their precision in sums."""
    here = own[part].astype(np.float64)
    return np.stack([np.zeros_like(here), *(other[part] - here for other in others)])


def _chunks(length: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, length, _CHUNK)]
