"""kill -9: the others go on, and whoever was killed comes back as itself."""

import os
import signal

import pytest

from tests.swarm.flock import Node
from tests.waiting import until

pytestmark = pytest.mark.swarm


def test_a_killed_node_comes_back_as_itself(training: list[Node]) -> None:
    ada = training[0]
    flock = ada.flock
    config = flock.home("cat").config_file
    config.write_text("checkpoint_every_s = 1\n")
    cat = flock.run("cat").ready()
    cat.learns_on()
    before = cat.status()
    until("it keeps its state", lambda: cat.status()["training"]["last_checkpoint"])
    cat.kill()
    until("its learner ends too", lambda: not any(str(cat.folder) in c for c in flock.commands()))
    for node in training:
        node.learns_on()
    ada.peer("cat", "dead")
    ada.learns_on()
    again = flock.run("cat").ready()
    restored = again.event("train.restored")
    assert restored["data"]["age"] > 0, "from its own checkpoint"
    again.event("train.started")
    after = again.status()
    assert after["node"]["id"] == before["node"]["id"]
    assert after["node"]["instance"] != before["node"]["instance"]
    assert after["training"]["founder"] == before["training"]["founder"]
    assert 8 < again.starts()[-1].mean() < 12, "not from scratch"
    ada.peer("cat")
    again.learns_on()
    assert not [e for e in ada.events() if e["type"].startswith("identity.")]


def test_a_killed_learner_gets_the_state_back(training: list[Node]) -> None:
    ada = training[0]
    dan = ada.flock.run("dan").ready()
    dan.learns_on()
    last = dan.events()[-1]["id"]
    pid = dan.status()["training"]["learner_pid"]
    os.kill(pid, signal.SIGKILL)
    dan.event("train.detached", after=last, clean=False)
    dan.event("script.crashed", after=last, code=128 + signal.SIGKILL)
    for node in training:
        node.learns_on()
    assert ada.peer("dan")["state"] == "alive", "the node answers for its learner"
    dan.event("train.started", after=last)
    assert dan.status()["training"]["learner_pid"] != pid
    assert 8 < dan.starts()[1].mean() < 12, "it was given the node's state"
    assert not dan.events("train.founded", "train.copied", after=last)
    dan.learns_on()


def test_a_suspended_node_takes_up_where_it_was(training: list[Node]) -> None:
    ada = training[0]
    eve = ada.flock.run("eve").ready()
    eve.learns_on()
    before = eve.status()["training"]
    os.kill(eve.process.pid, signal.SIGSTOP)  # as a laptop whose lid is shut
    ada.peer("eve", "suspect")
    ada.learns_on()
    os.kill(eve.process.pid, signal.SIGCONT)
    ada.peer("eve")
    eve.learns_on()
    after = eve.status()["training"]
    assert after["founder"] == before["founder"]
    assert after["step"] >= before["step"]
    assert after["learner_pid"] == before["learner_pid"], "its learner trained on"


def test_a_learner_outlives_its_node(training: list[Node]) -> None:
    """Started by hand beside it: trains on alone, and goes on with the node that comes back."""
    flock = training[0].flock
    fox = flock.up("fox").ready()
    with flock.learner(fox) as learner:
        fox.learns_on()
        founder = fox.status()["training"]["founder"]
        step = fox.status()["training"]["step"]
        fox.kill()
        again = flock.up("fox").ready()
        again.event("train.started")
        again.learns_on()
        after = again.status()["training"]
        assert after["founder"] == founder
        assert after["step"] > step
        assert after["learner_pid"] == learner.pid
        assert len(again.starts()) == 1, "it was not started again"
