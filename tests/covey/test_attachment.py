"""The numpy door against a real link: joining, the exchange of areas, leaving."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

import covey
from covey.attachment import Attachment, Options
from covey.protocols.layout import Layout, Tensor
from covey.protocols.link import SettledReport
from covey.weights import ArrayWeights
from tests.covey.conftest import PATIENCE_S, Host, Node, Place, Vector

LAYOUT = Layout((Tensor("w", (2, 3)),))
HEAD = (  # of a script
    "import covey, numpy\n"
    "weights = numpy.zeros(6, 'f')\n"
    "flock = covey.attach(covey.Layout((covey.Tensor('w', (2, 3)),)), weights)\n"
)


def vector(value: float = 1.0) -> Vector:
    return np.full(LAYOUT.size, value, np.float32)


def train(attachment: covey.Attachment, condition: Callable[[], object]) -> None:
    """Step until ``condition`` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        attachment.step()
        assert time.monotonic() < deadline


def test_the_first_keeps_its_weights(place: Place) -> None:
    node = place.start()
    weights = vector(5)
    with covey.attach(LAYOUT, weights, name="mine") as flock:
        assert flock.attached
        assert weights.tolist() == vector(5).tolist()
        node.until(lambda host: host.calls == ["attached"])
        assert node.attachment.name == "mine"
        assert node.attachment.every == "automatic"
        assert node.attachment.resumed is None
        assert node.host.snapshots[0].tolist() == vector(5).tolist()
    node.until(lambda host: host.calls[-1:] == ["left"])


