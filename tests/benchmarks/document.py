"""Results as JSON for machines, and as tables between the markers of a document for people."""

import json
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

NONE = "—"


def machine(packages: Sequence[str]) -> dict[str, object]:
    """When, where and with what: enough to judge a difference."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def write_json(path: Path, facts: Mapping[str, object], rows: Sequence[Mapping[str, Any]]) -> None:
    """One object: the facts, and ``rows``.  Numbers must be finite."""
    text = json.dumps({**facts, "rows": rows}, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    ruled = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *ruled])


def facts_table(facts: Mapping[str, object]) -> str:
    lines = []
    for name, fact in facts.items():
        told = ", ".join(f"{k} {v}" for k, v in fact.items()) if isinstance(fact, dict) else fact
        lines.append((name.replace("_", " "), str(told).strip("[]")))
    return table(("", ""), lines)


def fill(document: Path, tables: Mapping[str, str]) -> None:
    """Put each table between its markers, ``<!-- table: NAME -->`` and ``<!-- end -->``.

    Raises ValueError if the document has no place for one.
    """
    text = document.read_text(encoding="utf-8")
    for name, made in tables.items():
        place = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        parts = place.split(text)  # what is before, the two markers, what is after
        if len(parts) != 4:
            raise ValueError(f"{document} has not one place for the table {name!r}")
        text = f"{parts[0]}{parts[1]}\n{made}\n\n{parts[2]}{parts[3]}"
    document.write_text(text, encoding="utf-8")
