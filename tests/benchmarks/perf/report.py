"""Rows for people and for machines, and the tables of docs/performance.md."""

from collections.abc import Sequence
from pathlib import Path

from covey.gossip import native
from tests.benchmarks import document
from tests.benchmarks.document import NONE
from tests.benchmarks.perf import picture, stages
from tests.benchmarks.perf.groups import Bench
from tests.benchmarks.perf.rows import Row


def line(row: Row) -> str:
    """One row as it is printed when it is measured."""
    met = f"({row.target}) {'ok' if row.ok else 'NOT MET'}" if str(row.target) else ""
    ours, reference = _amount(row.ours, row.unit), _amount(row.reference, row.unit)
    return (
        f"  {row.name:<58} {ours:>12} {row.ratio:>8.3f} of {row.reference_name} {reference} {met}"
    )


def write_json(path: Path, bench: Bench, rows: Sequence[Row]) -> None:
    document.write_json(path, facts(bench), [row.document() for row in rows])


def facts(bench: Bench) -> dict[str, object]:
    """When, where and with what."""
    return document.machine(("covey", "numpy", "torch")) | {
        "kernels": native.IN_USE,
        "repeats": bench.plan.repeats,
        "left_out": "; ".join(bench.left_out) or NONE,
    }


def renew(path: Path | None, readme: Path | None, bench: Bench, rows: Sequence[Row]) -> None:
    """The documents that are given: tables of groups, stages and facts with a picture; a few."""
    if path is not None:
        _renew_whole(path, bench, rows)
    if readme is not None:
        document.fill(readme, {"speed": speed_table(rows)})


def _renew_whole(path: Path, bench: Bench, rows: Sequence[Row]) -> None:
    groups = list(dict.fromkeys(row.group for row in rows))
    tables = {name: table([row for row in rows if row.group == name]) for name in groups}
    exchange = next((r.ours for r in rows if r.is_round and r.group == "loopback"), None)
    found = list(stages.stages(bench.plan.parameters, bench.plan.repeats))
    tables["stages"] = stages.table(found, exchange)
    tables["facts"] = document.facts_table(facts(bench))
    document.fill(path, tables)
    picture.draw(rows, path.with_suffix(".svg"))


def speed_table(rows: Sequence[Row]) -> str:
    """How long a round takes, and what training beside it loses."""
    lines = []
    for row in rows:
        if row.is_round or row.unit == "steps/s":
            ours, other = _amount(row.ours, row.unit), _amount(row.reference, row.unit)
            lines.append((row.name, ours, f"{row.reference_name}: {other}", f"{row.ratio:.2f}"))
    return document.table(("", "covey", "beside", "ratio"), lines)


def table(rows: Sequence[Row]) -> str:
    head = ("what", "covey", "least and most", "reference", "", "ratio", "wanted", "met")
    lines = []
    for row in rows:
        met = ("yes" if row.ok else "**no**") if str(row.target) else NONE
        spread = " to ".join(f"{value:.3g}" for value in row.spread) if row.repeats > 1 else NONE
        lines.append(
            (
                *(row.name, _amount(row.ours, row.unit), spread, row.reference_name),
                *(_amount(row.reference, row.unit), f"{row.ratio:.3g}"),
                *(str(row.target) or NONE, met),
            )
        )
    return document.table(head, lines)


def _amount(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip()
