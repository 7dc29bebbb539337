"""How fast covey is, beside other systems: ``python -m tests.benchmarks.perf`` from the root.

``make bench`` also renews docs/performance.md and its picture.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.perf import report
from tests.benchmarks.perf.groups import GROUPS, SHORT, Bench, Plan
from tests.benchmarks.perf.peers import Peers
from tests.benchmarks.perf.rows import Row


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if a row is not what it should be."""
    asked = _parser().parse_args(arguments)
    plan = SHORT if asked.short else Plan()
    if asked.repeats:
        plan = replace(plan, repeats=asked.repeats)
    if asked.parameters:
        plan = replace(plan, parameters=asked.parameters)
    with TemporaryDirectory(prefix="covey-bench-") as logs:
        bench = Bench(plan, Peers(asked.peers, Path(logs)))
        rows = measure(bench, asked.only or list(GROUPS))
    report.write_json(asked.out, bench, rows)
    if asked.only is None:  # documents hold figures of one run
        report.renew(asked.document, asked.readme, bench, rows)
    return _conclude(bench, rows)


def measure(bench: Bench, names: Sequence[str]) -> list[Row]:
    """The rows of these groups, each printed as soon as it is there."""
    rows, began = [], time.monotonic()
    for name in names:
        print(f"{name}: {GROUPS[name].__doc__}", flush=True)
        for row in GROUPS[name](bench):
            print(report.line(row), flush=True)
            rows.append(row)
    print(f"measured in {(time.monotonic() - began) / 60:.1f} minutes")
    return rows


def _conclude(bench: Bench, rows: Sequence[Row]) -> int:
    for reason in bench.left_out:
        print(f"left out: {reason}")
    failed = [row for row in rows if not row.ok]
    for row in failed:
        print(f"not met: {row.name}: {row.ratio:.3g} of {row.reference_name}, {row.target}")
    print(f"{len(rows) - len(failed)} of {len(rows)} as wanted")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.perf", description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer repeats, smaller flocks")
    parser.add_argument("--only", action="append", choices=GROUPS, metavar="GROUP")
    parser.add_argument("--repeats", type=int, help="instead of the plan's")
    parser.add_argument("--parameters", type=int, help="instead of the plan's")
    parser.add_argument("--peers", type=Path, default=Path(".bench"), help="from bench-peers")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--document", type=Path, help="whose tables and picture are renewed")
    parser.add_argument("--readme", type=Path, help="whose table of speed is renewed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
