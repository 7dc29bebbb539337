"""Going: a goodbye within ten seconds, none on the second signal, and no process left behind."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.swarm.flock import LEARNER, Flock, Node
from tests.waiting import until

pytestmark = pytest.mark.swarm

LEAVES_S = 10.0  # the promise, from the first signal to the end


def gone(flock: Flock, within_s: float) -> None:
    until("no process is left", lambda: not flock.pids(), within_s)


def acquainted(node: Node, others: list[Node]) -> None:
    """Wait until they know each other: a goodbye goes to those whom the leaver knows."""
    for other in others:
        node.peer(other.name)
        other.peer(node.name)


def test_sigterm_leaves_and_says_so(training: list[Node]) -> None:
    ada = training[0]
    leaver = ada.flock.run("leaver").ready()
    leaver.learns_on()
    step = leaver.status()["training"]["step"]
    acquainted(leaver, training)
    leaver.terminate()
    leaver.wait(LEAVES_S)
    for node in training:
        node.peer("leaver", "left")
        told = {e["type"] for e in node.events() if e["data"].get("peer") == leaver.short}
        assert not told & {"peer.suspect", "peer.dead"}, "it has left, it did not die"
        node.says(f"leaver ({leaver.short}) is here")
        node.says(f"leaver ({leaver.short}) has left")
    assert any(f"learning with leaver ({leaver.short})" in node.words for node in training)
    ada.learns_on()
    again = ada.flock.run("leaver").ready()
    restored = again.event("train.restored")
    assert restored["data"]["step"] >= step, "it kept its state as it left"


def test_sigterm_with_a_learner_that_hangs(training: list[Node]) -> None:
    flock = training[0].flock
    node = flock.run("deaf", learner=["--deaf"]).ready()
    node.event("train.started")
    before = len(flock.pids())
    node.terminate()
    node.wait(LEAVES_S)
    until("its learner is gone too", lambda: len(flock.pids()) == before - 2, 1)


def test_the_second_sigterm_ends_at_once(training: list[Node]) -> None:
    flock = training[0].flock
    node = flock.run("deafer", learner=["--deaf"]).ready()
    node.event("train.started")
    before = len(flock.pids())
    began = time.monotonic()
    node.terminate()
    until("it is leaving", lambda: node.checks()["membership"] != "ok")
    node.terminate()
    assert node.wait() == 1
    assert time.monotonic() - began < 4, "not as long as the learner is given"
    until("its learner is gone too", lambda: len(flock.pids()) == before - 2, 5)


def test_covey_stop(flock: Flock) -> None:
    node = flock.up("node").ready()
    assert flock.say("stop", "--home", str(node.home.root)) == (0, "stopped\n")
    assert node.wait(5) == 0
    code, words = flock.say("stop", "--home", str(node.home.root))
    assert (code, words.count("\n")) == (3, 1)
    assert "no node runs" in words


def test_ctrl_c_of_run_leaves_no_process(training: list[Node]) -> None:
    flock = training[0].flock
    node = flock.run("node").ready()
    node.event("train.started")
    acquainted(node, training)
    before = len(flock.pids())
    os.killpg(node.process.pid, signal.SIGINT)  # as a terminal does: to both
    assert node.wait(LEAVES_S) == 130
    until("its learner is gone too", lambda: len(flock.pids()) == before - 2, 1)
    training[0].peer("node", "left")


def test_ctrl_c_of_a_script_takes_its_own_node_along(flock: Flock, tmp_path: Path) -> None:
    home = flock.home("own")
    argv = [sys.executable, str(LEARNER), "--folder", str(home.root), "--until", "/nowhere"]
    script = flock.start(["env", f"COVEY_HOME={home.root}", *argv])
    with script:
        until("it trains", lambda: list(home.root.glob("start-*")))
        assert len(flock.pids()) == 2
        os.killpg(script.pid, signal.SIGINT)
        script.wait(LEAVES_S)
    gone(flock, LEAVES_S)


def test_ctrl_c_of_the_demo_leaves_no_process(flock: Flock) -> None:
    """From a terminal, which interrupts nodes and scripts as well."""
    with flock.covey("demo", "--json") as demo:
        until("nodes and scripts run", lambda: len(flock.pids()) >= 5)
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(LEAVES_S) == 130
        gone(flock, LEAVES_S)
        assert not list((flock.folder / "tmp").iterdir()), "nor a folder"
