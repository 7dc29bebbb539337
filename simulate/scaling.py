"""What more nodes cost: bytes per node and period, and periods until they agree.

A real world in the default code with plain averaging, on vectors that begin independent of each
other.  Each node meets as many others however many there are, so its bytes do not depend on the
flock; relative to the mean, which is short among many, disagreement begins at sqrt(n) and shrinks
by a constant share a period, so that agreement takes time like log n.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from covey.gossip.config import Config
from covey.simulate.consensus import Consensus
from covey.simulate.result import Point
from covey.simulate.scenario import Scenario
from covey.simulate.schedules import OPEN, PLAIN, Row
from covey.simulate.world import World

AGREED = 0.01  # root mean square distance to the mean, relative to the mean's length
_BEGUN = 1  # the period from which on bytes are counted


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a flock of ``nodes``; ``periods`` until it agreed, a fraction, or NaN if it did not."""

    nodes: int
    bytes_per_period: float  # of a node
    periods: float


def measure(nodes: int, periods: int, size: int = 64, seed: int = 0) -> Cost:
    """Run so many periods, at least 12, with vectors of ``size`` elements."""
    config = Config(outer=PLAIN, screening=OPEN)  # such strangers would be taken for liars
    scenario = Scenario(
        nodes=nodes,
        periods=periods,
        steps=1,
        measures=periods,
        config=config,
        settle=False,
        seed=seed,
    )
    points = World(scenario, Consensus(nodes, size, seed)).run().points
    sent = [point.sent for point in points]
    counted = periods - 1 - _BEGUN  # periods; the last point is after one more, at the end
    return Cost(nodes, (sent[periods - 1] - sent[_BEGUN]) / counted, _agreed(points))


def fit(costs: Sequence[Cost]) -> tuple[float, float]:
    """Of periods = a + b log2 n by least squares."""
    b, a = np.polyfit(np.log2([cost.nodes for cost in costs]), [cost.periods for cost in costs], 1)
    return float(a), float(b)


def rows(sizes: Sequence[int] = (16, 64, 256, 1024, 10_000), periods: int = 64) -> Iterator[Row]:
    """Bytes against those of the smallest flock, periods against the fit to all."""
    costs = [measure(nodes, periods) for nodes in sizes]
    for cost in costs:
        setting = f"n = {cost.nodes}, mod4"
        least = costs[0].bytes_per_period
        yield Row("bytes per node and period", setting, cost.bytes_per_period, least)
    a, b = fit(costs)
    for cost in costs:
        setting = f"n = {cost.nodes}, mod4, {a:.1f} + {b:.2f} log2 n"
        yield Row("periods to 1 % disagreement", setting, cost.periods, a + b * np.log2(cost.nodes))


def _agreed(points: Sequence[Point]) -> float:
    """When the disagreement fell below AGREED, exponential between two periods."""
    apart = np.log([point.apart for point in points])
    below = np.flatnonzero(apart < np.log(AGREED))
    if not len(below):
        return float("nan")
    last = int(below[0])
    return last + float((apart[last - 1] - np.log(AGREED)) / (apart[last - 1] - apart[last]))
