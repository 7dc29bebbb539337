"""How vectors move: progress, the outer step, the increment.  Pure functions, chunked, in place.

All vectors are float32 and one-dimensional.  Chunks stay in cache: whole-array numpy expressions on
large vectors cost several times more in memory traffic and page faults.
"""

from collections.abc import Iterator

import numpy as np

from covey.gossip.config import OuterStep
from covey.gossip.quantiser import Floats

_CHUNK = 1 << 16


def _chunks(length: int) -> Iterator[slice]:
    for start in range(0, length, _CHUNK):
        yield slice(start, min(start + _CHUNK, length))


def finite(vector: Floats) -> bool:
    """Whether every element is finite."""
    return all(np.isfinite(vector[part]).all() for part in _chunks(len(vector)))


def add_difference(x: Floats, new: Floats, old: Floats, weight: float = 1.0) -> None:
    """x <- x + weight (new - old); ``old`` may be x itself."""
    for part in _chunks(len(x)):
        difference = new[part] - old[part]
        if weight != 1.0:
            difference *= np.float32(weight)
        x[part] += difference


def outer_step(x: Floats, slow: Floats, momentum: Floats, step: OuterStep) -> None:
    """d <- x - phi; m <- alpha m + d; phi <- phi + gamma (d + alpha m); x <- phi.

    DiLoCo's Nesterov step (Douillard et al. 2023, section 2) on what a period brought, exchanges
    included; see stability.py for why it is not NoLoCo's heavy-ball.
    """
    alpha, gamma = np.float32(step.momentum), np.float32(step.rate)
    for part in _chunks(len(x)):
        moved = x[part] - slow[part]
        momentum[part] *= alpha
        momentum[part] += moved
        moved += alpha * momentum[part]
        moved *= gamma
        slow[part] += moved
        x[part] = slow[part]


def subtract(a: Floats, b: Floats, out: Floats) -> bool:
    """out <- a - b; whether any element is not zero."""
    changed = False
    for part in _chunks(len(a)):
        np.subtract(a[part], b[part], out=out[part])
        changed = changed or bool(out[part].any())
    return changed


def norm(vector: Floats, other: Floats | None = None) -> float:
    """Euclidean length of ``vector``, or of its float32 difference to ``other``; in float64."""
    total = 0.0
    for part in _chunks(len(vector)):
        with np.errstate(over="ignore"):  # then it is infinite, as it should be
            short = vector[part] if other is None else vector[part] - other[part]
        wide = short.astype(np.float64)
        total += float(np.einsum("i,i->", wide, wide))
    return float(np.sqrt(total))
