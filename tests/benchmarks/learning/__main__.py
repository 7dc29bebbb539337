"""Does covey's learning do what it claims?  ``python -m tests.benchmarks.learning`` from the root.

``make bench-learning`` also renews the tables and figures of docs/algorithm.md.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import document as texts
from tests.benchmarks.learning import figures, report
from tests.benchmarks.learning.claims import CLAIMS, SHORT, Plan
from tests.benchmarks.learning.rows import Row
from tests.benchmarks.learning.runs import Runs


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if a claim does not hold."""
    asked = _parser().parse_args(arguments)
    plan = SHORT if asked.short else Plan()
    if asked.seeds:
        seeds = tuple(asked.seeds)
        plan = plan.on(seeds)
    if asked.tasks:
        plan = replace(plan, tasks=tuple(asked.tasks))
    with Runs(asked.workers) as runs:
        return bench(plan, runs, asked.only or list(CLAIMS), asked.out, asked.document)


def bench(
    plan: Plan, runs: Runs, names: Sequence[str], out: Path, document: Path | None = None
) -> int:
    """Answer these claims; write ``out``, and the tables and figures of ``document`` if given."""
    answers = {name: [q.ask(runs) for q in CLAIMS[name](plan)] for name in names}
    found: dict[str, list[Row]] = {}
    for name in names:
        found[name] = [row for answer in answers[name] for row in answer()]
        print(f"{name}\n{report.claim_table(found[name])}\n", flush=True)
    facts = report.about(runs, plan)
    if document is not None:
        tables = {name: report.claim_table(found[name]) for name in names}
        if set(names) == set(CLAIMS):
            tables["comparison"] = report.comparison_table(plan, runs)
            figures.draw(plan, runs, document.parent / document.stem)
            facts = report.about(runs, plan)
            tables["facts"] = texts.facts_table(facts)
        texts.fill(document, tables)
    rows = [row for name in sorted(found) for row in found[name]]
    report.write_json(out, facts, rows)
    return _conclude(rows)


def _conclude(rows: Sequence[Row]) -> int:
    failed = [row for row in rows if not row.ok]
    for row in failed:
        print(f"not met: {row.claim}, {row.setting}: {row.difference:+.2f} {row.unit}")
    print(f"{len(rows) - len(failed)} of {len(rows)} as claimed")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.learning", description=__doc__
    )
    parser.add_argument("--short", action="store_true", help="fewer seeds, nodes and settings")
    parser.add_argument("--only", action="append", choices=sorted(CLAIMS), metavar="CLAIM")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the plan's")
    parser.add_argument("--tasks", nargs="+", choices=("digits", "mnist"), help="likewise")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument("--out", type=Path, default=Path("bench-learning.json"))
    parser.add_argument("--document", type=Path, help="whose tables and figures are renewed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
