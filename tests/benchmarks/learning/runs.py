"""Work for all cores: each piece is done once, however many comparisons need it."""

import os
import sys
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from types import TracebackType
from typing import Self, TypeVar, cast

from covey.simulate.experiment import Experiment
from covey.simulate.result import Result
from tests.benchmarks.learning.watch import WatchedWorld

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one experiment.  ``pushed``: the farthest that an exchange with an attacker moved an
    honest node, in units of what the node allowed; 0 without attackers."""

    result: Result
    pushed: float = 0.0


def run(experiment: Experiment) -> Outcome:
    """Carry it out, here and now."""
    if experiment.scenario.attack is None:
        return Outcome(experiment.run())
    world = WatchedWorld(experiment.scenario, experiment.workload())
    return Outcome(world.run(), world.pushed)


def name_of(experiment: Experiment) -> str:
    """For people who wait."""
    scenario = experiment.scenario
    words = [experiment.algorithm, experiment.task, str(experiment.split)]
    if scenario.attack is not None:
        words.append(scenario.attack.kind)
    return f"{' '.join(words)}, {scenario.nodes} nodes, seed {scenario.seed}"


class Runs:
    """A pool of processes and what they have found so far.  Used as a context."""

    def __init__(self, workers: int | None = None) -> None:
        """``workers``: default one per core."""
        # Not forked: torch's threads would not survive that.
        self._pool = ProcessPoolExecutor(workers or os.cpu_count(), get_context("spawn"))
        self._asked: dict[Hashable, Future[object]] = {}
        self._done = 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def ask(self, function: Callable[..., T], *given: Hashable) -> Future[T]:
        """``function(*given)`` in another process, unless that was asked before."""
        key = (function, given)
        if key not in self._asked:
            future = self._pool.submit(cast("Callable[..., object]", function), *given)
            self._asked[key] = future
            future.add_done_callback(lambda _: self._tell(*given))
        return cast("Future[T]", self._asked[key])

    def _tell(self, *given: Hashable) -> None:
        self._done += 1
        what = ", ".join(name_of(x) if isinstance(x, Experiment) else str(x) for x in given)
        minutes, seconds = divmod(round(self.seconds), 60)
        print(
            f"{minutes:3}:{seconds:02} {self._done}/{len(self._asked)} {what}",
            file=sys.stderr,
            flush=True,
        )
