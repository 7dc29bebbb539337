"""Measured against calculated: how fast real cores agree when they meet in a known order.

Here nobody chooses for itself: cores exchange in schedules whose effect on the spread (the sum of
squared distances to the mean) is known exactly, with nothing gated or clipped.  ``rows`` compares.
The formulas are for vectors that lie about their mean without any direction, as normal ones do.

    pair         two of n meet: the spread loses 1 / (n - 1) of it (Boyd et al. 2006)
    matching     all meet in n / 2 pairs, each with probability 1 - q: ``matching``
    sequence     n random pairs one after the other: (1 - 1 / (n - 1)) ** n, towards 1 / e
    initiating   each in turn meets a random other: ``initiating``, towards 1 / (2 sqrt e)
                 (Jelasity, Montresor, Babaoglu 2005, for both)
    settled lost the answer that ends an exchange: one side moves and the mean drifts
    outer step   linear in the weights phi and the momentum m, so (E phi², E phi m, E m²) of the
                 deviations follow a matrix: ``moments``
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from covey.gossip import mixing
from covey.gossip.algorithms import create
from covey.gossip.config import Config, OuterStep, Screening
from covey.gossip.quantiser import STEP_PER_SCALE, blocks_in
from covey.gossip.replica import Saved
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout, Tensor
from covey.protocols.messages import Lineage, Settled

Doubles = NDArray[np.float64]

OPEN = Screening(
    remembered=10**6, unscreened=10**6, first_reach=np.inf, undone_share=10**6
)  # never gated, never clipped
_SCALE = 3.0  # of every block: the differences of normal vectors are well inside its range
_NOBODY = Lineage(b"s" * 32)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.  ``error`` is the standard error of ``measured``."""

    claim: str
    setting: str
    measured: float
    formula: float
    error: float = 0.0

    @property
    def difference(self) -> float:
        """Relative to the formula."""
        return abs(self.measured - self.formula) / abs(self.formula)


@dataclass(frozen=True, slots=True)
class Order:
    """``nodes`` cores of vectors of ``size`` coordinates, ``trials`` times."""

    nodes: int
    size: int = 256
    trials: int = 8
    seed: int = 0
    codec: str = "f32"

    def __str__(self) -> str:
        return f"n = {self.nodes}, {self.codec}"


class Cores:
    """Real cores of the default algorithm that meet when they are told to."""

    def __init__(self, order: Order) -> None:
        config = Config(codec=order.codec, screening=OPEN)
        layout = Layout.of([Tensor("vector", (order.size,))])
        peers = [PeerId(number.to_bytes(32, "big")) for number in range(order.nodes)]
        self.cores = [create(p, config, layout, Random(f"{order.seed} {p}")) for p in peers]
        self.rng = np.random.default_rng([order.seed, order.nodes])
        for core in self.cores:
            core.accepting = True

    def place(self, x: Doubles, momentum: Doubles | None = None) -> None:
        """Give everyone its vector, as after an outer step; shapes (nodes, size)."""
        moving = np.zeros_like(x) if momentum is None else momentum
        for core, row, m in zip(
            self.cores, x.astype(np.float32), moving.astype(np.float32), strict=True
        ):
            core.restore(Saved(row, row, m), _NOBODY)
            core.replica.history.remember(np.full(blocks_in(len(row)), _SCALE, np.float32))

    def scatter(self) -> None:
        """Begin anew, standard normal in each coordinate."""
        self.place(self.normal())

    def normal(self) -> Doubles:
        return self.rng.standard_normal((len(self.cores), len(self.cores[0].replica.x)))

    def meet(self, one: int, other: int, lost: type | None = None) -> None:
        """An exchange that ``one`` proposes; ``lost``: of which message nobody hears."""
        proposer, accepter = self.cores[one], self.cores[other]
        proposer.open_period(1)
        out = proposer.propose([accepter.me], 0.0)
        assert out is not None
        while out is not None:
            if isinstance(out.message, lost or ()):
                proposer.failed(accepter.me, "lost")
                return
            answer = accepter.receive(proposer.me, out.message, bytes(out.payload), 0.0)
            assert answer is not None
            if isinstance(answer.message, lost or ()):
                proposer.failed(accepter.me, "lost")
                return
            out = proposer.receive(accepter.me, answer.message, bytes(answer.payload), 0.0)

    def match(self, failing: float = 0.0) -> None:
        """Everyone meets somebody, at random; ``failing``: the probability that a pair does not."""
        for one, other in self.rng.permutation(len(self.cores)).reshape(-1, 2):
            if self.rng.random() >= failing:
                self.meet(one, other)

    def two(self) -> tuple[int, int]:
        one, other = self.rng.choice(len(self.cores), 2, replace=False)
        return int(one), int(other)

    @property
    def x(self) -> Doubles:
        return np.stack([core.replica.x for core in self.cores]).astype(np.float64)

    @property
    def momenta(self) -> Doubles:
        return np.stack([core.replica.momentum for core in self.cores]).astype(np.float64)


# --- formulas ------------------------------------------------------------------------------------


