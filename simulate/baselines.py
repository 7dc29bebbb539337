"""The algorithms that covey is measured against, in lock-step and without a network's troubles.

Each works on the same workload as a World does: same initial weights, data, batches and steps.
Bytes are those of the vectors alone, float32 unless said, as if everything else were free; an
all-reduce sends 2 (n - 1) / n of a vector per node, the least there is (Patarasuk & Yuan 2009).

    isolated      everyone for himself
    central       one model, all data: the batches of all nodes together, every step
    allreduce     gradients averaged every step
    average       parameters averaged every period (local SGD, Stich 2019)
    diloco        average with an outer Nesterov step (Douillard et al. 2023)
    pair-average  a random perfect matching averages its pairs every period
    noloco        the same with an outer heavy-ball step (Kolehmainen et al. 2025)
    push1, push3  epidemic learning: everyone sends to 1 or 3 random nodes and averages what came
                  (De Vos et al. 2023)
    sparseloco    chunk-wise top-k of the period's movement with error feedback, gathered by all
                  (Sarfi et al. 2025): 64 of each 4 096, 2 bits and a 12-bit place each
"""

import numpy as np
import torch
from torch import Tensor

from covey.simulate.experiment import BASELINE_NAMES
from covey.simulate.learning import Learning
from covey.simulate.result import Point, Progress, Result, measure, silently
from covey.simulate.scenario import Outer, Scenario

_CHUNK, _KEPT = 4096, 64
_SPARSE_BITS = 2 + 12


