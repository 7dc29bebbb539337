"""Runs an example as a user does: a process of its own, with a node of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """``run("digits", "--alone")``: the lines it printed."""

    def run(name: str, *options: str) -> list[str]:
        environ = {key: text for key, text in os.environ.items() if not key.startswith("COVEY_")}
        environ |= {
            "COVEY_HOME": str(tmp_path / "home"),
            "COVEY_LISTEN": "127.0.0.1:0",
            "COVEY_API": "127.0.0.1:0",
            "COVEY_MDNS": "off",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{name}.py"), *options],
            env=environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        if "--alone" not in options:
            assert "started a node for this script" in done.stderr
        return done.stdout.splitlines()

    yield run
    assert not (tmp_path / "home" / "run" / "link.sock").exists(), "a node was left behind"
