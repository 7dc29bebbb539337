"""What covey's learning must show, as questions to runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from covey.simulate.experiment import BASELINE_NAMES, Experiment
from covey.simulate.scenario import ATTACKS, Attack, Cut, Network, Outer, Scenario
from covey.simulate.splits import Split
from tests.benchmarks.learning.questions import (
    Comparison,
    Formulas,
    Pushes,
    Question,
    Scaling,
    Seeds,
)
from tests.benchmarks.learning.rows import Target

IID, SKEWED = Split(), Split("dirichlet", 0.1)
SPLITS = (IID, SKEWED)
OUTER_TRIED = (0.5, 0.8, 0.9)  # momenta of DiLoCo; its rate is the paper's

SELECTABLE = ("push-sum", "robust-pull")  # relay trains one model at a time: another kind of run

LOSS = Network(loss=0.3)
SPREAD = 8.0
CUT = Cut(1 / 3, 2 / 3)


@dataclass(frozen=True)
class Plan:
    """How much is run.  ``tuning`` seeds decide on settings, ``seeds`` are what is reported.

    Of the tasks the first, the cheapest, has all questions.
    """

    seeds: Seeds = (10, 11, 12, 13, 14)
    tuning: Seeds = (0, 1, 2, 3, 4)
    tasks: tuple[str, ...] = ("digits", "mnist")
    scenario: Scenario = field(default_factory=Scenario)
    text: Scenario = field(default_factory=lambda: Scenario(periods=25, steps=20))
    text_seeds: Seeds = (10, 11, 12, 13, 14)
    attacks: tuple[str, ...] = ATTACKS
    attack_seeds: Seeds = (10, 11, 12, 13, 14)
    # Under skew, where one seed differs from the next by points; none: what differs less is run, on
    # the others' seeds.
    skewed_seeds: Seeds = tuple(range(10, 25))
    nodes: tuple[int, ...] = (8, 64, 512, 4096)  # of formulas
    effort: int = 8192
    flocks: tuple[int, ...] = (16, 64, 256, 1024, 10_000)
    flock_periods: int = 60

    def seeds_of(self, split: Split, usual: Seeds) -> Seeds:
        return self.skewed_seeds if split == SKEWED and self.skewed_seeds else usual

    def on(self, seeds: Seeds) -> "Plan":
        """All that is reported is of these."""
        skewed = seeds if self.skewed_seeds else ()
        return replace(self, seeds=seeds, text_seeds=seeds, attack_seeds=seeds, skewed_seeds=skewed)

    def ours(self, task: str, split: Split, **changes: object) -> Experiment:
        """The default algorithm, in a scenario with ``changes``."""
        scenario = replace(self.scenario, **changes)  # type: ignore[arg-type]
        return Experiment(scenario, task, split)

    def baseline(
        self, name: str, task: str, split: Split, outer: Outer | None = None
    ) -> Experiment:
        return Experiment(self.scenario, task, split, name, outer)


SHORT = Plan(
    seeds=(10, 11),
    tuning=(0,),
    tasks=("digits",),
    text_seeds=(10,),
    attack_seeds=(10, 11),
    skewed_seeds=(),
    nodes=(32, 128),
    effort=4096,
    flocks=(16, 64, 256),
)


def codec(plan: Plan) -> Iterator[Question]:
    """4 bits are as good as 32."""
    target = Target(least=-0.5, fewer=6)
    for task in plan.tasks:
        for split in SPLITS:
            exact = plan.ours(task, split, config=replace(plan.scenario.config, codec="f32"))
            setting = f"{task}, {split}: mod4 against f32"
            ours = plan.ours(task, split)
            seeds = plan.seeds_of(split, plan.seeds)
            yield Comparison("codec", setting, ours, (exact,), target, seeds)


def baselines(plan: Plan) -> Iterator[Question]:
    """As good as what needs all nodes at once, for a fraction of the bytes."""

    def against(what: str, references: tuple[Experiment, ...], target: Target) -> Comparison:
        ours = plan.ours(references[0].task, references[0].split)
        setting = f"{ours.task}, {ours.split}: against {what}"
        seeds = plan.seeds_of(ours.split, plan.seeds)
        return Comparison("baselines", setting, ours, references, target, seeds, plan.tuning)

    for task in plan.tasks:
        for split, target in ((IID, Target(-0.5, fewer=8)), (SKEWED, Target(0.0))):
            yield against("average", (plan.baseline("average", task, split),), target)
        yield against("DiLoCo", diloco(plan, task, SKEWED), Target(-1.0, fewer=4))


def diloco(plan: Plan, task: str, split: Split) -> tuple[Experiment, ...]:
    """With each momentum that was tried."""
    tried = (Outer(momentum) for momentum in OUTER_TRIED)
    return tuple(plan.baseline("diloco", task, split, outer) for outer in tried)


def text(plan: Plan) -> Iterator[Question]:
    """A character language model, each node with another part of the text."""
    parts = Split("parts")
    ours = Experiment(plan.text, "text", parts)
    average = replace(ours, baseline="average")
    target, seeds = Target(most=1.0, fewer=8), plan.text_seeds
    setting = "text, parts: loss against average"
    yield Comparison("text", setting, ours, (average,), target, seeds, by_loss=True)


def faults(plan: Plan) -> Iterator[Question]:
    """Lost exchanges, slow nodes, and a network that falls into halves for a while."""
    troubles: list[tuple[str, dict[str, object], float, float | None]] = [
        ("30 % of exchanges lost", {"network": LOSS}, -0.5, -3.0),
        (f"speeds {SPREAD:g}:1", {"spread": SPREAD}, -1.5, None),
        ("cut in halves for a third", {"cut": CUT}, -1.0, -1.0),
    ]
    task = plan.tasks[0]
    for what, changes, *targets in troubles:
        for split, least in zip(SPLITS, targets, strict=True):
            if split == SKEWED and "cut" in changes and not plan.skewed_seeds:
                continue
            calm, ours = plan.ours(task, split), plan.ours(task, split, **changes)
            setting, seeds = f"{task}, {split}: {what}", plan.seeds_of(split, plan.seeds)
            yield Comparison("faults", setting, ours, (calm,), Target(least), seeds)


def attacks(plan: Plan) -> Iterator[Question]:
    """A fifth of the nodes attack."""
    clean = plan.ours("digits", IID)
    silent = plan.ours("digits", SKEWED, attack=Attack("silent"))
    for split, reference, least in ((IID, clean, -2.5), (SKEWED, silent, -6.0)):
        for kind in plan.attacks:
            if kind == "silent" and split == SKEWED:
                continue
            ours = plan.ours("digits", split, attack=Attack(kind))
            setting = f"digits, {split}: {kind} against {'silent' if split.value else 'clean'}"
            seeds = plan.seeds_of(split, plan.attack_seeds)
            yield Comparison("attacks", setting, ours, (reference,), Target(least), seeds)
    for kind in plan.attacks:
        if kind != "silent":
            both = tuple(plan.ours("digits", split, attack=Attack(kind)) for split in SPLITS)
            yield Pushes("attacks", f"digits: farthest push by {kind}", both, plan.attack_seeds)


def formulas(plan: Plan) -> Iterator[Question]:
    """What is calculated is what happens."""
    for nodes in sorted(plan.nodes, reverse=True):  # the largest takes longest
        yield Formulas("formulas", nodes, plan.effort)


def scale(plan: Plan) -> Iterator[Question]:
    """What more nodes cost."""
    yield Scaling("scale", plan.flocks, plan.flock_periods)


CLAIMS: dict[str, Callable[[Plan], Iterator[Question]]] = {
    "scale": scale,
    "formulas": formulas,
    "text": text,
    "codec": codec,
    "baselines": baselines,
    "faults": faults,
    "attacks": attacks,
}


def everyone(plan: Plan, split: Split) -> dict[str, Experiment]:
    """All algorithms on digits, by the names that tables and pictures have."""
    config = plan.scenario.config
    found = {
        "pair, mod4 (default)": plan.ours("digits", split),
        "pair, f32": plan.ours("digits", split, config=replace(config, codec="f32")),
    }
    for name in SELECTABLE:
        found[name] = plan.ours("digits", split, config=replace(config, algorithm=name))
    for name in BASELINE_NAMES:
        if name == "diloco":
            tried = zip(OUTER_TRIED, diloco(plan, "digits", split), strict=True)
            found |= {f"diloco, momentum {momentum:g}": tuned for momentum, tuned in tried}
        else:
            found[name] = plan.baseline(name, "digits", split)
    return found