def test_a_joiner_gets_the_swarms_weights(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    node = place.start(Host(swarm=vector(0.1)))
    weights = vector(5)
    with covey.attach(LAYOUT, weights):
        assert np.array_equal(weights, vector(0.1))
        said = capsys.readouterr().err
        assert "covey: training with node TESTING from the weights it has\n" in said
        node.until(lambda host: "applied 0" in host.calls)


def test_snapshots_and_increments(place: Place) -> None:
    node = place.start()
    weights = vector(0)
    with covey.attach(LAYOUT, weights, every=3) as flock:
        for _ in range(3):
            weights += 1
            flock.step()
        node.until(lambda host: len(host.snapshots) == 2)
        assert node.host.snapshots[1].tolist() == vector(3).tolist()
        assert node.attachment.step == flock.steps == 3
        node.publish(10)
        train(flock, lambda: weights[0] > 3)
        assert weights.tolist() == vector(13).tolist()
        node.until(lambda host: "applied 1" in host.calls)
        assert node.attachment.increment_free
        train(flock, lambda: len(node.host.snapshots) >= 4)
        assert node.host.applied_by[-1] == 1
        assert node.host.snapshots[-1].tolist() == vector(13).tolist()


def test_an_unread_snapshot_is_never_overwritten_and_nobody_waits(place: Place) -> None:
    node = place.start(Host(consumes=False))
    weights = vector(0)
    with covey.attach(LAYOUT, weights, every=1) as flock:
        for _ in range(1000):
            weights += 1
            flock.step()
        node.until(lambda host: len(host.snapshots) == 2)
        assert node.attachment.snapshot.tolist() == vector(1).tolist()
        node.host.consumes = True
        node.consumed()
        train(flock, lambda: len(node.host.snapshots) > 2)
        assert node.host.snapshots[2].tolist() == vector(1000).tolist()


class Distant(ArrayWeights):
    """As on a GPU: what leaves it has arrived only some steps later."""

    def __init__(self, array: Vector) -> None:
        super().__init__(array)
        self.left: Vector | None = None  # on its way
        self.looks = 0

    def gather(self, into: Vector, wait: bool = True) -> bool:
        if wait or self.left is None:
            self.left, self.looks = self.array.copy(), 0 if wait else 3
        self.looks -= 1
        if self.looks > 0:
            return False
        np.copyto(into, self.left)
        self.left = None
        return True

    def add(self, increment: Vector) -> None:
        assert self.left is None, "no increment while a snapshot is on its way"
        super().add(increment)


def test_a_snapshot_that_takes_its_time_holds_up_nobody(place: Place) -> None:
    """It is of the step that it left in, and says rightly which increments are in it."""
    node = place.start()
    weights = vector(0)
    flock = Attachment(LAYOUT, Distant(weights), Options(every=4))

    def step() -> None:
        weights[:] += 2**-10
        flock.step()

    for _ in range(4):
        step()
    assert len(node.host.snapshots) == 1
    for _ in range(2):
        step()
    node.until(lambda host: len(host.snapshots) == 2)
    assert node.host.snapshots[1].tolist() == vector(4 * 2**-10).tolist()
    for number in range(1, 20):
        node.publish(1000)
        while f"applied {number}" not in node.host.calls:
            step()
    flock.leave()
    assert node.host.snapshots[-1].tolist() == weights.tolist()
    assert len(node.host.snapshots) > 5
    for snapshot, applied in zip(node.host.snapshots, node.host.applied_by, strict=True):
        assert snapshot[0] // 1000 == applied


def test_publish_and_poll(place: Place) -> None:
    """What a framework without numpy weights does."""
    node = place.start(Host(consumes=False))
    with covey.attach(LAYOUT, vector(0)) as flock:
        assert flock.poll() is None
        assert flock.publish(vector(1), step=20)
        node.until(lambda host: len(host.snapshots) == 2)
        assert node.attachment.step == 20
        assert not flock.publish(vector(2))
        node.publish(0.5)
        increment = None
        while increment is None:
            increment = flock.poll()
        assert increment.tolist() == vector(0.5).tolist()
        assert not node.attachment.increment_free
        assert flock.poll() is None
        node.until(lambda host: "applied 1" in host.calls)
        node.consumed()
        node.host.consumes = True
        while not flock.publish(vector(3)):
            pass
        node.until(lambda host: len(host.snapshots) == 3)
        assert node.host.snapshots[-1].tolist() == vector(3).tolist()
        assert node.host.applied_by[-1] == 1


def test_the_automatic_period_follows_the_nodes_pace(place: Place) -> None:
    node = place.start()
    with covey.attach(LAYOUT, vector()) as flock:
        node.pace(0.0)
        train(flock, lambda: len(node.host.snapshots) >= 3)
        node.pace(3600.0)
        train(flock, lambda: flock._session._pace_s == 3600.0)
        seen = len(node.host.snapshots)
        for _ in range(1000):
            flock.step()
        assert len(node.host.snapshots) <= seen + 1


def test_leaving_settles(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    node = place.start(Host(correction=vector(0.25)))
    weights = vector(1)
    flock = covey.attach(LAYOUT, weights, every=100)
    weights += 1
    flock.step()
    assert flock.leave() == SettledReport(0.01, 4, 2)
    assert weights.tolist() == vector(2.25).tolist()
    assert node.host.snapshots[-1].tolist() == vector(2).tolist()
    node.until(lambda host: host.calls[-1:] == ["left"])
    assert node.host.calls == ["attached", "snapshot", "settle", "applied 1", "left"]
    assert (
        "settled in 4 exchanges with 2 peers; the models differ by 1 %" in capsys.readouterr().err
    )
    assert flock.leave() == SettledReport(0.01, 4, 2)  # once is enough
    flock.step()  # and training may go on, alone
    assert not flock.attached


def test_leaving_first_waits_for_the_node_to_read(place: Place) -> None:
    node = place.start(Host(consumes=False))
    weights = vector(0)
    flock = covey.attach(LAYOUT, weights, every=1)
    weights += 1
    flock.step()
    node.until(lambda host: len(host.snapshots) == 2)
    weights += 1
    node.host.consumes = True
    node.consumed()
    flock.leave()
    assert node.host.snapshots[-1].tolist() == vector(2).tolist()


def test_leaving_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.attachment.SETTLE_S", 0.0)
    node = place.start(Host(report=None))
    flock = covey.attach(LAYOUT, vector())
    assert flock.leave() is None
    node.until(lambda host: host.calls[-1:] == ["left"])


def test_an_error_in_training_is_a_crash_and_ctrl_c_is_not(place: Place) -> None:
    node = place.start()
    with pytest.raises(ZeroDivisionError), covey.attach(LAYOUT, vector()):
        raise ZeroDivisionError
    node.until(lambda host: host.calls[-1:] == ["crashed"])
    with pytest.raises(KeyboardInterrupt), covey.attach(LAYOUT, vector()):
        raise KeyboardInterrupt
    node.until(lambda host: host.calls[-1:] == ["left"])
    assert "settle" not in node.host.calls


def test_log(place: Place) -> None:
    node = place.start()
    with covey.attach(LAYOUT, vector()) as flock:
        flock.log(loss=0.5, accuracy=np.float32(0.25), broken=float("nan"))
        node.until(lambda host: host.logs == [{"loss": 0.5, "accuracy": 0.25}])
        flock.log(loss=0.4)
        flock.log(loss=0.3)
    node.until(lambda host: host.calls[-1:] == ["left"])
    assert node.host.logs[1:] == [{"loss": 0.3}]
    with pytest.raises(ValueError, match="64"):
        flock.log(**{"n" * 65: 1.0})


def test_a_vector_that_does_not_fit_is_refused(place: Place) -> None:
    for wrong in (np.zeros(6), np.zeros(7, np.float32), np.broadcast_to(np.float32(0), 6)):
        with pytest.raises(covey.ShareError, match=r"writeable float32\[6\]"):
            covey.attach(LAYOUT, wrong)  # type: ignore[arg-type,unused-ignore]


def test_a_second_learner_is_told_who_is_there(place: Place) -> None:
    place.start()
    with covey.attach(LAYOUT, vector(), name="first"):
        program = (
            "import covey, numpy; "
            "covey.attach(covey.Layout((covey.Tensor('w', (1,)),)), numpy.zeros(1, 'f'))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"NodeError: first (pid {os.getpid()}) is attached to this node" in done.stderr
    assert done.stderr.count('  File "') == 2, "the script's own line, and covey.attach"


def test_joining_again_in_one_process_takes_over(
    place: Place, capsys: "pytest.CaptureFixture[str]"
) -> None:
    """A notebook cell that is run twice."""
    node = place.start()
    first = covey.attach(LAYOUT, vector(1), every=1)
    with covey.attach(LAYOUT, vector(2), every=1) as second:
        train(first, lambda: not first.attached)
        train(second, lambda: len(node.host.snapshots) > 2)
    assert "trains on alone: the same process has attached again" in capsys.readouterr().err
    assert node.host.calls[:3] == ["attached", "crashed", "attached"]


def end_of(program: str, node: Node) -> str:
    """Run a script that attaches and ends; returns the host's last call."""
    subprocess.run([sys.executable, "-c", HEAD + program], stderr=subprocess.DEVNULL)
    node.until(lambda host: host.calls[-1:] in (["left"], ["crashed"]))
    return node.host.calls[-1]


def test_a_script_may_just_end(place: Place) -> None:
    node = place.start()
    assert end_of("weights += 3; flock.step()", node) == "left"
    assert node.host.snapshots[-1].tolist() == vector(3).tolist()


def test_the_end_waits_until_the_node_has_taken_the_last_steps(place: Place) -> None:
    """Also when it has not yet read the snapshot before."""
    node = place.start(Host(consumes=False))
    program = HEAD.replace("weights)", "weights, every=1)")
    program += f"covey.attachment.HAND_OVER_S = {PATIENCE_S}\n"
    program += "for _ in range(5): weights += 1; flock.step()\n"
    program += "print('trained', flush=True)"
    argv, pipe, null = [sys.executable, "-c", program], subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(argv, stdout=pipe, stderr=null, text=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "trained\n"
        node.until(lambda host: len(host.snapshots) == 2)
        node.consumed()
        node.until(lambda host: len(host.snapshots) == 3)
        assert script.poll() is None
        assert "left" not in node.host.calls
        node.consumed()
        node.until(lambda host: host.calls[-1:] == ["left"])
        assert script.wait(PATIENCE_S) == 0
    assert node.host.snapshots[-1].tolist() == vector(5).tolist()


def test_the_end_does_not_wait_for_ever(place: Place) -> None:
    node = place.start(Host(consumes=False))
    assert end_of("covey.attachment.HAND_OVER_S = 0.1; flock.step()", node) == "left"


def test_the_end_of_a_script_whose_node_ends_too_is_quiet(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVEY_SUPERVISED", "1")
    node = place.start(Host(consumes=False))
    program = [sys.executable, "-c", HEAD + "weights += 1; flock.step()"]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as script:
        node.until(lambda host: len(host.snapshots) == 2)
        node.stop()
        _, errors = script.communicate(timeout=PATIENCE_S)
    assert script.returncode == 0
    assert "Exception" not in errors


def test_a_script_that_crashes_says_no_goodbye(place: Place) -> None:
    assert end_of("weights += 3; flock.step(); 1 / 0", place.start()) == "crashed"


def test_a_script_may_be_interrupted(place: Place) -> None:
    node = place.start()
    assert end_of("weights += 3; flock.step(); raise KeyboardInterrupt", node) == "left"
    assert node.host.snapshots[-1].tolist() == vector(0).tolist()


def test_a_killed_script_is_noticed(place: Place) -> None:
    assert end_of("import os; os.kill(os.getpid(), 9)", place.start()) == "crashed"


def test_a_forked_child_does_not_hide_the_end(place: Place) -> None:
    """A killed script whose data loader's worker lives on."""
    node = place.start()
    pipe, end = os.pipe()  # the worker waits for the end of this
    program = f"""
import os
if os.fork() == 0:
    os.close({end}); os.read({pipe}, 1); os._exit(0)
os.kill(os.getpid(), 9)
"""
    try:
        subprocess.run(
            [sys.executable, "-c", HEAD + program],
            stderr=subprocess.DEVNULL,
            pass_fds=(pipe, end),
        )
        node.until(lambda host: host.calls[-1:] == ["crashed"])
    finally:
        os.close(end)
        os.close(pipe)


def test_a_forked_child_leaves_the_connection_alone(place: Place) -> None:
    """A data loader's worker must not say goodbye for its parent."""
    node = place.start()
    program = "import os\nif os.fork() == 0:\n flock.leave(); os._exit(0)\nos.wait(); weights += 4"
    assert end_of(program, node) == "left"
    assert node.host.snapshots[-1].tolist() == vector(4).tolist()
    assert "settle" not in node.host.calls
