"""The language model example: it runs on any text, and covey is one import and one line of it."""

from pathlib import Path

from tests.examples.conftest import EXAMPLES, Run


def test_it_learns(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("the quick brown fox jumps over the lazy dog\n" * 400)
    lines = run("charlm", "--text", str(tmp_path / "text"), "--shard", "2/2", "--steps", "8")
    first, last = (float(line.split()[-1]) for line in (lines[0], lines[-1]))
    assert lines[-1].startswith("step     7  loss ")
    assert last < first < 6


def test_covey_is_one_import_and_one_line() -> None:
    lines = (EXAMPLES / "charlm.py").read_text().splitlines()
    code = [line for line in lines[5:] if "covey" in line]
    assert code == ["import covey", "covey.join(model, optimizer)"]