def matching(nodes: int, failing: float = 0.0) -> float:
    """What is left of the spread after a random perfect matching; (n - 2) / (2 (n - 1)) if all
    pairs succeed."""
    return 1 - (1 - failing) * nodes / (2 * (nodes - 1))


def initiating(nodes: int) -> float:
    """What is left when each in turn meets a random other.

    Those who have had their turn (a of them) and those who have not (b) are two groups without
    order inside them: the squares in each and the square of the first's sum are all one needs.
    """
    squares_a, squares_b, crossed = 0.0, float(nodes - 1), 0.0
    for a in range(nodes):
        b = nodes - a
        in_b = squares_b / b
        sum_a_mine = -crossed / b  # E of the first group's sum times mine, of the second
        met_a, met_b = a / (nodes - 1), (b - 1) / (nodes - 1)
        in_a = squares_a / a if a else 0.0
        both_a = (in_b + in_a - 2 * crossed / (a * b)) / 4 if a else 0.0
        both_b = (in_b + (crossed - squares_b) / (b * (b - 1))) / 2 if b > 1 else 0.0
        squares_a += met_a * (2 * both_a - in_a) + met_b * both_b
        squares_b += -in_b - met_b * (in_b - both_b)
        crossed += 2 * sum_a_mine + met_a * in_b + met_b * both_b
    return (squares_a + squares_b) / (nodes - 1)


def half_exchange(nodes: int) -> float:
    """E of the squared drift of the mean, in units of the spread, when Settled is lost."""
    return 1 / (2 * nodes**2 * (nodes - 1))


def coded(nodes: int, scale: float = _SCALE) -> float:
    """What the 4-bit code adds to what is left after a matching of standard normal vectors: its
    error is f (1 - f) D² for a difference of f steps D more than a whole number, D² / 6 on average,
    and each pair keeps half of it."""
    step = float(STEP_PER_SCALE) * scale
    return nodes / 4 * step**2 / 6 / (nodes - 1)


def _linear(step: OuterStep) -> Doubles:
    """The outer step as a matrix: (phi, m) after it from (phi, m, d) before, d what a period
    brought.  Read off the code that takes it."""
    phi, momentum = (np.array(row, np.float32) for row in ((1, 0, 0), (0, 1, 0)))
    mixing.outer_step(phi + np.array((0, 0, 1), np.float32), mixing.State.of(phi, momentum), step)
    return np.stack([phi, momentum]).astype(np.float64)


def moments(nodes: int, step: OuterStep) -> Doubles:
    """(E phi², E phi m, E m²) after a matching and an outer step from those before: (3, 3).

    A matching is a projection: with d = W phi - phi, E d² = -E d phi = c E phi².
    """
    c = nodes / (2 * (nodes - 1))
    (p0, p1, p2), (m0, m1, m2) = _linear(step)

    def product(a: Sequence[float], b: Sequence[float]) -> list[float]:
        """E of two linear forms of (phi, m, d), as weights of the three moments."""
        squares = a[0] * b[0] - c * (a[0] * b[2] + a[2] * b[0]) + c * a[2] * b[2]
        crossed = a[0] * b[1] + a[1] * b[0] - c * (a[1] * b[2] + a[2] * b[1])
        return [squares, crossed, a[1] * b[1]]

    phi, momentum = (p0, p1, p2), (m0, m1, m2)
    return np.array([product(phi, phi), product(phi, momentum), product(momentum, momentum)])


def spectral_radius(matrix: Doubles) -> float:
    """Below 1 nodes stay together, at or above it they drift apart."""
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def stationary(nodes: int, step: OuterStep) -> float:
    """E of a node's squared deviation, per coordinate, when all move by standard normal steps of
    their own before each matching and outer step."""
    brought = 0.5 - 1 / nodes  # of that noise, averaged in pairs, about its mean
    _, _, p = _linear(step)[0]
    _, _, m = _linear(step)[1]
    noise = brought * np.array([p * p, p * m, m * m])
    return float(np.linalg.solve(np.eye(3) - moments(nodes, step), noise)[0])


# --- measurements --------------------------------------------------------------------------------


def spread(x: Doubles) -> float:
    return float(np.square(x - x.mean(axis=0)).sum())


def _row(claim: str, setting: object, found: Sequence[float], formula: float) -> Row:
    error = float(np.std(found, ddof=1) / len(found) ** 0.5) if len(found) > 1 else 0.0
    return Row(claim, str(setting), float(np.mean(found)), formula, error)


def _left(order: Order, act: Callable[[Cores], None]) -> list[float]:
    """What is left of the spread after ``act``, in each trial."""
    cores, found = Cores(order), []
    for _ in range(order.trials):
        cores.scatter()
        before = spread(cores.x)
        act(cores)
        found.append(spread(cores.x) / before)
    return found


def pair(order: Order, meetings: int) -> Row:
    """One random pair, over and over from the same vectors: what the spread loses."""
    cores, found = Cores(order), []
    cores.scatter()
    x = cores.x
    before = spread(x)
    for _ in range(meetings):
        both = list(cores.two())
        cores.meet(both[0], both[1])
        after = np.stack([cores.cores[k].replica.x for k in both]).astype(np.float64)
        found.append((np.square(x[both]).sum() - np.square(after).sum()) / before)
        for k in both:
            np.copyto(cores.cores[k].replica.moving(), x[k].astype(np.float32))
    return _row("one random pair", order, found, 1 / (order.nodes - 1))


