"""The numpy example: no torch, and it learns."""

from tests.examples.conftest import EXAMPLES, Run


def test_it_learns(run: Run) -> None:
    lines = run("numpy_only", "--steps", "4000")
    assert len(lines) == 5
    assert float(lines[-1].removeprefix("accuracy ")) > 0.85


def test_it_needs_no_torch() -> None:
    assert "torch" not in (EXAMPLES / "numpy_only.py").read_text()