class Baseline:
    """One algorithm on one workload.  Subclasses say what happens at the end of a period."""

    usual = Outer()  # unless told otherwise
    pooled = False  # the data is dealt without regard to labels
    drifts = False  # nodes differ after a sync, so they settle at the end as covey's do

    def __init__(self, scenario: Scenario, workload: Learning, outer: Outer | None = None) -> None:
        self.scenario, self.workload, self.outer = scenario, workload, outer or self.usual
        self.x = workload.parameters
        self.slow = self.x.clone()
        self.momentum = torch.zeros_like(self.x)
        self.sent = 0.0  # bytes per node
        self._rng = np.random.default_rng([scenario.seed, 23])
        self._all = np.arange(scenario.nodes)

    def run(self, progress: Progress = silently) -> Result:
        scenario, points = self.scenario, list[Point]()
        often = max(1, scenario.periods // scenario.measures)
        for period in range(1, scenario.periods + 1):
            for _ in range(scenario.steps):
                self.step()
            self.sync()
            if not period % often:
                points.append(self._measured(period))
            progress(period / scenario.periods)
        if self.drifts and scenario.settle:
            for _ in range(scenario.config.settle_exchanges):
                self.settle()
        points.append(self._measured(scenario.periods))
        return Result(tuple(points), 0.0, {}, self.workload.layout.parameters)

    def step(self) -> None:
        self.workload.step(self._all)

    def sync(self) -> None:
        """At the end of a period."""

    def settle(self) -> None:
        """A round without training."""
        self.sync()

    def mean(self) -> Tensor:
        """An all-reduce."""
        nodes, size = self.x.shape
        self.sent += 2 * (nodes - 1) / nodes * 4 * size
        return self.x.mean(0)

    def matched(self) -> Tensor:
        """Everyone's average with its partner; of an odd flock one goes without."""
        order = torch.from_numpy(self._rng.permutation(len(self.x)))
        half = len(order) // 2
        first, second = order[:half], order[half : 2 * half]
        mixed = self.x.clone()
        mixed[first] = mixed[second] = (self.x[first] + self.x[second]) / 2
        self.sent += 4 * self.x.shape[1] * 2 * half / len(self.x)
        return mixed

    def _measured(self, period: int) -> Point:
        scenario = self.scenario
        time_s, steps = period * scenario.period_s, float(period * scenario.steps)
        return measure(self.workload, self.workload.vectors, time_s, steps, self.sent)


class Isolated(Baseline):
    pass


class Average(Baseline):
    def sync(self) -> None:
        self.x.copy_(self.mean())


class EveryStep(Baseline):
    """Gradients are averaged, so every node takes the same step."""

    def step(self) -> None:
        gradient = self.workload.gradients(self._all).mean(0, keepdim=True)
        nodes, size = self.x.shape
        self.sent += 2 * (nodes - 1) / nodes * 4 * size
        self.workload.descend(gradient.expand(nodes, size))


class Central(EveryStep):
    """The same on one machine: nothing is sent."""

    pooled = True

    def step(self) -> None:
        super().step()
        self.sent = 0.0


class DiLoCo(Baseline):
    def sync(self) -> None:
        mean = self.mean()
        change = self.slow[0] - mean
        momentum = self.momentum[0]
        momentum.mul_(self.outer.momentum).add_(change)
        change.add_(momentum, alpha=self.outer.momentum)
        self.slow.sub_(self.outer.rate * change)
        self.x.copy_(self.slow)


class PairAverage(Baseline):
    drifts = True

    def sync(self) -> None:
        self.x.copy_(self.matched())


class NoLoCo(Baseline):
    usual = Outer(momentum=0.5, rate=0.7)
    drifts = True

    def sync(self) -> None:
        self.momentum.mul_(self.outer.momentum).add_(
            self.matched() - self.slow, alpha=self.outer.rate
        )
        self.slow.add_(self.momentum)
        self.x.copy_(self.slow)

    def settle(self) -> None:
        self.x.copy_(self.matched())


class Push(Baseline):
    drifts = True
    fan_out = 1

    def sync(self) -> None:
        nodes = len(self.x)
        weights = np.eye(nodes, dtype=np.float32)
        for node in range(nodes):
            others = np.delete(self._all, node)
            weights[self._rng.choice(others, min(self.fan_out, nodes - 1), replace=False), node] = 1
        weights /= weights.sum(axis=1, keepdims=True)
        self.x.copy_(torch.from_numpy(weights) @ self.x)
        self.sent += 4 * self.x.shape[1] * min(self.fan_out, nodes - 1)


class Push3(Push):
    fan_out = 3


class SparseLoCo(Baseline):
    feedback = 0.95  # of the error, what is left of it a period later

    def __init__(self, scenario: Scenario, workload: Learning, outer: Outer | None = None) -> None:
        super().__init__(scenario, workload, outer)
        size = self.x.shape[1]
        self._chunks = -(-size // _CHUNK)
        self.error = torch.zeros(len(self.x), self._chunks * _CHUNK)

    def sync(self) -> None:
        nodes, size = self.x.shape
        self.error.mul_(self.feedback)
        self.error[:, :size] += self.slow - self.x
        chunks = self.error.reshape(nodes, self._chunks, _CHUNK)
        kept = torch.zeros_like(chunks)
        places = chunks.abs().topk(_KEPT, dim=-1).indices
        kept.scatter_(-1, places, _two_bits(chunks.gather(-1, places)))
        self.error -= kept.reshape(nodes, -1)
        self.slow.sub_(kept.reshape(nodes, -1).mean(0)[:size])
        self.x.copy_(self.slow)
        # Everyone's message reaches everyone; counted as what a node receives, which all-gather
        # makes it send as well.
        self.sent += (nodes - 1) * self._chunks * _KEPT * _SPARSE_BITS / 8


def _two_bits(values: Tensor) -> Tensor:
    """The sign and one of two sizes, each the mean of what it stands for, per chunk."""
    sizes = values.abs()
    large = sizes > sizes.mean(-1, keepdim=True)
    count = large.sum(-1, keepdim=True).clamp(min=1)
    upper = (sizes * large).sum(-1, keepdim=True) / count
    lower = (sizes * ~large).sum(-1, keepdim=True) / (~large).sum(-1, keepdim=True).clamp(min=1)
    return torch.where(large, upper, lower) * values.sign()


BASELINES: dict[str, type[Baseline]] = {
    "isolated": Isolated,
    "central": Central,
    "allreduce": EveryStep,
    "average": Average,
    "diloco": DiLoCo,
    "pair-average": PairAverage,
    "noloco": NoLoCo,
    "push1": Push,
    "push3": Push3,
    "sparseloco": SparseLoCo,
}
assert tuple(BASELINES) == BASELINE_NAMES
