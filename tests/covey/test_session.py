"""The learner's state machine: waiting, outliving its node, coming back, giving up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import covey
from covey.protocols.layout import Layout, Tensor
from tests.covey.conftest import PATIENCE_S, Host, Place, Vector

LAYOUT = Layout((Tensor("w", (4,)),))


def vector(value: float) -> Vector:
    return np.full(LAYOUT.size, value, np.float32)


def train(
    flock: covey.Attachment, condition: Callable[[], object], weights: Vector | None = None
) -> None:
    """Step until ``condition`` holds, moving ``weights`` by one each time."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if weights is not None:
            weights += 1
        flock.step()
        assert time.monotonic() < deadline


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and retry at every step."""
    monkeypatch.setattr("covey.session._LOOK_S", 0.0)
    monkeypatch.setattr("covey.session._RETRY_S", 0.0)


@contextmanager
def lone(place: Place, weights: Vector, every: int | None = 1) -> Iterator[covey.Attachment]:
    """A learner whose node has just died."""
    node = place.start()
    with covey.attach(LAYOUT, weights, every=every) as flock:
        node.stop()
        train(flock, lambda: not flock.attached)
        yield flock


@pytest.mark.usefixtures("eager")
def test_training_outlives_the_node_and_goes_on_with_the_next(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = vector(0)
    with lone(place, weights) as flock:
        for _ in range(100):
            weights += 1
            flock.step()
        node = place.start(Host(waits=True))
        train(flock, lambda: node.host.attachment, weights)
        assert node.attachment.resumed == Host().lineage
        first = node.host.snapshots[0][0]
        assert first >= 100  # its own progress comes with it
        weights += 1
        node.start(replace=False)
        train(flock, lambda: flock.attached)
        before = weights.copy()
        train(flock, lambda: len(node.host.snapshots) > 1)
        assert np.array_equal(weights, before)
        assert 100 < node.attachment.step <= flock.steps
    told = capsys.readouterr().err
    assert "training goes on alone" in told
    assert "the node is back" in told


@pytest.mark.usefixtures("eager")
def test_what_was_trained_while_the_node_decided_is_kept(place: Place) -> None:
    weights = vector(0)
    with lone(place, weights) as flock:
        node = place.start(Host(waits=True))
        train(flock, lambda: node.host.attachment)
        weights += 5
        node.attachment.increment[:] = 100
        node.start(replace=True)
        train(flock, lambda: weights[0] >= 100)
        assert weights.tolist() == vector(105).tolist()
        node.until(lambda host: "applied 0" in host.calls)
        node.publish(1)
        train(flock, lambda: weights[0] > 105)
        node.until(lambda host: "applied 1" in host.calls)


@pytest.mark.usefixtures("eager")
def test_a_node_that_comes_and_goes(place: Place) -> None:
    weights = vector(0)
    with lone(place, weights) as flock:
        for _ in range(3):
            node = place.start()
            train(flock, lambda: flock.attached)
            node.stop()
            train(flock, lambda: not flock.attached)
        node = place.start(Host(waits=True))  # dies while it decides
        train(flock, lambda node=node: node.host.attachment)  # type: ignore[misc]
        node.stop()
        final = place.start()
        train(flock, lambda: flock.attached)
        train(flock, lambda: len(final.host.snapshots) > 1)


@pytest.mark.usefixtures("eager")
def test_leaving_alone(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with lone(place, vector(0)) as flock:
        assert flock.leave() is None
    assert "without settling" in capsys.readouterr().err


def test_tries_are_rare(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there: five seconds, then ten, … at most a minute between two tries."""
    monkeypatch.setattr("covey.session._LOOK_S", 0.0)
    with lone(place, vector(0)) as flock:
        begin, tries, clock = time.monotonic(), list[float](), [0.0]
        session = flock._session
        monkeypatch.setattr(session._node, "connect", lambda: tries.append(clock[0]))
        while clock[0] < 200:
            if begin + clock[0] >= session._look_at:
                session.look(begin + clock[0])
            clock[0] += 1
    gaps = np.diff(tries)
    assert len(tries) == 6
    assert (gaps >= 5).all()
    assert gaps[-1] == 60


@pytest.mark.usefixtures("eager")
def test_a_supervised_script_ends_with_its_node(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVEY_SUPERVISED", "4711")
    node = place.start()
    flock = covey.attach(LAYOUT, vector(0))
    node.stop()
    with pytest.raises(SystemExit, match=r"the node \(pid 4711\) that ran this script is gone"):
        train(flock, lambda: False)
    flock.step()


def test_the_node_dies_while_a_script_joins(place: Place) -> None:
    node = place.start(Host(waits=True))
    script = joining_script()
    node.until(lambda host: host.attachment)
    node.stop()
    assert script.wait(PATIENCE_S) == 1
    assert script.stderr is not None
    with script.stderr as told:
        assert b"NodeError: the node went away while this script joined" in told.read()


def test_ctrl_c_works_while_a_script_joins(place: Place) -> None:
    node = place.start(Host(waits=True))
    script = joining_script()
    assert script.stderr is not None
    with script.stderr as told:
        assert told.readline() == b"covey: waiting for the swarm's weights \xe2\x80\xa6\n"
        script.send_signal(signal.SIGINT)
        assert script.wait(PATIENCE_S) == -signal.SIGINT
        assert b"KeyboardInterrupt" in told.read()
    node.until(lambda host: host.calls[-1:] == ["left"])


def joining_script() -> "subprocess.Popen[bytes]":
    program = (
        "import covey, numpy; "
        "covey.attach(covey.Layout((covey.Tensor('w', (4,)),)), numpy.zeros(4, 'f'))"
    )
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)


def test_an_idle_step_makes_no_system_call(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It compares a count, the bell and the clock (which Linux and macOS read without one)."""
    place.start()
    with covey.attach(LAYOUT, vector(0), every=10**9) as flock:
        train(flock, lambda: flock._session._words[0] == flock._session._heard)
        flock._session._look_at = np.inf
        look = flock._session.look
        monkeypatch.setattr(flock._session, "look", None)  # the only way to the socket
        for _ in range(1000):
            flock.step()
        monkeypatch.setattr(flock._session, "look", look)


def test_a_silent_node_stops_nobody(place: Place) -> None:
    """A frozen node process: everything is sent once, then training goes on."""
    node = place.start(Host(consumes=False))
    weights = vector(0)
    with covey.attach(LAYOUT, weights, every=1) as flock:
        for step in range(10_000):
            flock.step()
            flock.log(step=step)
        node.until(lambda host: len(host.snapshots) == 2)
        node.host.consumes = True
        node.consumed()
    assert os.getpid() == node.attachment.pid
