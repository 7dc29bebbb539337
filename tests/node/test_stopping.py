"""Stopping: asking, waiting, and ending a node that hangs."""

import subprocess
import sys
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest

from covey.node.client import NotRunning
from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.stopping import stop_node

if TYPE_CHECKING:
    from tests.node.conftest import FakeNode

HANG = """
import sys
from covey.node.home import Home
with Home.find(sys.argv[1], {}).lock({}):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_node_is_asked_and_waited_for(node: "FakeNode") -> None:
    assert stop_node(node.home, now=False, within_s=30) > 0
    assert node.control.stopped == [False]
    assert node.home.holder() is None


def test_at_once(node: "FakeNode") -> None:
    stop_node(node.home, now=True, within_s=30)
    assert node.control.stopped == [True]


def test_nothing_to_stop(home: Home) -> None:
    with pytest.raises(NotRunning, match="no node runs"):
        stop_node(home, now=False, within_s=1)


def test_a_node_that_stays_is_reported(node: "FakeNode") -> None:
    node.control.on_stop, stop = lambda: None, node.control.on_stop
    with pytest.raises(OperatorError, match=r"still there after 0.1 s; .*covey stop --now --home"):
        stop_node(node.home, now=False, within_s=0.1)
    node.control.on_stop = stop


def test_a_node_that_hangs_is_killed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.node.stopping._ANSWER_S", 0.05)
    with subprocess.Popen(
        [sys.executable, "-c", HANG, str(home.root)], stdin=PIPE, stdout=PIPE
    ) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == b"locked\n"
        with pytest.raises(NotRunning, match="just starting or ending"):
            stop_node(home, now=False, within_s=1)
        assert stop_node(home, now=True, within_s=30) == p.pid
    assert p.returncode == -9
