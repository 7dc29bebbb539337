"""The pictures of docs/algorithm.md, the same to the byte for the same results."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from covey.simulate import scaling
from covey.simulate.experiment import Experiment
from covey.simulate.result import Point
from tests.benchmarks.learning.claims import CUT, IID, LOSS, SKEWED, SPLITS, SPREAD, Plan, everyone
from tests.benchmarks.learning.questions import asked, results
from tests.benchmarks.learning.runs import Runs

_OURS = "pair, mod4 (default)"
_SIZE_IN = (9.0, 3.8)
_LEAST = {str(IID): 0.8, str(SKEWED): 0.3}  # of the accuracy shown


def draw(plan: Plan, runs: Runs, folder: Path) -> None:
    """Write all of them; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "covey", "svg.fonttype": "none"}):
        for name, picture in (
            ("bytes", _bytes(plan, runs)),
            ("faults", _faults(plan, runs)),
            ("scale", _scale(plan, runs)),
        ):
            picture.savefig(folder / f"{name}.svg", metadata={"Date": None})


def curve(plan: Plan, runs: Runs, experiment: Experiment) -> list[list[Point]]:
    """The points of all seeds, by time."""
    points = [result.points for result in results(asked(runs, experiment, plan.seeds))]
    return [list(at_once) for at_once in zip(*points, strict=True)]


def accuracy(curve: Sequence[Sequence[Point]]) -> list[float]:
    """Mean over nodes and seeds."""
    return [float(np.mean([point.mean for point in points])) for points in curve]


def _bytes(plan: Plan, runs: Runs) -> Figure:
    """What was learned against what was sent, of all who send anything."""
    figure, panels = _panels()
    for axes, split in zip(panels, SPLITS, strict=True):
        for number, (name, experiment) in enumerate(everyone(plan, split).items()):
            points = curve(plan, runs, experiment)
            sent = [float(np.mean([point.sent for point in at])) for at in points]
            if not sent[-1]:
                continue
            per_parameter = np.divide(sent, _parameters(plan, runs, experiment))
            ours = name == _OURS
            axes.plot(
                per_parameter,
                accuracy(points),
                color="black" if ours else f"C{number % 10}",
                linewidth=2.5 if ours else 1.0,
                linestyle="-" if number < 10 else "--",
                label=name if split == SPLITS[0] else None,
            )
        axes.set_xscale("log")
        _label(axes, str(split), "bytes per parameter and node")
    figure.legend(loc="outside right center", fontsize="x-small", frameon=False)
    return figure


def _faults(plan: Plan, runs: Runs) -> Figure:
    """What goes wrong, over time; stars are after settling."""
    troubles: dict[str, dict[str, object]] = {
        "undisturbed": {},
        "30 % lost": {"network": LOSS},
        f"speeds {SPREAD:g}:1": {"spread": SPREAD},
        "cut in halves": {"cut": CUT},
    }
    figure, panels = _panels()
    for axes, split in zip(panels, SPLITS, strict=True):
        for number, (name, changes) in enumerate(troubles.items()):
            *training, settled = curve(plan, runs, plan.ours("digits", split, **changes))
            periods = [points[0].time_s / plan.scenario.period_s for points in training]
            label = name if split == SPLITS[0] else None
            axes.plot(periods, accuracy(training), ".-", color=f"C{number}", label=label)
            axes.plot(1.05 * plan.scenario.periods, accuracy([settled]), "*", color=f"C{number}")
        begin, end = (share * plan.scenario.periods for share in (CUT.begin, CUT.end))
        axes.axvspan(begin, end, color="grey", alpha=0.15, linewidth=0)
        _label(axes, str(split), "periods")
    figure.legend(loc="outside right center", fontsize="x-small", frameon=False)
    return figure


def _scale(plan: Plan, runs: Runs) -> Figure:
    """Time to agreement and bytes, against the number of nodes."""
    costs = [runs.ask(scaling.measure, n, plan.flock_periods).result() for n in plan.flocks]
    a, b = scaling.fit(costs)
    figure, (left, right) = _panels()
    left.plot(plan.flocks, [cost.periods for cost in costs], "o", color="black")
    fitted = a + b * np.log2(plan.flocks)
    left.plot(plan.flocks, fitted, "--", color="grey", label=f"{a:.1f} + {b:.2f} log2 n")
    left.legend(frameon=False)
    right.plot(plan.flocks, [cost.bytes_per_period for cost in costs], "o-", color="black")
    for axes, title in ((left, "periods to 1 % disagreement"), (right, "bytes per node, period")):
        axes.set_xscale("log")
        axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
        axes.set_title(title, fontsize="small")
        axes.set_xlabel("nodes", fontsize="small")
        axes.grid(alpha=0.3)
    return figure


def _parameters(plan: Plan, runs: Runs, experiment: Experiment) -> int:
    return results(asked(runs, experiment, plan.seeds))[0].parameters


def _panels() -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    return figure, list(figure.subplots(1, 2).flat)


def _label(axes: Axes, split: str, x: str) -> None:
    axes.set_title(f"digits, {split}", fontsize="small")
    axes.set_xlabel(x, fontsize="small")
    axes.set_ylim(bottom=_LEAST[split])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.grid(alpha=0.3)
