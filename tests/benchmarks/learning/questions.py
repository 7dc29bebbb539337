"""What can be asked of runs: a question says what to run as soon as it knows, and answers later."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from covey.simulate import scaling, schedules
from covey.simulate.experiment import Experiment
from covey.simulate.result import Result
from covey.simulate.scaling import Cost
from tests.benchmarks.learning import rows
from tests.benchmarks.learning.rows import Row, Target
from tests.benchmarks.learning.runs import Outcome, Runs, run

Seeds = tuple[int, ...]
Answer = Callable[[], list[Row]]  # waits for what was asked

_OFF = 3.0  # percent that a measurement may be off its formula ...
_BYTES_OFF = 2.0  # ... and the bytes per node off those of the smallest flock


class Question(Protocol):
    def ask(self, runs: Runs) -> Answer: ...


def with_seed(experiment: Experiment, seed: int) -> Experiment:
    return replace(experiment, scenario=replace(experiment.scenario, seed=seed))


def asked(runs: Runs, experiment: Experiment, seeds: Seeds) -> list[Future[Outcome]]:
    return [runs.ask(run, with_seed(experiment, seed)) for seed in seeds]


def results(futures: Sequence[Future[Outcome]]) -> list[Result]:
    """Waits for them."""
    return [future.result().result for future in futures]


@dataclass(frozen=True)
class Comparison:
    """One experiment against the best of some others, by accuracy, or else by loss.

    The others (a baseline, differently tuned) are ranked on ``tuning`` seeds, never on ``seeds``.
    """

    claim: str
    setting: str
    ours: Experiment
    references: tuple[Experiment, ...]
    target: Target
    seeds: Seeds
    tuning: Seeds = ()
    by_loss: bool = False

    def ask(self, runs: Runs) -> Answer:
        ours = asked(runs, self.ours, self.seeds)
        several = len(self.references) > 1
        first = self.tuning if several else self.seeds
        tried = [asked(runs, reference, first) for reference in self.references]

        def answer() -> list[Row]:
            best = 0
            if several:
                best = max(range(len(tried)), key=lambda k: self._score(results(tried[k])))
            theirs = asked(runs, self.references[best], self.seeds)
            compare = rows.loss_row if self.by_loss else rows.accuracy_row
            setting = self.setting
            if (outer := self.references[best].outer) is not None:
                setting = f"{setting}, momentum {outer.momentum:g}"
            return [compare(self.claim, setting, results(ours), results(theirs), self.target)]

        return answer

    def _score(self, tried: list[Result]) -> float:
        """The more the better."""
        scores = [-r.final.loss if self.by_loss else r.final.mean for r in tried]
        return float(np.mean(scores))


@dataclass(frozen=True)
class Pushes:
    """No exchange with an attacker moves an honest node farther than the node allows."""

    claim: str
    setting: str
    experiments: tuple[Experiment, ...]
    seeds: Seeds

    def ask(self, runs: Runs) -> Answer:
        futures = [future for e in self.experiments for future in asked(runs, e, self.seeds)]

        def answer() -> list[Row]:
            row = rows.push_row(self.claim, self.setting, [f.result().pushed for f in futures])
            return [replace(row, seeds=len(self.seeds))]

        return answer


@dataclass(frozen=True)
class Formulas:
    """Contraction, drift and steady state of ``nodes`` as calculated; ``effort`` is theirs."""

    claim: str
    nodes: int
    effort: int

    def ask(self, runs: Runs) -> Answer:
        future = runs.ask(measured, self.nodes, self.effort)

        def answer() -> list[Row]:
            return [
                rows.formula_row(
                    self.claim,
                    f"{row.claim}, {row.setting}",
                    row.measured,
                    row.formula,
                    _OFF,
                    row.error,
                )
                for row in future.result()
            ]

        return answer


def measured(nodes: int, effort: int) -> list[schedules.Row]:
    return list(schedules.rows((nodes,), effort=effort))


@dataclass(frozen=True)
class Scaling:
    """Bytes per node do not depend on the flock's size, and agreement takes time like log n."""

    claim: str
    sizes: tuple[int, ...]
    periods: int

    def ask(self, runs: Runs) -> Answer:
        # The largest takes longest, so it begins first.
        futures = [runs.ask(scaling.measure, size, self.periods) for size in self.sizes[::-1]][::-1]
        return lambda: list(self._rows([future.result() for future in futures]))

    def _rows(self, costs: Sequence[Cost]) -> Iterator[Row]:
        for cost in costs[1:]:
            setting = f"bytes per node and period, n = {cost.nodes} against {costs[0].nodes}"
            least = costs[0].bytes_per_period
            yield rows.formula_row(self.claim, setting, cost.bytes_per_period, least, _BYTES_OFF)
        a, b = scaling.fit(costs)
        for cost in costs:
            setting = f"periods to 1 %, n = {cost.nodes} against {a:.1f} + {b:.2f} log2 n"
            fitted = a + b * float(np.log2(cost.nodes))
            yield rows.formula_row(self.claim, setting, cost.periods, fitted, _OFF)