def contraction(order: Order) -> Iterator[Row]:
    """Matchings and sequences."""
    nodes = order.nodes
    added = coded(nodes) if order.codec == "mod4" else 0.0
    found = _left(order, lambda cores: cores.match())
    yield _row("perfect matching", order, found, matching(nodes) + added)
    if order.codec == "mod4":
        return  # later scales follow what was measured
    found = _left(order, lambda cores: cores.match(failing=0.3))
    yield _row("matching, 30 % fail", order, found, matching(nodes, 0.3))

    def sequence(cores: Cores) -> None:
        for _ in range(nodes):
            cores.meet(*cores.two())

    found = _left(order, sequence)
    yield _row("n random pairs", order, found, (1 - 1 / (nodes - 1)) ** nodes)

    def initiate(cores: Cores) -> None:
        for one in range(nodes):
            other = int(cores.rng.integers(nodes - 1))
            cores.meet(one, other + (other >= one))

    yield _row("each initiates once", order, _left(order, initiate), initiating(nodes))


def drift(order: Order, meetings: int) -> Row:
    """Exchanges whose last answer is lost, from the same vectors: how far the mean goes."""
    cores, found = Cores(order), []
    cores.scatter()
    x = cores.x
    before = spread(x)
    for _ in range(meetings):
        one, other = cores.two()
        cores.meet(one, other, lost=Settled)
        moved = cores.cores[other].replica.x - x[other]
        assert np.array_equal(cores.cores[one].replica.x, x[one]), "the proposer does not know"
        found.append(float(np.square(moved / order.nodes).sum()) / before)
        np.copyto(cores.cores[other].replica.moving(), x[other].astype(np.float32))
    return _row("drift of a half exchange", order, found, half_exchange(order.nodes))


def recursion(order: Order, step: OuterStep) -> Row:
    """The spectral radius of the matrix by which the moments were seen to change: from weights
    alone, momentum alone, and both alike."""
    cores = Cores(order)
    radii = []
    for _ in range(order.trials):
        columns = []
        for phi, momentum in ((1, 0), (0, 1), (1, 1)):
            start = cores.normal()
            before = spread(start)
            cores.place(phi * start, momentum * start)
            cores.match()
            for core in cores.cores:
                core.replica.outer_step(step)
            x, m = (rows - rows.mean(axis=0) for rows in (cores.x, cores.momenta))
            columns.append(np.array([(x * x).sum(), (x * m).sum(), (m * m).sum()]) / before)
        first, last, all_three = columns
        radii.append(spectral_radius(np.stack([first, all_three - first - last, last], axis=1)))
    setting = f"{order}, momentum {step.momentum:g}, rate {step.rate:g}"
    return _row("spectral radius", setting, radii, spectral_radius(moments(order.nodes, step)))


def steady(order: Order, step: OuterStep, periods: int) -> Row:
    """The variance that local noise keeps up, once it has settled; per node and coordinate."""
    formula = stationary(order.nodes, step)
    radius = spectral_radius(moments(order.nodes, step))
    warming = int(np.ceil(np.log(0.005) / np.log(radius)))
    found = []
    for trial in range(order.trials):
        cores = Cores(Order(order.nodes, order.size, 1, 1000 * order.seed + trial, order.codec))
        cores.place(np.zeros((order.nodes, order.size)))
        seen = []
        for period in range(warming + periods):
            for core, noise in zip(cores.cores, cores.normal(), strict=True):
                core.replica.moving()[:] += noise.astype(np.float32)
            cores.match()
            for core in cores.cores:
                core.replica.outer_step(step)
            if period >= warming:
                seen.append(spread(cores.x) / (order.nodes * order.size))
        found.append(float(np.mean(seen)))
    setting = f"{order}, momentum {step.momentum:g}, rate {step.rate:g}"
    return _row("steady state under noise", setting, found, formula)


PLAIN = OuterStep(momentum=0.0, rate=1.0)  # averaging alone


def rows(
    sizes: Sequence[int] = (8, 64, 512, 4096),
    seed: int = 0,
    effort: int = 8192,
    step: OuterStep | None = None,
) -> Iterator[Row]:
    """All claims for these even numbers of nodes.  ``effort``: about so many meetings of a node in
    all trials of one measurement; ``step``: the outer step besides none."""
    for nodes in sizes:
        trials = max(2, min(1000, effort // nodes))
        exact = Order(nodes, 256, trials, seed)
        meetings = min(400, effort)
        few = max(2, min(60, trials // 4))
        yield pair(exact, meetings)
        yield from contraction(exact)
        yield from contraction(Order(nodes, 256, trials, seed, "mod4"))
        yield drift(exact, meetings)
        for outer in (PLAIN, step or OuterStep()):
            yield recursion(Order(nodes, 256, few, seed), outer)
            yield steady(Order(nodes, 64, few, seed), outer, max(8, 2048 // nodes))
