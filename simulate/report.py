"""What a run's result looks like: as JSON and as a table."""

import math
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from rich import box
from rich.table import Table

from covey.simulate.experiment import Experiment
from covey.simulate.result import Point, Result


def document(experiment: Experiment, result: Result) -> dict[str, Any]:
    """All there is, in JSON's types: NaN (a task without accuracy) is None."""
    points = [_plain(asdict(point)) for point in result.points]
    return {
        "version": version("covey"),
        "task": experiment.task,
        "split": str(experiment.split),
        "algorithm": experiment.algorithm,
        "outer": asdict(experiment.outer) if experiment.outer else None,
        "scenario": _plain(asdict(experiment.scenario)),
        "parameters": result.parameters,
        "points": points,
        "final": points[-1],
        "bytes_per_parameter": result.bytes_per_parameter,
        "exchanges_per_node": result.exchanges,
        "failed_exchanges": dict(sorted(result.reasons.items())),
    }


def _plain(value: Any) -> Any:
    """Without what JSON has no word for."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(experiment: Experiment, result: Result) -> Table:
    """The models before and after settling, and what they cost."""
    final = result.final
    made = Table(title=_title(experiment), box=box.SIMPLE_HEAD, title_justify="left")
    made.add_column(no_wrap=True)
    for name in ("nodes' models", "worst node", "their average"):
        made.add_column(name, justify="right")
    _add_models(made, result.points[-2], "still training")
    _add_models(made, final, "at the end")
    made.add_section()
    made.add_row("distance to the average", f"{final.apart:.2%}")
    made.add_row("sent per node", _bytes(final.sent))
    made.add_row("sent per parameter", f"{result.bytes_per_parameter:.1f} B")
    made.add_row("local steps per node", f"{final.steps:,.0f}")
    if not experiment.baseline:
        made.add_row("exchanges per node", f"{result.exchanges:.1f}")
        for reason, times in sorted(result.reasons.items()):
            made.add_row(f"  not made: {reason}", f"{times / experiment.scenario.nodes:.1f}")
    return made


def _add_models(made: Table, point: Point, when: str) -> None:
    if not math.isnan(point.mean):
        row = [f"{value:.2%}" for value in (point.mean, point.least, point.averaged)]
        made.add_row(f"accuracy {when}", *row)
    made.add_row(f"loss {when}", f"{point.loss:.4f}", "", f"{point.loss_averaged:.4f}")


def _title(experiment: Experiment) -> str:
    scenario = experiment.scenario
    split = "" if experiment.task.startswith("consensus") else f", split {experiment.split}"
    return (
        f"{experiment.algorithm} on {experiment.task}{split}: "
        f"{scenario.nodes} nodes, {scenario.periods} periods, seed {scenario.seed}"
    )


def _bytes(count: float) -> str:
    """Of a size: ``480 kB``, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
