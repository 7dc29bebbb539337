"""docs/performance.svg: how long a round takes covey and others, on one machine and by cable."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.perf.rows import Row

_SIZE_IN = (8.0, 2.6)
Bar = tuple[str, float]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture, if both of its panels were measured."""
    panels = {"nodes on one machine": crowd(rows), "two nodes, by cable": cables(rows)}
    if not all(panels.values()):
        return
    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    for axes, (title, bars) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        _panel(axes, title, bars)
    with matplotlib.rc_context({"svg.hashsalt": "covey", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def crowd(rows: Sequence[Row]) -> list[Bar]:
    """covey's round beside every other's, the longest first."""
    found = [row for row in rows if row.group == "crowd" and row.is_round]
    bars = [("covey", row.ours) for row in found[:1]]
    bars += [(row.reference_name, row.reference) for row in found]
    return sorted(bars, key=lambda bar: -bar[1])


def cables(rows: Sequence[Row]) -> list[Bar]:
    """covey's exchange beside Gloo's at each rate."""
    bars = []
    for row in rows:
        if row.group == "links" and row.is_round and " 2 nodes" in row.name:
            rate = row.name.rpartition(", ")[2]
            bars += [(f"{row.reference_name}, {rate}", row.reference), (f"covey, {rate}", row.ours)]
    return bars


def _panel(axes: Axes, title: str, bars: Sequence[Bar]) -> None:
    names, seconds = [name for name, _ in bars], [value for _, value in bars]
    colors = ["black" if name.startswith("covey") else "darkgrey" for name in names]
    drawn = axes.barh(range(len(bars)), seconds, color=colors)
    axes.bar_label(drawn, [f" {value:.2g} s" for value in seconds], fontsize="small")
    axes.set_yticks(range(len(bars)), names, fontsize="small")
    axes.set_xscale("log")
    axes.set_xlim(min(seconds) / 3, max(seconds) * 4)
    axes.set_title(f"{title}: seconds, logarithmic", fontsize="small")
    axes.tick_params(axis="x", labelsize="x-small")
    axes.spines[["top", "right"]].set_visible(False)
