"""Whether nodes that meet at random stay together under an outer step with momentum.

A period's exchanges leave the share 1 - c of the squared distances to the mean, in expectation (c,
the contraction: 1/2 for one perfect matching of many nodes).  With d = W phi - phi the outer step

    m <- alpha m + d;  phi <- phi + gamma (d + alpha m)

is linear in the deviations (phi, m), so their second moments (E phi², E phi m, E m²) follow a 3 x 3
matrix, since E[phi d] = -c phi² and E[d²] = c phi² (a matching's averaging is a projection).  Nodes
stay together if and only if its spectral radius is below 1.

That is why the step is Nesterov's.  At one matching per period and rate 0.7, NoLoCo's heavy-ball
drifts apart from momentum 0.81 on and needs two nodes to hide it; the look-ahead is stable at
DiLoCo's 0.9.  Where fewer exchanges succeed than planned, momentum must give way: each node follows
the contraction that it sees itself.
"""

from functools import lru_cache

_STEADY = 0.95  # the largest radius that is wanted
_NOTCHES = 20  # of momentum in [0, 1), so that nodes which see about the same take the same
_MEMORY = 16  # periods that an estimate goes back, about


@lru_cache
def spread_radius(momentum: float, rate: float, contraction: float) -> float:
    """Spectral radius of the recursion, to 1e-6; from 1 on, nodes drift apart."""
    low, high = 0.0, 1.0
    while not _within(high, momentum, rate, contraction):
        low, high = high, 2 * high
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _within(middle, momentum, rate, contraction):
            high = middle
        else:
            low = middle
    return high


def _within(radius: float, momentum: float, rate: float, contraction: float) -> bool:
    """Whether all eigenvalues are smaller than ``radius``: Jury's test of the characteristic
    polynomial, in place of a library that the command line would have to load for it."""
    a, c = momentum, contraction
    ahead = rate * (1 + a)  # what a movement d adds to phi at once
    kept = rate * a * a  # what the old momentum adds to it
    (p, q, r), (s, t, u), (v, w, x) = (
        (1 + (ahead**2 - 2 * ahead) * c, 2 * kept * (1 - ahead * c), kept**2),
        ((ahead - 1) * c, a - (ahead * a + kept) * c, kept * a),
        (c, -2 * a * c, a * a),
    )
    second = -(p + t + x) / radius
    first = (p * t - q * s + p * x - r * v + t * x - u * w) / radius**2
    last = -(p * (t * x - u * w) - q * (s * x - u * v) + r * (s * w - t * v)) / radius**3
    return (
        abs(last) < 1
        and 1 + second + first + last > 0
        and 1 - second + first - last > 0
        and abs(first - second * last) < 1 - last**2
    )


@lru_cache
def steady_momentum(most: float, rate: float, percent: int) -> float:
    """The largest momentum up to ``most`` that keeps nodes well together while a period's exchanges
    contract by ``percent`` of 100; 0 if none does."""
    for notch in range(_NOTCHES, 0, -1):
        momentum = min(most, notch / _NOTCHES)
        if _within(_STEADY, momentum, rate, percent / 100):
            return momentum
    return 0.0


def affordable_momentum(rate: float, nodes: int) -> float:
    """The momentum at which a flock goes ``nodes`` / 2 times as far as its average progress asks.

    Momentum makes a steady movement rate / (1 - momentum) times as long.  The average of many nodes
    is short, for their progress partly cancels, and steady; that of two is nearly what each wants
    itself, and at 7 times that (DiLoCo's 0.9) three nodes on a small task lose all they learned.
    """
    return max(0.0, 1 - 2 * rate / nodes)


class Contraction:
    """The contraction that a node's own exchanges amount to, averaged over periods."""

    def __init__(self, exchanges: int) -> None:
        """``exchanges`` per period are expected until there is more to go by."""
        self._left = 0.5**exchanges
        self._now = 1.0

    def met(self, weight: float) -> None:
        """The node moved by the share ``weight`` towards another, which moved as well."""
        self._now *= 1 - 2 * weight * (1 - weight)

    def averaged(self, count: int) -> None:
        """The node took the average of ``count`` vectors, its own among them."""
        self._now /= count

    def close(self) -> None:
        """A period is over."""
        self._left += (self._now - self._left) / _MEMORY
        self._now = 1.0

    @property
    def percent(self) -> int:
        return round(100 * (1 - self._left))
