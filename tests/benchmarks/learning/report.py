"""Results as JSON for machines, and as tables between the markers of a document for people."""

import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from covey.simulate.result import Result
from tests.benchmarks.learning.claims import SPLITS, Plan, everyone
from tests.benchmarks.learning.questions import asked, results
from tests.benchmarks.learning.rows import Row
from tests.benchmarks.learning.runs import Runs

_NONE = "—"


def about(runs: Runs, plan: Plan) -> dict[str, object]:
    """When, where and with what: enough to judge a difference."""
    packages = ("covey", "torch", "numpy", "scikit-learn")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "seconds": round(runs.seconds),
        "seeds": list(plan.seeds),
        "tuning_seeds": list(plan.tuning),
    }


def write_json(path: Path, facts: dict[str, object], rows: Sequence[Row]) -> None:
    text = json.dumps(
        {**facts, "rows": [row.document() for row in rows]}, indent=1, ensure_ascii=False
    )
    path.write_text(text + "\n", encoding="utf-8")


# --- tables --------------------------------------------------------------------------------------


def claim_table(rows: Iterable[Row]) -> str:
    """A line per row."""
    head = ("setting", "covey", "worst node", "reference", "difference", "bytes", "target", "met")
    lines = []
    for row in rows:
        error = "" if math.isnan(row.error) else f" ± {row.error:.2f}"
        fewer = _NONE if row.bytes_ratio is None else f"{row.bytes_ratio:.1f}x fewer"
        met = (_NONE if not row.target else "yes") if row.ok else "**no**"
        difference = f"{row.difference:+.2f}{error} {row.unit}"
        numbers = (_number(row.ours), _number(row.least), _number(row.reference))
        lines.append((row.setting, *numbers, difference, fewer, row.target or _NONE, met))
    return _table(head, lines)


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
    return _table((*head, "bytes per parameter"), lines)


def facts_table(facts: dict[str, object]) -> str:
    lines = []
    for name, fact in facts.items():
        told = ", ".join(f"{k} {v}" for k, v in fact.items()) if isinstance(fact, dict) else fact
        lines.append((name.replace("_", " "), str(told).strip("[]")))
    return _table(("", ""), lines)


def _mean(found: Sequence[Result], of: Callable[[Result], float]) -> str:
    return f"{100 * np.mean([of(result) for result in found]):.2f} %"


def _number(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.4g}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    ruled = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *ruled])


# --- the document --------------------------------------------------------------------------------


def fill(document: Path, tables: dict[str, str]) -> None:
    """Put each table between its markers, ``<!-- table: NAME -->`` and ``<!-- end -->``.

    Raises ValueError if the document has no place for one.
    """
    text = document.read_text(encoding="utf-8")
    for name, table in tables.items():
        place = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        parts = place.split(text)  # what is before, the two markers, what is after
        if len(parts) != 4:
            raise ValueError(f"{document} has not one place for the table {name!r}")
        text = f"{parts[0]}{parts[1]}\n{table}\n\n{parts[2]}{parts[3]}"
    document.write_text(text, encoding="utf-8")
