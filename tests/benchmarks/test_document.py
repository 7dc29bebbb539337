"""What both benchmarks write: JSON, and tables between the markers of a document."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import document


def test_tables_are_put_between_their_markers(tmp_path: Path) -> None:
    path = tmp_path / "some.md"
    path.write_text("before\n<!-- table: codec -->\nold\n<!-- end -->\nafter\n")
    for _ in range(2):
        document.fill(path, {"codec": document.table(("a", "b"), [("1", "2")])})
    assert path.read_text() == (
        "before\n<!-- table: codec -->\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<!-- end -->\nafter\n"
    )
    with pytest.raises(ValueError, match="faults"):
        document.fill(path, {"faults": ""})


def test_json_holds_facts_and_rows_and_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    facts = document.machine(("numpy",))
    document.write_json(path, facts, [{"ratio": 0.5}])
    found = json.loads(path.read_text())
    assert found == facts | {"rows": [{"ratio": 0.5}]}
    with pytest.raises(ValueError, match="Out of range"):
        document.write_json(path, facts, [{"ratio": float("nan")}])


def test_facts_are_told_in_words() -> None:
    told = document.facts_table({"left_out": "none", "versions": {"numpy": "2"}, "seeds": [1, 2]})
    lines = told.splitlines()[2:]
    assert lines == ["| left out | none |", "| versions | numpy 2 |", "| seeds | 1, 2 |"]
