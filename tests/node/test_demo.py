"""The demo for real: it compares, it copes without multicast, and nothing outlives it."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from covey.node import demo
from covey.node.faults import OperatorError
from tests.swarm.netns import lan
from tests.waiting import PATIENCE_S, until

COMMAND = (sys.executable, "-m", "covey.node", "demo", "--json")

pytestmark = pytest.mark.swarm


@contextmanager
def running(folder: Path, argv: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A demo whose processes can be told by ``folder`` in their arguments."""
    environ = os.environ | {"TMPDIR": str(folder)}
    process = subprocess.Popen(
        argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """The line of its standard error that has ``words``; fails if it ends before."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return line
    raise AssertionError(f"{words!r} is not in\n{''.join(lines)}")


def processes_of(folder: Path) -> list[str]:
    done = subprocess.run(
        ["ps", "-axww", "-o", "args="], capture_output=True, text=True, check=True
    )
    return [line for line in done.stdout.splitlines() if str(folder) in line]


def assert_nothing_left(folder: Path) -> None:
    until("nothing is left", lambda: not processes_of(folder))


def test_together_is_better_than_alone(tmp_path: Path) -> None:
    with running(tmp_path, COMMAND) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert err.startswith("covey demo: 3 nodes on this machine")
    assert re.search(r" s  quail (starting|idle|alone)   grouse ", err), "long before any step"
    result = json.loads(out)
    assert result.keys() == {"nodes", "together_mean", "alone_mean", "seconds"}
    assert result["together_mean"] >= 0.93
    assert result["together_mean"] >= result["alone_mean"] + 0.10
    assert len({node["id"] for node in result["nodes"]}) == 3
    for node in result["nodes"]:
        assert node["discovered_by"] == "mdns"
        assert node["exchanges"] > 0
        assert node["steps"] == 1200
        # 0.14 and headers; on a loaded machine exchanges that came to nothing cost too
        assert node["wire_bytes_sent"] <= 0.25 * node["raw_bytes"]
        assert node["accuracy"] > node["accuracy_alone"]
    assert processes_of(tmp_path) == []
    assert list(tmp_path.glob("covey-demo-*")) == []


def test_without_multicast_it_uses_static_peers_and_dies_whole(tmp_path: Path) -> None:
    with lan(1) as (machine,):
        machine.block_multicast()
        with running(tmp_path, machine.argv([*COMMAND, "--nodes", "2"])) as process:
            line = read_until(process, "multicast does not work here")
            assert "static peers" in line
            assert "by static" in read_until(process, "now the same scripts together")
            read_until(process, " step ")  # both learners joined, at the latest
            assert len(processes_of(tmp_path)) == 4, "two nodes and two learners"
            process.kill()
            assert process.wait(PATIENCE_S) == -signal.SIGKILL
        assert_nothing_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["starting the nodes", "each node's script alone"])
def test_nothing_outlives_it(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    with running(tmp_path, [*COMMAND, "--nodes", "2"]) as process:
        read_until(process, moment)
        process.send_signal(number)
        code = process.wait(PATIENCE_S)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number)
    assert_nothing_left(tmp_path)


def test_one_node_is_no_flock() -> None:
    with pytest.raises(OperatorError, match="flock of 1"):
        demo.run(1, True, 0)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo.example("digits").name == "digits.py"
    with pytest.raises(OperatorError, match="kites is not installed"):
        demo.example("kites")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "torch" else found(name)
    )
    with pytest.raises(OperatorError, match="torch, which is not installed") as caught:
        demo.example("digits")
    assert "covey[demo]" in caught.value.fix
