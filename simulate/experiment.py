"""One run that can be repeated: a task, how its data is dealt, what learns it, in which world.

Imports are inside the functions: an experiment can be described where torch is not installed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from covey.simulate.result import Progress, Result, silently
from covey.simulate.scenario import Outer, Scenario
from covey.simulate.splits import Split

if TYPE_CHECKING:
    from covey.simulate.learning import Learning
    from covey.simulate.workload import Workload

_VECTOR, _VECTOR_MAX = 256, 10**6  # elements

# Of baselines.py, which needs torch.
BASELINE_NAMES = (
    "isolated",
    "central",
    "allreduce",
    "average",
    "diloco",
    "pair-average",
    "noloco",
    "push1",
    "push3",
    "sparseloco",
)


class TaskError(ValueError):
    """There is no such task, or its data cannot be had."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """Its result is the same to the bit on each run of one version on one machine."""

    scenario: Scenario = field(default_factory=Scenario)
    task: str = "digits"  # of tasks.py, or consensus[:SIZE], vectors without training
    split: Split = Split()  # noqa: RUF009  (frozen)
    baseline: str = ""  # instead of the scenario's algorithm
    outer: Outer | None = None  # of the baseline, if not its usual one

    def __post_init__(self) -> None:
        if self.baseline and self.baseline not in BASELINE_NAMES:
            known = ", ".join(BASELINE_NAMES)
            raise ValueError(f"unknown baseline {self.baseline!r}; there are {known}")
        if self.outer and self.baseline not in ("diloco", "noloco"):
            raise ValueError(f"{self.baseline or 'covey'} has no baseline's outer step")
        scenario, calm = self.scenario, Scenario()
        if self.baseline and scenario != replace(
            scenario,
            spread=calm.spread,
            network=calm.network,
            churn=None,
            cut=None,
            attack=None,
            config=calm.config,
        ):
            raise ValueError(
                f"{self.baseline} is a baseline: it runs in lock-step and without troubles, so it "
                "has no spread, network, churn, cut, attack or setting of covey's own algorithms"
            )
        if self.task.startswith("text") and self.split.kind in ("dirichlet", "classes"):
            raise ValueError(f"text has no labels to split by; {self.split.kind} needs them")
        if _vectors(self.task) and (self.baseline or self.split != Split() or self._flips):
            raise ValueError("consensus is without training: no baselines, no split, no labels")

    @property
    def algorithm(self) -> str:
        return self.baseline or self.scenario.config.algorithm

    def run(self) -> Result:
        """Raises TaskError."""
        return self.prepare()(silently)

    def prepare(self) -> Callable[[Progress], Result]:
        """Fetch the task's data and set everything up; what runs it.  Raises TaskError."""
        if self.baseline:
            from covey.simulate.baselines import BASELINES

            kind = BASELINES[self.baseline]
            learning = self._learning(Split() if kind.pooled else self.split)
            return kind(self.scenario, learning, self.outer).run
        from covey.simulate.world import World

        return World(self.scenario, self.workload()).run

    @property
    def _flips(self) -> bool:
        attack = self.scenario.attack
        return attack is not None and attack.kind == "flip"

    def workload(self) -> "Workload":
        """What the scenario's nodes work on, unless a baseline does.  Raises TaskError."""
        if size := _vectors(self.task):
            from covey.simulate.consensus import Consensus

            return Consensus(self.scenario.nodes, size, self.scenario.seed)
        return self._learning(self.split)

    def _learning(self, split: Split) -> "Learning":
        import torch

        from covey.simulate.attackers import attackers_of
        from covey.simulate.learning import Learning
        from covey.simulate.tasks import load

        # The order of a sum decides its last bits.  (use_deterministic_algorithms() does the same,
        # and loads torch's compiler, which takes seconds.)
        torch.set_num_threads(1)
        torch.set_deterministic_debug_mode("error")
        liars = attackers_of(self.scenario) if self._flips else ()
        try:
            task = load(self.task)
        except (OSError, ValueError) as error:
            raise TaskError(str(error)) from error
        return Learning(task, self.scenario.nodes, split, self.scenario.seed, liars)


def _vectors(task: str) -> int:
    """The size of ``consensus``'s vectors, or of ``consensus:SIZE``; 0 for other tasks."""
    name, _, size = task.partition(":")
    if name != "consensus":
        return 0
    if size and not (size.isdecimal() and 0 < int(size) <= _VECTOR_MAX):
        raise ValueError(f"consensus needs a vector of 1 to {_VECTOR_MAX} elements, not {size!r}")
    return int(size or _VECTOR)
