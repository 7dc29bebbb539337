"""Pictures of results: what was learned against bytes, steps and time, and how far nodes agree."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from covey.simulate.result import Point, Result

_SIZE_IN = (11.0, 7.5)
_DPI = 110


def plot(results: Mapping[str, Result], path: Path) -> None:
    """Draw ``results``, by name, over each other; the file's suffix says the format (png, svg …).

    Lines are means over the nodes' own models, shades (of one or two results) reach down to the
    worst node's, dashes are their averaged model; dots are what sends nothing.  Loss stands for
    accuracy where there is none.  Raises OSError, and ValueError for an unknown format.
    """
    assert results, "nothing to draw"
    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    by_bytes, by_steps, by_time, apart = figure.subplots(2, 2).flat
    for number, (name, result) in enumerate(results.items()):
        colour = f"C{number % 10}"
        times = [point.time_s for point in result.points]
        _draw_bytes(by_bytes, result, colour)
        _draw(by_steps, [point.steps for point in result.points], result, colour, name)
        _draw(by_time, times, result, colour)
        if len(results) <= 2:
            _shade(by_time, times, result, colour)
        apart.plot(times, [point.apart or np.nan for point in result.points], ".-", color=colour)
    if len(results) > 1:
        by_bytes.set_xscale("log")
    if any(point.apart for result in results.values() for point in result.points):
        apart.set_yscale("log")
        apart.yaxis.set_minor_formatter(NullFormatter())
        apart.yaxis.set_major_locator(LogLocator(numticks=8))
    _label(by_bytes, "sent per node (bytes per parameter)", _quantity(results))
    _label(by_steps, "local steps per node", _quantity(results))
    _label(by_time, "time (virtual s)", _quantity(results))
    _label(apart, "time (virtual s)", "distance to the average / its length")
    if _quantity(results) == "accuracy":
        for axes in (by_bytes, by_steps, by_time):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside upper center", ncols=min(5, len(results)), frameon=False)
    figure.savefig(path, dpi=_DPI)


def _draw_bytes(axes: Axes, result: Result, colour: str) -> None:
    sent = [point.sent / result.parameters for point in result.points]
    if sent[-1]:
        _draw(axes, sent, result, colour)
    else:
        axes.axhline(_score(result.final), color=colour, linestyle=":")


def _draw(axes: Axes, x: list[float], result: Result, colour: str, name: str = "") -> None:
    axes.plot(x, [_score(point) for point in result.points], ".-", color=colour, label=name or None)
    averaged = [
        point.loss_averaged if np.isnan(point.mean) else point.averaged for point in result.points
    ]
    axes.plot(x, averaged, "--", color=colour, linewidth=0.8)


def _shade(axes: Axes, x: list[float], result: Result, colour: str) -> None:
    least = [point.least for point in result.points]
    mean = [point.mean for point in result.points]
    axes.fill_between(x, least, mean, color=colour, alpha=0.15, linewidth=0)


def _score(point: Point) -> float:
    return point.loss if np.isnan(point.mean) else point.mean


def _quantity(results: Mapping[str, Result]) -> str:
    return "loss" if any(np.isnan(r.final.mean) for r in results.values()) else "accuracy"


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
