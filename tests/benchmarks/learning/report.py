"""Results as JSON for machines, and as tables of docs/algorithm.md for people."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from covey.simulate.result import Result
from tests.benchmarks import document
from tests.benchmarks.document import NONE
from tests.benchmarks.learning.claims import SPLITS, Plan, everyone
from tests.benchmarks.learning.questions import asked, results
from tests.benchmarks.learning.rows import Row
from tests.benchmarks.learning.runs import Runs


def about(runs: Runs, plan: Plan) -> dict[str, object]:
    """When, where and with what: enough to judge a difference."""
    return document.machine(("covey", "torch", "numpy", "scikit-learn")) | {
        "seconds": round(runs.seconds),
        "tasks": [*plan.tasks, "text"],
        "seeds": list(plan.seeds),
        "seeds_under_skew": list(plan.skewed_seeds),
        "tuning_seeds": list(plan.tuning),
    }


def write_json(path: Path, facts: dict[str, object], rows: Sequence[Row]) -> None:
    document.write_json(path, facts, [row.document() for row in rows])


# --- tables --------------------------------------------------------------------------------------


def claim_table(rows: Iterable[Row]) -> str:
    """A line per row."""
    head = ("setting", "covey", "worst node", "reference", "difference", "bytes", "target", "met")
    lines = []
    for row in rows:
        error = "" if math.isnan(row.error) else f" ± {row.error:.2f}"
        fewer = NONE if row.bytes_ratio is None else f"{row.bytes_ratio:.1f}x fewer"
        met = (NONE if not row.target else "yes") if row.ok else "**no**"
        difference = f"{row.difference:+.2f}{error} {row.unit}"
        numbers = (_number(row.ours), _number(row.least), _number(row.reference))
        lines.append((row.setting, *numbers, difference, fewer, row.target or NONE, met))
    return document.table(head, lines)


def comparison_table(plan: Plan, runs: Runs) -> str:
    """Every algorithm on digits, with both splits."""
    names = {split: everyone(plan, split) for split in SPLITS}
    futures = {
        (split, name): asked(runs, experiment, plan.seeds)
        for split in SPLITS
        for name, experiment in names[split].items()
    }
    head = ("algorithm", *(f"{split}: {what}" for split in SPLITS for what in ("mean", "worst")))
    lines = []
    for name in names[SPLITS[0]]:
        cells, sent = [], 0.0
        for split in SPLITS:
            found = results(futures[split, name])
            cells += [_mean(found, lambda r: r.final.mean), _mean(found, lambda r: r.final.least)]
            sent = float(np.mean([result.bytes_per_parameter for result in found]))
        lines.append((name, *cells, f"{sent:.4g}"))
    return document.table((*head, "bytes per parameter"), lines)


def _mean(found: Sequence[Result], of: Callable[[Result], float]) -> str:
    return f"{100 * np.mean([of(result) for result in found]):.2f} %"


def _number(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:.4g}"
